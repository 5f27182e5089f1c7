"""The records of a run -> its table, as text, as JSON, as a page with a drawing, and against another run."""
