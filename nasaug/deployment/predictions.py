"""`predict`: what a trained net or an exported file says about images in files and folders."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core import files
from ..core.boxes import SURE
from ..core.errors import BadInput, arg, with_value
from ..core.progress import Listener, Progress, heard_by, say
from ..data.layout import SUFFIXES, images_below
from .predict import BATCH, Found, Number, Predictor, Segmented, opened

COLOURS = ["cyan", "magenta", "yellow", "lime", "orange"]  # of masks


@dataclass(frozen=True)
class Predicted:
    """What a net says about the image at the path `image`.

    top: the most probable classes with their probabilities, the first one the answer; empty for a regression net.
    value: a regression net's number, in the unit of its training data; else None. objects: what a detection net found
    with a score of at least SURE, best first; None for other nets."""

    image: str
    top: tuple[tuple[str, float], ...] = ()
    value: float | None = None
    objects: tuple[Found | Segmented, ...] | None = None

    @property
    def lines(self) -> tuple[str, ...]:
        """The answer as text: a class and its probability, the number, or how many objects of each class there are."""
        if self.objects is not None:
            counts = Counter(found.label for found in self.objects)
            return (", ".join(f"{count} {label}" for label, count in counts.items()) or "nothing found",)
        if self.value is not None:
            return (f"{self.value:.4g}",)
        label, probability = self.top[0]
        return label, percent(probability)

    def to_json(self) -> dict[str, Any]:
        """`label` and `confidence` of the answer and `top`; or `value`; or `objects`, with `label`, `score`, `box`,
        and of a segmentation net `mask`, COCO's compressed run-length encoding."""
        if self.objects is not None:
            return {"image": self.image, "objects": [_plain(found) for found in self.objects]}
        if self.value is not None:
            return {"image": self.image, "value": self.value}
        (label, confidence), *_ = self.top
        top = [{"label": name, "probability": probability} for name, probability in self.top]
        return {"image": self.image, "label": label, "confidence": confidence, "top": top}


def _plain(found: Found | Segmented) -> dict[str, Any]:
    """An object as JSON."""
    if isinstance(found, Found):
        return found._asdict()
    import numpy as np
    from pycocotools import mask

    rle = mask.encode(np.asfortranarray(found.mask.numpy().astype(np.uint8)))
    return {**found._asdict(), "mask": {"size": rle["size"], "counts": rle["counts"].decode()}}


def percent(probability: float) -> str:
    return f"{100 * probability:.1f} %"


def predict(
    model: str | os.PathLike[str] | Predictor | None, images: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *, top: int = 5, out: str | os.PathLike[str] | None = None, on_event: Listener | None = None,
) -> list[Predicted]:  # fmt: skip
    """What a net says about images, in the order given; those of a folder, and of the folders in it, by name.

    Images are prepared as in the net's evaluation, and classes named, by the metadata of its file.

    Args:
        model: the folder of a finished run, its model.safetensors, or an .onnx file that `export` wrote, float or int8;
            or what `load` returned.
        images: paths of images and folders.
        top: how many classes are given for each image, at most all.
        out: a folder for a copy of each image with its answer below, or a .png file for one sheet of all of them.
        on_event: called with each event (nasaug.core.progress).

    Raises BadInput if something cannot be read or is no image, and if `out` would overwrite something.
    """
    with heard_by(on_event):
        if model is None:
            raise BadInput(f"predict needs {arg.model}: a run's folder, or a file that nasaug wrote", field="model")
        if top < 1:
            raise BadInput.of(argument="top", value=top, rule="must be at least 1")
        paths = _files([images] if isinstance(images, (str, os.PathLike)) else list(images))
        target = None if out is None else _free(Path(out), len(paths))
        net = model if isinstance(model, Predictor) else opened(model, f"{with_value('model')} {model}")
        found: list[Predicted] = []
        with Progress("predict", len(paths), unit="images", quiet=len(paths) <= BATCH) as bar:
            for start in range(0, len(paths), BATCH):
                part = paths[start : start + BATCH]
                for path, seen in zip(part, net.predict(part), strict=True):
                    if isinstance(seen, list):
                        found.append(Predicted(path, objects=tuple(each for each in seen if each.score >= SURE)))
                        continue
                    if isinstance(seen, Number):
                        found.append(Predicted(path, value=seen.value))
                        continue
                    best = seen.probabilities.topk(min(top, len(net.classes)))
                    names = (net.classes[i] for i in best.indices.tolist())
                    found.append(Predicted(path, tuple(zip(names, best.values.tolist(), strict=True))))
                bar.update(len(found))
        if target is not None:
            _draw(target, found, net)
        return found


