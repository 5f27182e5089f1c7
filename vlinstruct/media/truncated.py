"""What is left of a JPEG that was cut off: its end marker is put back, and what was lost stays grey.

Pillow does the same under `ImageFile.LOAD_TRUNCATED_IMAGES`, which is a global of the process: it would let every other
thread's truncated picture pass without a word.
"""

from __future__ import annotations

from PIL import Image, ImageChops

_END = b"\xff\xd9"
_PROGRESSIVE = b"\xff\xc2"  # a frame header's marker; entropy coded bytes never hold it
_OTHER_REST = bytes.fromhex("129be735c4")


def with_end(content: bytes, *, num_other_bytes: int = 0) -> bytes:
    """Returns a JPEG's bytes with the end marker.

    Args:
        content: what is there of it.
        num_other_bytes: put so many arbitrary bytes in the place of the lost ones: where they change a pixel, it was
            lost.
    """
    return content + _OTHER_REST * (num_other_bytes // len(_OTHER_REST)) + _END


def missing_part(content: bytes, image: Image.Image, other: Image.Image | None) -> str:
    """Returns how much is missing, in words.

    Args:
        content: what is there of the JPEG.
        image: as it is read with the end marker.
        other: as it is read with another rest; None where that cannot be read.
    """
    if other is None or image.size != other.size:
        return "a part of it is missing and grey"
    box = ImageChops.difference(image, other).getbbox()
    if box is None:
        return "only its end marker is missing"
    if _PROGRESSIVE in content:  # every scan covers the whole picture
        return "its last scans are missing, so details are"
    share = (box[2] - box[0]) * (box[3] - box[1]) / (image.width * image.height)
    return f"about {share:.0%} of it is missing and grey"
