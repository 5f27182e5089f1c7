"""The kinds of model that answer, score and write, a folder each, behind the interface in `vlinstruct/backend.py`."""
