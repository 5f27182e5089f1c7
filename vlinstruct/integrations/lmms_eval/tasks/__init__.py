"""Tasks for lmms-eval's `--include_path`, a folder each; `prepare` writes their data."""
