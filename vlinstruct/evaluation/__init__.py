"""Benchmarks -> answers of every item, scores with their intervals, a table and a page.

evaluate     the verb: by name, with the records and the report in a folder
selection    what a name stands for, and the settings
benchmark    what a benchmark and one of its items are
benchmarks   the ten of the paper, and mini's tasks, a file each
reading      annotation files and the hub's tables -> items
runner       all items through all models, in one process or several; resumed where a run was interrupted
parts        what several processes write, gathered into one file
answering    a chunk of items -> their records
report       records -> table, page, differences from another run
"""
