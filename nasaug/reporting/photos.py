"""Images with a caption below each, alone or on a contact sheet, and what a detection net found on them."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from ..core import files, tensorfile
from ..core.boxes import CLASS, SURE

SIDE, TEXT, GAP = 192, 14, 8  # px: of an image's square, of a line of text, between tiles
COLUMNS = 10  # of a sheet, at most
SCORE = 5  # the column of a detection, in place of an object's flag
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


def detections(shown: Path, classes: Sequence[str]) -> bytes | None:
    """A sheet of a detection's validation images, from the file `shown.safetensors` of its run: true boxes in green,
    and in red those found with a score of at least SURE. None if there is no such file, or no image in it."""
    if not shown.is_file():
        return None
    tensors, _ = tensorfile.read(shown)
    photos = []
    for pixels, there, found in zip(*(tensors.get(name, ()) for name in ("images", "there", "found")), strict=False):
        rgb = pixels.expand(3, *pixels.shape[1:]).permute(1, 2, 0).contiguous()
        image = _fitted(Image.fromarray(rgb.numpy()))
        there, found = there[there[:, CLASS] >= 0], found[(found[:, CLASS] >= 0) & (found[:, SCORE] >= SURE)]
        draw, font = ImageDraw.Draw(image), _font(TEXT - 3)
        for colour, some in (("lime", there), ("red", found)):
            for row in some.tolist():
                left, top, right, bottom = (SIDE * share for share in row[:CLASS])
                draw.rectangle((left, top, right, bottom), outline=colour, width=2 if some is there else 1)
                label = _cut(classes[int(row[CLASS])], font)
                if some is found:
                    draw.text((left + 2, top + 1), f"{label} {row[SCORE]:.2f}", colour, font)
                else:
                    draw.text((left + 2, bottom - TEXT), label, colour, font)
        photos.append(Photo(image, (f"{len(there)} true, {len(found)} found",)))
    return sheet(photos) if photos else None


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


def _font(size: int = TEXT) -> ImageFont.FreeTypeFont:
    """matplotlib's own font, which has more scripts than Pillow's."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)
