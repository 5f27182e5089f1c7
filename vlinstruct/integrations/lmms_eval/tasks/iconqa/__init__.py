"""IconQA, choose-text test part, by accuracy."""
