"""`load`: a trained net as an ordinary module that also classifies images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, Union

import torch
from PIL import Image
from torch import Tensor

from .. import augment, tasks
from ..arch.plan import Plan
from ..core import tensorfile
from ..core.errors import BadInput
from ..core.files import read_bytes
from ..data.picture import Unreadable, pixels
from ..data.stream import central, squared
from ..nets.net import Net
from ..nets.store import load_net
from ..rundirs.folder import RunDir

Picture = Union[str, os.PathLike[str], Image.Image]  # noqa: UP007 (a `|` with a class of Pillow's fails in Python 3.11)
BATCH = 128


class Prediction(NamedTuple):
    """An image's most probable class, its probability, and the probabilities of all classes [classes]."""

    label: str
    confidence: float
    probabilities: Tensor


class Number(NamedTuple):
    """A regression net's prediction for an image, in the unit of the training data."""

    value: float


class Found(NamedTuple):
    """An object that a detection net found: its class, the score, and the box x1, y1, x2, y2 in pixels of the image as
    viewers show it."""

    label: str
    score: float
    box: tuple[float, float, float, float]


class Model(Net):
    """A trained net in evaluation mode: normalised images [N, 3, H, W] to logits [N, classes].

    `facts` is the file's metadata: the mean and std for normalisation, and the names of the classes."""

    def __init__(self, plan: Plan, facts: dict[str, Any]):
        super().__init__(plan, None)
        self.facts = facts

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of the logits."""
        return list(self.facts["classes"])

    @torch.inference_mode()
    def predict(self, images: Tensor | Iterable[Picture]) -> list[Prediction | Number | list[Found]]:
        """One prediction per image, in order (a `Number` for a regression net, for a detection net the list of what it
        found, best first), with the preprocessing of evaluation.

        Args:
            images: paths or Pillow images of any size; or a tensor, uint8 [N, 1 or 3, H, W].

        Raises BadInput if something is not an image, or if the net's file lacks the preprocessing.
        """
        if self.training:
            raise BadInput("predict: the net is in training mode, so its norms use the batch; call eval() first")
        for key in ("mean", "std", "classes"):
            if key not in self.facts:
                rule = f"its file has no {key} of its training images (a supernet's file has none)"
                raise BadInput(f"predict: {rule}; load the run of a training")
        if isinstance(images, Tensor):
            _check_tensor(images)
            batches: Iterable[Tensor] = map(self._central, images.split(BATCH))
        elif isinstance(images, (str, os.PathLike, Image.Image)) or not isinstance(images, Iterable):
            raise BadInput("predict: give a list of images, like [path], not a single one")
        else:
            batches = self._batches(list(images))
        device = next(self.parameters()).device
        whole = self.facts.get("fit") == "whole"
        found: list[Prediction | Number | list[Found]] = []
        for batch in batches:
            size = batch.shape[-2:]
            seen = squared(batch, self.plan.resolution) if whole else batch
            found += self._found(seen.to(device), *size) if whole else self._of(seen.to(device))
        return found

    def _found(self, images: Tensor, height: int, width: int) -> Iterable[list[Found]]:
        """What is found in images [N, C, resolution, resolution] that were `height` x `width` px."""
        x = augment.evaluation(images, self.facts["mean"], self.facts["std"])
        sides = torch.tensor([width, height, width, height])
        for rows in tasks.of_facts(self.facts).answer(self(x)).cpu():
            rows = rows[rows[:, 4] >= 0]
            boxes = (rows[:, :4] * sides).tolist()
            yield [
                Found(self.classes[int(label)], score, tuple(box))
                for box, (label, score) in zip(boxes, rows[:, 4:].tolist(), strict=True)
            ]

    def _batches(self, images: Sequence[Picture]) -> Iterable[Tensor]:
        """Batches of the images in order; consecutive images of the same size share a batch."""
        for start in range(0, len(images), BATCH):
            decoded = (self._decoded(image) for image in images[start : start + BATCH])
            for _, alike in groupby(decoded, lambda image: image.shape):
                yield torch.stack(list(alike))

    def _decoded(self, image: Picture) -> Tensor:
        """The image's central square, uint8 [3, h, h]."""
        if not isinstance(image, (str, os.PathLike, Image.Image)):
            kinds = "paths, Pillow images, or one tensor of them all"
            raise BadInput(f"predict: an image is a {type(image).__name__}; give {kinds}")
        drawn = isinstance(image, Image.Image)
        try:
            content = image if isinstance(image, Image.Image) else read_bytes(Path(image))
            seen = torch.from_numpy(pixels(content, "RGB", self.facts.get("background", "white")).copy())
        except Unreadable as error:
            raise BadInput(f"predict: cannot read {'an image' if drawn else image} ({error}); leave it out") from None
        return self._central(seen.permute(2, 0, 1))

    def _central(self, images: Tensor) -> Tensor:
        """The central square of images [..., C, H, W]: at the net's resolution if it was trained on streamed images,
        else at the images' own, because images in memory are only resized after normalisation."""
        if self.facts.get("fit") == "whole":
            return images
        share = self.facts.get("central", 1.0)
        return central(images, self.plan.resolution if share < 1 else min(images.shape[-2:]), share)

    def _of(self, images: Tensor) -> Iterable[Prediction | Number]:
        x = augment.evaluation(images, self.facts["mean"], self.facts["std"])
        out, task = self(augment.resize(x, self.plan.resolution)).float(), tasks.of_facts(self.facts)
        if task.targets == "numbers":
            yield from map(Number, task.answer(out).tolist())
            return
        for row in out.softmax(1).cpu():
            best = int(row.argmax())
            yield Prediction(self.classes[best], float(row[best]), row)


def _check_tensor(images: Tensor) -> None:
    if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] not in (1, 3):
        given = f"{images.dtype} of shape {list(images.shape)}"
        raise BadInput(f"predict: images = {given} must be uint8 [N, 1 or 3, H, W]")


def load(run: str | os.PathLike[str]) -> Model:
    """Load the trained net of a run directory (or of its model.safetensors), in evaluation mode: an ordinary nn.Module
    from normalised images [N, 3, H, W] to logits [N, classes], with `predict` for unprocessed images.

    `nasaug.fold` converts it to plain torch layers. Raises BadInput if there is no such net."""
    path = Path(run)
    path = RunDir(path).model_file if path.is_dir() else path
    if not path.is_file():
        raise BadInput(
            f"load({str(run)!r}): {path} does not exist; give the folder of a finished run of train, netaug-train or "
            "prune, or a file with a net that nasaug wrote"
        )
    net, facts = load_net(path), tensorfile.facts(path)
    model = Model(net.plan, {key: value for key, value in facts.items() if key != "plan"})
    model.load_state_dict(net.state_dict())
    return model.eval()
