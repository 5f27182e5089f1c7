"""What can be evaluated on: one file per benchmark, each of which makes items."""
