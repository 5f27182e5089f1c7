"""Any vision-language model of transformers: picture, clip or sound -> one prefix, behind which all of AIO reads on.

opening.py         a folder -> a loaded backend; what does not hold of an unknown family is refused here
support.py         the same from settings alone, before weights are downloaded
memory.py          does it fit
families.py        where kinds of models differ, as data
chat_template.py   texts and turns -> token ids; what a user types stays text
prefix.py          what a model has read: a cache that many continue from
any_vlm.py         the backend
"""
