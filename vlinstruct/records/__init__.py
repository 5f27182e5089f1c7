"""Records: lines that people give us, lines that we write, and going on where an earlier run ended."""
