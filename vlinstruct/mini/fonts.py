"""Finds the fonts that scenes name, by file: the test part's ship, the others are the system's.

Training and tuning need open-licensed Debian packages: `apt-get install $(python -m vlinstruct.mini.fonts)`. Nothing is
looked up at import; a missing font is an error only when text is drawn in it.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from PIL import ImageFont

from vlinstruct.errors import ResourceError
from vlinstruct.mini import Split

FONT_PACKAGES = (
    "fonts-dejavu fonts-liberation fonts-freefont-ttf fonts-roboto-unhinted fonts-open-sans fonts-lato fonts-noto-mono "
    "fonts-cantarell fonts-comfortaa fonts-inconsolata fonts-courier-prime fonts-crosextra-carlito "
    "fonts-crosextra-caladea fonts-linuxlibertine fonts-hack fonts-firacode fonts-jetbrains-mono fonts-quicksand "
    "fonts-paratype fonts-cabin fonts-sil-charis fonts-karla"
)
BUILT_IN = "pillow"
TRAIN_FONTS = (
    BUILT_IN,
    *("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSansCondensed.ttf", "DejaVuSansCondensed-Bold.ttf"),
    *("DejaVuSerif.ttf", "DejaVuSerif-Bold.ttf", "DejaVuSerifCondensed-Bold.ttf", "DejaVuSansMono-Bold.ttf"),
    *("LiberationSans-Regular.ttf", "LiberationSans-Bold.ttf", "LiberationSansNarrow-Bold.ttf"),
    *("LiberationSerif-Regular.ttf", "LiberationSerif-Bold.ttf", "LiberationMono-Bold.ttf"),
    *("LiberationSans-Italic.ttf", "LiberationSerif-BoldItalic.ttf"),
    *("FreeSans.ttf", "FreeSansBold.ttf", "FreeSerif.ttf", "FreeSerifBold.ttf", "FreeMonoBold.ttf"),
    *("Roboto-Regular.ttf", "Roboto-Medium.ttf", "Roboto-Bold.ttf", "Roboto-Black.ttf", "RobotoCondensed-Bold.ttf"),
    *("Lato-Regular.ttf", "Lato-Semibold.ttf", "Lato-Bold.ttf", "Lato-Heavy.ttf", "Lato-BlackItalic.ttf"),
    *("NotoSansMono-Bold.ttf", "Comfortaa-Bold.ttf", "Inconsolata.otf", "Carlito-Regular.ttf", "Carlito-Bold.ttf"),
    *("LinBiolinum_R.otf", "LinBiolinum_RB.otf", "LinLibertine_R.otf", "LinLibertine_RB.otf"),
    *("FiraCode-Medium.ttf", "FiraCode-Bold.ttf", "JetBrainsMono-Medium.ttf", "JetBrainsMono-ExtraBold.ttf"),
    *("Quicksand-Medium.ttf", "Quicksand-Bold.ttf"),
)
DEV_FONTS = (
    *("OpenSans-Regular.ttf", "OpenSans-Bold.ttf", "OpenSans-ExtraBold.ttf", "OpenSans-CondBold.ttf"),
    *("Caladea-Regular.ttf", "Caladea-Bold.ttf", "Hack-Regular.ttf", "Hack-Bold.ttf"),
    *("Cantarell-Regular.otf", "Cantarell-Bold.otf", "Courier Prime Sans Bold.otf"),
)
# What they are made from: `examples/pretrain_mini/subset_fonts.py`.
TEST_FONTS = (
    *("test-a.ttf", "test-b.ttf", "test-c.ttf", "test-d.ttf", "test-e.ttf", "test-f.otf", "test-g.otf"),
    *("test-h.ttf", "test-i.ttf", "test-j.otf", "test-k.otf"),
)
# No font of a part is another part's: reading must not depend on letters that were trained on.
FONTS: dict[Split, tuple[str, ...]] = {"train": TRAIN_FONTS, "dev": DEV_FONTS, "test": TEST_FONTS}
_REFERENCE_PX = 200  # large enough that rounding to pixels does not show in a ratio


def font_directories() -> list[Path]:
    """Returns the directories searched: what ships, then $VLINSTRUCT_FONTS, then the system's."""
    own = [Path(p) for p in os.environ.get("VLINSTRUCT_FONTS", "").split(os.pathsep) if p]
    return [
        Path(__file__).parent / "test_fonts",
        *own,
        Path("/usr/share/fonts"),
        Path("/usr/local/share/fonts"),
        Path.home() / ".fonts",
    ]


@cache
def _installed() -> dict[str, Path]:
    files: dict[str, Path] = {}
    for directory in font_directories():
        for path in sorted(directory.rglob("*.[to]tf")):
            files.setdefault(path.name, path)  # a name that ships wins over the system's
    return files


@cache
def load_font(name: str, size_px: int) -> ImageFont.FreeTypeFont:
    """Loads a font at a size.

    Args:
        name: file name, e.g. "Lato-Bold.ttf", or BUILT_IN.
        size_px: pixels per em, at least 1.

    Raises:
        ResourceError: the font is not installed.
    """
    if name == BUILT_IN:
        font = ImageFont.load_default(float(size_px))
        assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
        return font
    if name not in _installed():
        advice = "apt-get install $(python -m vlinstruct.mini.fonts)"
        raise ResourceError(f"font {name} not found", advice=f"Install the open fonts: {advice}", code="font_missing")
    return ImageFont.truetype(str(_installed()[name]), size_px)


@cache
def capital_ratio(name: str) -> float:
    """Returns the height of a capital H as a fraction of the em."""
    _, top, _, bottom = load_font(name, _REFERENCE_PX).getbbox("H", anchor="ls")
    return (bottom - top) / _REFERENCE_PX


@cache
def advance(name: str, character: str) -> float:
    """Returns how far a character moves the pen, as a fraction of the em."""
    return load_font(name, _REFERENCE_PX).getlength(character) / _REFERENCE_PX


if __name__ == "__main__":
    print(FONT_PACKAGES)
