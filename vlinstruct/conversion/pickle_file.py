"""Reads a .pth file and runs no code of it.

`torch.load(weights_only=True)` runs none, but unpacks what is compressed (0.6 MB became 600 MB), and its messages
advise to switch the safety off. So the file is looked at first: a zip of stored entries, as torch.save writes it.
"""

from __future__ import annotations

import warnings
import zipfile
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from vlinstruct.errors import CheckpointError, is_out_of_files, shortened
from vlinstruct.weights.safetensors_files import what_it_is_instead

_ZIP = b"PK\x03\x04"
_END_OF_ZIP, _END_BYTES = b"PK\x05\x06", 22
_BEFORE_1_6 = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # a pickled number that torch.save began with
_TAR, _TAR_PLACE = b"ustar", 257
_ENCRYPTED = 1
_MAX_ENTRIES = 100_000  # a whole model with its optimizer has a few thousand
_AGAIN = "Download or copy it again"
_SAVE_AGAIN = "If you trust it, load it and save {'model': its state_dict} again with torch.save"


def load_pickle(path: Path) -> dict[str, Any]:
    """Reads what torch.save wrote.

    Args:
        path: a zip of PyTorch 1.6 or later.

    Returns:
        The dictionary in it; its tensors are views of the mapped file.

    Raises:
        CheckpointError: it is of another format, damaged, too large for itself, or would run code.
    """
    try:
        _require_zip(path)
        with zipfile.ZipFile(path) as archive:
            _require_plain_entries(path, archive.infolist())
        with warnings.catch_warnings(action="ignore"):  # a damaged pickle's protocol is one that torch has not tested
            values = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (CheckpointError, MemoryError):
        raise
    except OSError as error:
        if is_out_of_files(error):
            raise
        raise _refused(path, error.strerror or type(error).__name__, "Check the file and its permissions") from error
    except Exception as error:  # torch raises errors of many kinds
        if is_out_of_files(error):
            raise
        raise _refused(path, *_what_is_wrong(path)) from error
    if not isinstance(values, dict):
        raise _refused(path, f"it holds a {type(values).__name__}, no tensors by name", _SAVE_AGAIN)
    return values


def _require_zip(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(512)
        size = file.seek(0, 2)
        file.seek(max(size - _END_BYTES, 0))
        end = file.read()
    instead = what_it_is_instead(path)
    if instead is not None:
        raise _refused(path, f"it is {instead}", _AGAIN)
    if not _ZIP.startswith(start[:4]):
        raise _refused(path, *_other_format(start, end))
    if not end.startswith(_END_OF_ZIP):
        raise _refused(path, "truncated checkpoint: its end is missing", _AGAIN)


def _other_format(start: bytes, end: bytes) -> tuple[str, str]:
    if start[_TAR_PLACE:].startswith(_TAR):
        return "a tar file, which PyTorch wrote until 0.1", _SAVE_AGAIN
    if start.startswith(_BEFORE_1_6):
        return "PyTorch before 1.6 wrote it, not as a zip", _SAVE_AGAIN
    if (start[:1] == b"\x80" and start[1:2] <= b"\x05") or (start[:1] in b"(c]}" and end.endswith(b".")):
        return "a raw pickle, which is a program", _SAVE_AGAIN
    if start[8:9] == b"{":
        return "a safetensors file", "Put it into a folder as model.safetensors, and give the folder"
    return "no file of torch.save", "Give a .pth file"


def _require_plain_entries(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    names = [entry.orig_filename for entry in entries]
    packed = [entry.orig_filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
    declared, size = sum(entry.file_size for entry in entries), path.stat().st_size
    if len(entries) > _MAX_ENTRIES:
        raise _refused(path, f"it has {len(entries)} entries, more than any model", _AGAIN)
    if packed or any(entry.flag_bits & _ENCRYPTED for entry in entries):
        why = f"compressed or encrypted entries ({_shown(packed)}): torch.save did not write it"
        raise _refused(path, why, _SAVE_AGAIN)
    if declared > size or any(entry.compress_size != entry.file_size for entry in entries):
        raise _refused(path, f"its entries claim {declared} bytes, the file has {size}", _AGAIN)
    outside = [name for name in names if not _is_inside(name)]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if outside or twice:
        raise _refused(path, f"entries that lead out of it or occur twice ({_shown(outside or twice)})", _AGAIN)
    _require_torch_save(path, names)


def _is_inside(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return not name.startswith("/") and ".." not in parts and not any(c in name for c in "\\:\0")


def _require_torch_save(path: Path, names: list[str]) -> None:
    inner = {PurePosixPath(*PurePosixPath(name).parts[1:]) for name in names}
    if PurePosixPath("constants.pkl") in inner or any(place.parts[:1] == ("code",) for place in inner):
        raise _refused(path, "a TorchScript archive, which is a program", _SAVE_AGAIN)
    if PurePosixPath("data.pkl") not in inner:
        raise _refused(path, "a zip that torch.save did not write: no data.pkl", "Give a .pth file")


def _what_is_wrong(path: Path) -> tuple[str, str]:
    """Says why torch did not take it: names the code that it would run, if that is why."""
    try:
        with warnings.catch_warnings(action="ignore"):
            names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except Exception:  # damaged too early to tell
        names = []
    if names:
        return f"it holds more than tensors ({_shown(names)}), which is never run", _SAVE_AGAIN
    return "damaged checkpoint", _AGAIN


def _shown(names: list[str]) -> str:
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(shortened(name, 40) for name in names[:3]) + rest


def _refused(path: Path, why: str, advice: str) -> CheckpointError:
    return CheckpointError.at("cannot read checkpoint", path, why, advice)
