"""`vlinstruct doctor`: what is wrong with this installation or a backbone, and how to fix it.

    diagnosis       `diagnose`: all checks in their order, and the error that their problems amount to
    finding         what a check is given and what it says: a level, what was found, how to fix it
    machine         libraries, environment variables, processor, memory, GPUs
    cache           the hub's cache on this machine, and the hub
    backbone        the checks of a backbone in their order; it answers a question about a picture
    folder          its folder, opened once for all checks: files and tensors
    configuration   its config.json, against what was trained and what we compute
    tokens          its tokenizers

A check is a generator of findings. Nothing is downloaded and nothing is written.
"""
