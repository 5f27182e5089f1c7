"""Tasks for lmms-eval's `--include_path`, a folder each; its neighbour `prepare` writes their data."""
