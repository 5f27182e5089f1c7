"""`vlinstruct doctor`: what is wrong here, and how to mend it.

    finding       what a check says: a level, what was found, how to fix it
    wanted        what a person means to run
    packages      which libraries are here
    variables     what the environment says
    devices       what can compute, and how much memory it has
    cache         the hub's cache and the hub
    model         a backbone's folder, opened once for all checks
    configuration its settings against what we compute
    weights       its tensors
    tokens        its tokenizers
    answering     it answers a question about a picture
    environment   the table of contents of this machine's checks
    backbone      the table of contents of a backbone's
    diagnosis     both together, and what a command ends with

A check is a generator of findings; nothing is downloaded and nothing is written.
"""
