"""Labelled items -> a better instruction for the task, with its figures.

tune        the verb: records, a result, the instruction in a file
settings    the metric, the user's other instructions, the budget
proposals   which instructions take part
answers     asks the model, scores, keeps every answer

How the race is run and what is certain is `instruction/race.py`'s, which needs scores alone.
"""
