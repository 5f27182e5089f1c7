"""Damages a file's content at random: its bytes, or what stands in it, with sound lengths and checksums around it.

Every function takes a generator of its own, so that a mutant is the same whoever makes it, and in whatever order.
"""

from __future__ import annotations

import copy
import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable

Mutator = Callable[[random.Random, bytes], bytes]

_LENGTHS = (
    b"\xff" * 4,
    b"\0" * 4,
    b"\x7f\xff\xff\xff",
    b"\x80\0\0\0",
    b"\xff\xff\xff\x7f",
    b"\xff" * 8,
    b"\0\1",
    b"\1\0",
)
_EXTREMES: tuple[object, ...] = (
    *(None, True, False, 0, -1, 1, 2, 7, 1.5, -0.0, 1e-30, 1e308, 2**31, 2**53, 2**63, 2**70, 10**9),
    *(float("nan"), float("inf"), -float("inf"), "", "x", "0", "nan", "a\0b", "\ud800", "../../etc/passwd", "\x1b[2J"),
    *([], [None], [0], [[]], ["x"] * 3, {}, {"a": 1}, {"": None}, "9" * 400, "x" * 5000),
)
_MAX_DEPTH = 3000  # deeper than Python's parser follows
_MAX_REPEATED = 4096


def damaged_bytes(rng: random.Random, content: bytes) -> bytes:
    """Flips, sets, cuts out, inserts and repeats bytes; cuts the end off; writes extremes where lengths may stand."""
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 8, 32))):
        if not damaged:
            break
        # Every second place is near the start: headers break in more ways than data.
        first = int(rng.expovariate(4 / len(damaged))) if rng.random() < 0.5 else rng.randrange(len(damaged))
        where = min(first, len(damaged) - 1)
        other = rng.randrange(len(damaged))
        begin, end = min(where, other), max(where, other)
        match rng.randrange(10):
            case 0:
                damaged[where] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            case 1 | 2 | 3:
                damaged[where] ^= 1 << rng.randrange(8)
            case 4:
                del damaged[where : where + rng.randrange(1, 9)]
            case 5:
                damaged[where:where] = rng.randbytes(rng.choice((1, 3, 40)))
            case 6:
                extreme = rng.choice(_LENGTHS)
                damaged[where : where + len(extreme)] = extreme
            case 7 if rng.random() < 0.3:
                del damaged[where:]
            case 8 if rng.random() < 0.3:
                del damaged[begin:end]
            case 9:
                damaged[begin:begin] = damaged[begin:end][:_MAX_REPEATED]
    return bytes(damaged)


def damaged_json(rng: random.Random, content: bytes) -> bytes:
    """Changes what a JSON text says; one in seven is damaged as bytes."""
    if rng.random() < 1 / 7:
        return damaged_bytes(rng, content)
    return _encoded(rng, changed(rng, json.loads(content)))


def damaged_lines(rng: random.Random, content: bytes) -> bytes:
    """Changes what JSON lines say; one in seven becomes a JSON list, and one in seven is damaged as bytes."""
    if rng.random() < 1 / 7:
        return damaged_bytes(rng, content)
    values = changed(rng, [json.loads(line) for line in content.splitlines()])
    if not isinstance(values, list) or rng.random() < 1 / 7:
        return _encoded(rng, values)
    return b"".join(_encoded(rng, value) + b"\n" for value in values)


def damaged_safetensors(rng: random.Random, content: bytes) -> bytes:
    """Changes what the header of a safetensors file says, its length made right; two in five are damaged as bytes."""
    if rng.random() < 0.4:
        return damaged_bytes(rng, content)
    length = int.from_bytes(content[:8], "little")
    header = _encoded(rng, changed(rng, json.loads(content[8 : 8 + length])))
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def damaged_png(rng: random.Random, content: bytes) -> bytes:
    """Damages a PNG's chunks and makes their checksums right, so that what is behind them is reached."""
    damaged = damaged_bytes(rng, content)
    if rng.random() < 0.3:
        return damaged
    sound, place = bytearray(damaged[:8]), 8
    while place + 12 <= len(damaged):
        (length,) = struct.unpack_from(">I", damaged, place)
        body = damaged[place + 4 : place + 8 + length]
        sound += struct.pack(">I", max(len(body) - 4, 0)) + body + struct.pack(">I", zlib.crc32(body))
        place += 12 + length
    return bytes(sound)


def damaged_zip(rng: random.Random, content: bytes) -> bytes:
    """Damages an entry and writes a sound zip around it; two in five are damaged as bytes."""
    if rng.random() < 0.4:
        return damaged_bytes(rng, content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    victim = rng.choice([name for name in entries if name.endswith("data.pkl")] * 5 + list(entries))
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, entry in entries.items():
            archive.writestr(name, damaged_bytes(rng, entry) if name == victim else entry)
    return written.getvalue()


def damaged_table(rng: random.Random, content: bytes) -> bytes:
    """Damages a table, every second one in its last 1,500 bytes, where parquet describes itself."""
    if rng.random() < 0.5:
        return damaged_bytes(rng, content)
    return content[:-1500] + damaged_bytes(rng, content[-1500:])


def changed(rng: random.Random, value: object) -> object:
    """Returns a JSON value with one to three places changed: dropped, repeated, of another type, extreme, or deep."""
    value = [json.loads(json.dumps(value))]  # in a list, so that the whole may be what is changed
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        _change(rng, value)
    return value[0]


def _change(rng: random.Random, node: object) -> None:
    """Changes one place somewhere below a list or an object."""
    while isinstance(node, list | dict) and node:
        key = rng.choice(list(node) if isinstance(node, dict) else list(range(len(node))))
        child = node[key]
        if isinstance(child, list | dict) and child and rng.random() < 0.8:
            node = child
            continue
        match rng.randrange(8):
            case 0 if isinstance(node, dict):
                del node[key]
            case 1 if isinstance(node, dict):
                node[f"{key}x" if rng.random() < 0.5 else rng.choice(("", "\0", "auto_map", "trust_remote_code"))] = (
                    child
                )
            case 0 | 1:
                node.append(child)
            case 2 if isinstance(child, int) and not isinstance(child, bool):
                factors = (child + 1, child - 1, child * 2, -child, child * 10**6, float(child), str(child))
                node[key] = rng.choice(factors)
            case 3 if isinstance(child, str):
                node[key] = rng.choice(
                    (child + "x", child[1:], child.upper(), child * 50, child + "\0", "\u202e" + child)
                )
            case 4 if rng.random() < 0.2:
                node[key] = _Deep(rng.choice((50, 900, _MAX_DEPTH)))
            case _:
                node[key] = copy.deepcopy(rng.choice(_EXTREMES))  # the next change may be inside of it
        return


class _Deep(int):
    """Stands for a list in a list in a list, as many as this number: Python's writer does not go as deep."""


def _encoded(rng: random.Random, value: object) -> bytes:
    """Writes JSON, a `_Deep` as brackets and lone surrogates as escapes or as bytes that are no UTF-8."""
    deep: list[int] = []

    def marked(node: object) -> object:
        if isinstance(node, _Deep):
            deep.append(node)
            return f"deep {len(deep) - 1}"
        if isinstance(node, dict):
            return {key: marked(child) for key, child in node.items()}
        return [marked(child) for child in node] if isinstance(node, list) else node

    text = json.dumps(marked(value), ensure_ascii=rng.random() < 0.5)
    for number, depth in enumerate(deep):
        text = text.replace(f'"deep {number}"', "[" * depth + "]" * depth)
    return text.encode("utf-8", "surrogatepass")
