"""Visual Spatial Reasoning, zero-shot split, by accuracy."""
