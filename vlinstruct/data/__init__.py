"""The data room: pictures, instructions and records, from what a user typed to what the models read, and back to disk.

    text.py     check_instruction, printable, error_line: what a person wrote and what a terminal may show
    files.py    open_regular: a named file, never a pipe or device, never a hang
    images.py   load_image: a path or bytes -> an RGB picture; image_modes.py and image_formats.py do its parts
    inputs.py   list_images: files, folders, globs, `-`, URLs -> an ordered list of ImageInput; load_input
    fetch.py    fetch: an http(s) URL -> bytes, within time and size caps
    items.py    read_items: a JSON-lines file -> items and line errors
    records.py  RecordWriter, open_records: JSON lines out, resumed where an earlier run stopped

No torch, no transformers; Pillow is imported when the first picture is read.
"""
