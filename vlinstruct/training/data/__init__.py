"""Training data: the formats that people have, read into questions with answers about a picture."""
