"""Where other programs call us, a folder each."""
