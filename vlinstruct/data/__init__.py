"""The data room: pictures, instructions and records, from what a user typed to what the models read, and back to disk.

    text.py     check_instruction, printable, error_line: what a person wrote and what a terminal may show
    files.py    open_regular: a named file, never a pipe or device, never a hang
    images.py   load_image: a path or bytes -> an RGB picture; image_formats.py, image_modes.py, quiet.py: its parts
    inputs.py   list_images: files, folders, globs, `-`, URLs -> an ordered list of ImageInput; load_input
    fetch.py    fetch: an http(s) URL -> bytes, within time and size caps
    items.py    read_items: a JSON-lines file -> items and line errors
    conversations.py  read_conversations: training data -> samples; training_records.py, turns.py, image_folder.py, ...
    settings_file.py  read_settings: a YAML file -> a dataclass' fields
    records.py  RecordWriter: JSON lines out; record_files.py, open_records: to a file, resumed (record_resume.py)

No torch, no transformers; importing this package imports none of its modules, images.py and inputs.py import Pillow.
"""
