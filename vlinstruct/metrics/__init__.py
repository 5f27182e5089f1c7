"""The metrics of the zero-shot evaluation (section 4): scores per item, their mean, and bootstrap intervals."""
