"""Makes the fonts of the test part that ship: the letters and digits of open-licensed fonts, under names of their own.

python -m pretrain_mini.subset_fonts FOLDER     (needs fonttools, and the Debian packages in SOURCES)

Text drawn in them is pixel for pixel that of the whole fonts. Their licences allow changed copies that do not carry the
original's name: `test_fonts/LICENSES.md`.
"""

from __future__ import annotations

import argparse
import string
from pathlib import Path
from typing import Any

# What ships -> the file it is made from, in fonts-paratype, fonts-cabin, fonts-sil-charis and fonts-karla.
SOURCES = {
    "test-a.ttf": "PTS55F.ttf",
    "test-b.ttf": "PTS75F.ttf",
    "test-c.ttf": "PTF55F.ttf",
    "test-d.ttf": "PTF75F.ttf",
    "test-e.ttf": "PTN77F.ttf",
    "test-f.otf": "Cabin-Regular.otf",
    "test-g.otf": "Cabin-Bold.otf",
    "test-h.ttf": "CharisSIL-Regular.ttf",
    "test-i.ttf": "CharisSIL-Bold.ttf",
    "test-j.otf": "Karla-Regular.otf",
    "test-k.otf": "Karla-Bold.otf",
}
_CHARACTERS = string.ascii_letters + string.digits
_FAMILY, _STYLE, _UNIQUE, _FULL, _POSTSCRIPT = 1, 2, 3, 4, 6


def subset(source: Path, target: Path) -> None:
    """Writes a font's letters and digits under another name.

    Args:
        source: the whole font.
        target: the file to write; its stem becomes the font's name.
    """
    from fontTools import subset as subsetting
    from fontTools.ttLib import TTFont

    options = subsetting.Options(
        layout_features=["kern"], name_IDs=[0, 1, 2, 3, 4, 6, 13, 14], notdef_outline=True, legacy_kern=True
    )
    font = TTFont(source)
    subsetter = subsetting.Subsetter(options)
    subsetter.populate(text=_CHARACTERS)
    subsetter.subset(font)
    _rename(font, f"vlinstruct-{target.stem}")
    font.save(target)


def _rename(font: Any, name: str) -> None:
    """Replaces every name that a user would see; copyright and licence stay."""
    for record in font["name"].names:
        if record.nameID in (_FAMILY, _UNIQUE, _FULL, _POSTSCRIPT):
            record.string = name
    if "CFF " in font:
        outlines = font["CFF "].cff
        outlines.fontNames = [name]
        outlines.topDictIndex[0].FullName = outlines.topDictIndex[0].FamilyName = name


def main() -> None:
    """Makes all of them."""
    parser = argparse.ArgumentParser(description="Make the fonts of the test part.")
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    installed = {path.name: path for path in Path("/usr/share/fonts").rglob("*.[to]tf")}
    for target, source in SOURCES.items():
        subset(installed[source], folder / target)
        print(f"{target}  {(folder / target).stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
