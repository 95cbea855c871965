"""Images with a caption below each, alone or on a contact sheet."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from ..core import files

SIDE, TEXT, GAP = 192, 14, 8  # px: of an image's square, of a line of text, between tiles
COLUMNS = 10  # of a sheet, at most
LARGEST = 500  # images on a sheet, which it shows at full size


class Photo(NamedTuple):
    """`lines` are the caption, one below the other."""

    image: Image.Image
    lines: tuple[str, ...]


def sheet(photos: Sequence[Photo]) -> bytes:
    """A PNG file of the images in rows, in order; of a single one, that image with its caption."""
    font = _font()
    columns = min(COLUMNS, math.ceil(math.sqrt(len(photos))))
    rows, lines = math.ceil(len(photos) / columns), max(len(photo.lines) for photo in photos)
    width, height = SIDE + GAP, SIDE + GAP + lines * (TEXT + 4)
    drawn = Image.new("RGB", (GAP + columns * width, GAP + rows * height), "white")
    draw = ImageDraw.Draw(drawn)
    for i, photo in enumerate(photos):
        left, top = GAP + i % columns * width, GAP + i // columns * height
        shown = _fitted(photo.image)
        drawn.paste(shown, (left + (SIDE - shown.width) // 2, top + (SIDE - shown.height) // 2))
        for j, line in enumerate(photo.lines):
            draw.text((left, top + SIDE + 2 + j * (TEXT + 4)), _cut(line, font), "black", font)
    file = io.BytesIO()
    drawn.save(file, "PNG")
    return file.getvalue()


def _fitted(image: Image.Image) -> Image.Image:
    """The image at the size of a tile. A small one is enlarged without smoothing, so that its pixels can be seen."""
    factor = SIDE / max(image.size)
    size = tuple(max(1, round(side * factor)) for side in image.size)
    how = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.LANCZOS
    return image.convert("RGB").resize((size[0], size[1]), how)


def _cut(line: str, font: ImageFont.FreeTypeFont) -> str:
    """As much of the line as a tile is wide."""
    line = files.escaped(" ".join(line.split()))
    if font.getlength(line) <= SIDE:
        return line
    while line and font.getlength(line + "…") > SIDE:
        line = line[:-1]
    return line + "…"


def _font() -> ImageFont.FreeTypeFont:
    """matplotlib's own font, which has more scripts than Pillow's."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), TEXT)
