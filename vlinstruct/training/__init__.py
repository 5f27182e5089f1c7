"""EMA training (section 3.1): the projection learns, everything else is frozen and computed once."""
