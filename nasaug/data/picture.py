"""Decoding an image file as viewers show it: rotated by its EXIF tag, transparency composed onto a background."""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import torch
from PIL import Image, ImageColor, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..core.errors import BadInput

# Pillow refuses images with twice as many pixels; its warning would only print a stray line.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)
ORIENTATION = 0x0112  # the EXIF tag


class Unreadable(Exception):
    """A file that is not an image, or a damaged one; the message says why.

    Pillow's decoders raise all kinds of exceptions for damaged files (struct.error, IndexError, zlib.error,
    RuntimeError, DecompressionBombError), so every exception is converted to this one."""


def check_background(colour: str) -> None:
    """Raises BadInput for a colour that Pillow does not know."""
    try:
        ImageColor.getrgb(colour)
    except ValueError:
        remedy = "give white, black, #rrggbb or rgb(r,g,b)"
        raise BadInput.of(field="data.background", value=colour, rule="is not a colour", remedy=remedy) from None


def header(path: bytes) -> tuple[int, int, str]:
    """(width, height, mode) of an image file, without decoding its pixels. Raises Unreadable.

    The mode is that of `pixels`: "L" (grey) or "RGB", or one of more than 8 bits."""
    try:
        with Image.open(path) as image:
            mode = image.mode
            if not mode.startswith(("I", "F")):
                mode = "L" if mode in ("1", "L") and not image.has_transparency_data else "RGB"
            return *image.size, mode
    except Exception as error:
        raise Unreadable(_reason(error)) from error


def check(content: bytes) -> None:
    """Decode an image and discard it. Raises Unreadable if that fails.

    JPEG files are decoded at an eighth of their size, which still reads the whole file and is faster."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.draft("RGB", (1, 1))
            image.load()
    except Exception as error:
        raise Unreadable(_reason(error)) from error


def pixels(content: bytes | Image.Image, mode: str, background: str) -> np.ndarray:
    """The pixels of a file's bytes, or of an image that Pillow has opened, as uint8: [height, width] for mode "L",
    [height, width, 3] for "RGB". Raises Unreadable, also for more than 8 bits a channel, which would be clipped."""
    try:
        if isinstance(content, Image.Image):
            return np.asarray(_seen(content, mode, background))
        with Image.open(io.BytesIO(content)) as image:
            return np.asarray(_seen(image, mode, background))
    except Exception as error:
        raise Unreadable(_reason(error)) from error


def decoded(content: np.ndarray, background: str) -> Tensor:
    """Decode a file's bytes to uint8 [3, height, width]. Raises Unreadable.

    JPEG is decoded by torchvision, which gives Pillow's pixels faster. Other formats, and what torchvision cannot read,
    are left to Pillow, which reports the reason and refuses images that would exhaust memory."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            decode = jpeg_decoder()
            if decode and image.format == "JPEG" and image.getexif().get(ORIENTATION, 1) == 1:
                with suppress(RuntimeError):
                    return decode(torch.from_numpy(content), mode="RGB")
            return torch.from_numpy(np.array(_seen(image, "RGB", background))).permute(2, 0, 1).contiguous()
    except Exception as error:
        raise Unreadable(_reason(error)) from error


@functools.cache
def jpeg_decoder() -> Callable[..., Tensor] | None:
    """torchvision's decoder, imported on demand: it takes seconds, and images in memory do not need it."""
    try:
        from torchvision.io import decode_jpeg
    except ImportError:  # torchvision 0.29 announces its removal
        return None
    return decode_jpeg


def _seen(image: Image.Image, mode: str, background: str) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"more than 8 bits a channel, mode {image.mode}")
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        whole = image.convert("RGBA")
        under = Image.new("RGBA", whole.size, (*ImageColor.getrgb(background)[:3], 255))
        return Image.alpha_composite(under, whole).convert(mode)
    return image.convert(mode)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # its message names the file, or the address of the buffer
        return "no image, or a damaged one"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    line = (str(error).splitlines() or [""])[0]
    known = line and isinstance(error, (OSError, ValueError, SyntaxError))
    return line if known else f"{type(error).__name__}: {line}"
