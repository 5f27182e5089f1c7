"""Hateful Memes, both development parts, by the area under the ROC curve."""
