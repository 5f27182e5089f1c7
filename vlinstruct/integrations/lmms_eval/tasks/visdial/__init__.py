"""Visual Dialog, v1.0 validation, by mean reciprocal rank and recall."""
