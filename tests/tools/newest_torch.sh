#!/usr/bin/env bash
# Tries what depends on PyTorch's numbers and calls with the newest one that pyproject.toml allows, before its bound is moved.
# Its CUDA build takes 5 GB of disk, and the tests five minutes of two cores: too much for every change.
set -euo pipefail
cd "$(dirname "$0")/../.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/newest"
"$work/newest/bin/pip" install -qq -e '.[test]'
"$work/newest/bin/python" -c 'import torch; print("torch", torch.__version__)'
"$work/newest/bin/python" -m pytest tests/backends tests/instruction tests/training tests/weights tests/test_model.py tests/test_chat.py
