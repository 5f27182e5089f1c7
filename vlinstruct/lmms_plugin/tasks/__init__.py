"""Tasks for lmms-eval's `--include_path`, a folder each; `vlinstruct.lmms_plugin.prepare` writes what they read."""
