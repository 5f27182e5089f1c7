"""Reading a benchmark: its authors' annotation files or the hub's tables -> items, or a line on what is wrong."""