def _boxed(image: Any, objects: Sequence[Found | Segmented]) -> Any:
    """The image, uint8 [h, w, 3], with the boxes, the classes and the masks, if any, of what was found."""
    import torch
    from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)
    boxes, labels = torch.tensor([found.box for found in objects]), [found.label for found in objects]
    width = max(1, round(min(image.shape[:2]) / 150))
    masks = [found.mask for found in objects if isinstance(found, Segmented)]
    if masks:
        colours = [COLOURS[i % len(COLOURS)] for i in range(len(masks))]
        pixels = draw_segmentation_masks(pixels, torch.stack(masks), alpha=0.5, colors=colours)
    return draw_bounding_boxes(pixels, boxes, labels, colors="red", width=width).permute(1, 2, 0).numpy()


def _files(given: Sequence[str | os.PathLike[str]]) -> list[str]:
    """The image files. Raises BadInput if there is none, or something does not exist."""
    if not given:
        raise BadInput("predict needs images: paths of image files, or of folders that hold some")
    found: list[str] = []
    for each in map(str, given):
        if os.path.isdir(each):
            below = images_below(each)
            if not below:
                raise BadInput(f"the folder {each} has no images in it; give images, or a folder that holds some")
            found += below
        elif os.path.exists(each):
            found.append(each)
        else:
            raise BadInput(f"there is no image {each}; give the path of an existing file or folder")
    return found


def _free(out: Path, images: int) -> Path:
    """The path for pictures. Raises BadInput if it cannot be written to, or something is there already."""
    from ..reporting.photos import LARGEST

    def refused(rule: str, remedy: str) -> BadInput:
        return BadInput.of(argument="out", value=out, rule=rule, remedy=remedy, apart=True)

    if out.suffix.lower() != ".png":
        if out.suffix.lower() in SUFFIXES:
            raise refused("is of another kind than .png", "give a .png file, or a folder")
        if out.exists() and not out.is_dir():
            raise refused("is not a folder", "give a new folder, or a .png file")
        if out.is_dir() and any(out.iterdir()):
            raise refused("holds files already", "give a new folder")
        return out
    if images > LARGEST:
        raise refused(f"would show {images:,} images, and {LARGEST} is the most", "give a folder, or fewer images")
    if out.exists():
        raise refused("exists already", "give another name")
    if not out.parent.is_dir():
        raise refused("is in a folder that does not exist", "create it first")
    return out


def _draw(out: Path, found: Sequence[Predicted], net: Predictor) -> None:
    """One sheet, if `out` is a .png file, else a picture of each image."""
    from PIL import Image

    from ..data.picture import pixels
    from ..reporting.photos import Photo, sheet

    def photo(seen: Predicted) -> Photo:
        read = pixels(files.read_bytes(seen.image), "RGB", net.facts.get("background", "white"))
        return Photo(Image.fromarray(read if not seen.objects else _boxed(read, seen.objects)), seen.lines)

    if out.suffix.lower() == ".png":
        files.write_whole(out, sheet([photo(seen) for seen in found]))
        say(f"{len(found):,} images in {out}")
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.write_error(out, error) from error
    used: set[str] = set()
    for seen in found:
        stem = Path(seen.image).stem
        name = next(n for n in (stem, *(f"{stem}-{i}" for i in range(2, len(found) + 2))) if n not in used)
        used.add(name)
        files.write_whole(out / f"{name}.png", sheet([photo(seen)]))
    say(f"{len(found):,} images in {out}")
