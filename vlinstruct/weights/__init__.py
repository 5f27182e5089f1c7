"""Weights on disk and in memory, whatever the kind of model: the hub, files, what fits where, quantization."""
