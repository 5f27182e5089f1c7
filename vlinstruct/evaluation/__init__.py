"""The evaluation room: predictions of a benchmark -> metrics with their intervals."""
