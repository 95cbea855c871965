"""`load`: a trained net, or an exported file of it, that classifies images."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, Union

import torch
from PIL import Image
from torch import Tensor

from .. import augment, tasks
from ..arch.plan import Plan, end_of
from ..core import tensorfile
from ..core.errors import BadInput
from ..core.files import read_bytes
from ..data.picture import Unreadable, pixels
from ..data.stream import central, squared
from ..int8 import onnxfile
from ..int8.measure import Session
from ..nets.net import Net
from ..nets.store import load_net
from ..rundirs.folder import RunDir
from ..tasks.segment import paste

Picture = Union[str, os.PathLike[str], Image.Image]  # noqa: UP007 (a `|` with a class of Pillow's fails in Python 3.11)
BATCH = 128
DETECTION = 6  # columns of a detection: its box, class and score, before its mask


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


class Segmented(NamedTuple):
    """An object that a net of the task segment found: as `Found`, and its pixels, bool [h, w]."""

    label: str
    score: float
    box: tuple[float, float, float, float]
    mask: Tensor


class Predictor(ABC):
    """What every form of a trained net does with images. A derived class has `resolution` (px) and `_outputs`.

    `facts` is the file's metadata: the mean and std for normalisation, and the names of the classes."""

    facts: dict[str, Any]

    @property
    @abstractmethod
    def resolution(self) -> int:
        """The side of its input, in px."""

    @abstractmethod
    def _outputs(self, x: Tensor) -> Any:
        """float32 [N, outputs] on the CPU for normalised images [N, 3, resolution, resolution]; or what else the task's
        nets give."""

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of the logits."""
        return list(self.facts["classes"])

    @torch.inference_mode()
    def predict(self, images: Tensor | Iterable[Picture]) -> list[Prediction | Number | list[Found] | list[Segmented]]:
        """One prediction per image, in order (a `Number` for a regression net, for a detection net the list of what it
        found, best first), with the preprocessing of evaluation.

        Args:
            images: paths or Pillow images of any size; or a tensor, uint8 [N, 1 or 3, H, W].

        Raises BadInput if something is not an image, or if the net's file lacks the preprocessing.
        """
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
        whole = self.facts.get("fit") == "whole"
        return [found for batch in batches for found in (self._found(batch) if whole else self._of(batch))]

    def _found(self, images: Tensor) -> Iterable[list[Found] | list[Segmented]]:
        """What is found in images [N, C, H, W]."""
        height, width = images.shape[-2:]
        x = augment.evaluation(squared(images, self.resolution), self.facts["mean"], self.facts["std"])
        sides = torch.tensor([width, height, width, height])
        for rows in tasks.of_facts(self.facts).answer(self._outputs(x)):
            rows = rows[rows[:, 4] >= 0]
            boxes = (rows[:, :4] * sides).tolist()
            found = [
                Found(self.classes[int(label)], score, tuple(box))
                for box, (label, score) in zip(boxes, rows[:, 4:DETECTION].tolist(), strict=True)
            ]
            if rows.shape[1] == DETECTION:
                yield found
            else:
                yield [Segmented(*each, mask) for each, mask in zip(found, paste(rows, height, width), strict=True)]

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
        return central(images, self.resolution if share < 1 else min(images.shape[-2:]), share)

    def _of(self, images: Tensor) -> Iterable[Prediction | Number]:
        x = augment.evaluation(images, self.facts["mean"], self.facts["std"])
        out, task = self._outputs(augment.resize(x, self.resolution)), tasks.of_facts(self.facts)
        if task.targets == "numbers":
            yield from map(Number, task.answer(out).tolist())
            return
        for row in out.softmax(1):
            best = int(row.argmax())
            yield Prediction(self.classes[best], float(row[best]), row)


class Model(Net, Predictor):
    """A trained net in evaluation mode: normalised images [N, 3, H, W] to logits [N, classes]."""

    def __init__(self, plan: Plan, facts: dict[str, Any]):
        super().__init__(plan, None)
        self.facts = facts

    @property
    def resolution(self) -> int:
        return self.plan.resolution

    def predict(self, images: Tensor | Iterable[Picture]) -> list[Prediction | Number | list[Found] | list[Segmented]]:
        if self.training:
            raise BadInput("predict: the net is in training mode, so its norms use the batch; call eval() first")
        return super().predict(images)

    def _outputs(self, x: Tensor) -> Any:
        out = self(x.to(next(self.parameters()).device))
        return out.float().cpu() if isinstance(out, Tensor) else out


class OnnxModel(Predictor):
    """An exported ONNX file, float or int8, in ONNX Runtime on the CPU: called with normalised images [N, 3, H, W]
    it gives logits [N, classes]."""

    def __init__(self, session: Session, facts: dict[str, Any]):
        self._session, self.facts = session, facts

    @property
    def resolution(self) -> int:
        return self.facts["resolution"]

    def __call__(self, images: Tensor) -> Tensor:
        return self._session(images)

    def _outputs(self, x: Tensor) -> Tensor:
        return self(x)


def _check_tensor(images: Tensor) -> None:
    if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] not in (1, 3):
        given = f"{images.dtype} of shape {list(images.shape)}"
        raise BadInput(f"predict: images = {given} must be uint8 [N, 1 or 3, H, W]")


def load(run: str | os.PathLike[str]) -> Model | OnnxModel:
    """Load a trained net, with `predict` for unprocessed images.

    From a run directory, or its model.safetensors: a `Model` in evaluation mode, an ordinary nn.Module from normalised
    images [N, 3, H, W] to logits [N, classes], which `nasaug.fold` converts to plain torch layers. From an .onnx file
    that `nasaug.export` wrote, float or int8: an `OnnxModel`, called in the same way.

    No code in the file is run, so torch.export's files are refused. Raises BadInput if there is no such net."""
    return opened(run, f"load({str(run)!r})")


def opened(run: str | os.PathLike[str], told: str) -> Model | OnnxModel:
    """`load`; `told` names what was given in messages about it."""
    path = Path(run)
    if path.suffix.lower() == ".onnx" and not path.is_dir():
        return _onnx(path)
    return load_run(path, told)


def load_run(run: str | os.PathLike[str], told: str) -> Model:
    """The net of a run directory or of its model.safetensors."""
    path = Path(run)
    if path.suffix.lower() in _NOT_RUN:
        remedy = "give the .onnx file of the same export, or the run's folder"
        raise BadInput(f"{told}: {_NOT_RUN[path.suffix.lower()]}; {remedy}")
    path = RunDir(path).model_file if path.is_dir() else path
    if not path.is_file():
        exported = sorted(path.parent.glob("*.onnx")) if Path(run).is_dir() else []
        what = f"one of the exported files in it, like {exported[0]}" if exported else (
            "the folder of a finished run of train, netaug-train or prune, or a file with a net that nasaug wrote"
        )
        raise BadInput(f"{told}: {path} does not exist; give {what}")
    net, facts = load_net(path), tensorfile.facts(path)
    model = Model(net.plan, {key: value for key, value in facts.items() if key != "plan"})
    _check_classes(path, model.facts, end_of(net.plan.classes).outputs, "restore it, or train again")
    model.load_state_dict(net.state_dict())
    return model.eval()


_NOT_RUN = {
    ".pt2": "torch.export unpickles what such a file holds, which can run any code",
    ".pte": "only ExecuTorch's runtime runs such a file, and it says nothing about preprocessing or classes",
    ".tflite": "only LiteRT's interpreter runs such a file",
    ".json": "such a file holds no weights",
    ".c": "C source has to be compiled for its device", ".h": "C source has to be compiled for its device",
}  # fmt: skip


def _onnx(path: Path) -> OnnxModel:
    """The net of an ONNX file that `export` wrote. Raises BadInput for any other."""
    model = onnxfile.read(path)
    facts = onnxfile.facts_of(model)
    again = "export it again"
    lacking = [key for key in _NEEDED if not isinstance(facts.get(key), _NEEDED[key])]
    if lacking:
        rule = f"has no metadata of nasaug that say what its input and output mean (no {', '.join(lacking)})"
        raise BadInput(f"{path} {rule}; give a file that nasaug export wrote")
    ends = [_shape(path, ends) for ends in (model.graph.input, model.graph.output)]
    px = facts["resolution"]
    if ends[0][1:] != [3, px, px] or len(ends[1]) not in (2, 3) or model.graph.input[0].name != onnxfile.INPUT:
        rule = f"takes images {ends[0][1:]}, but its metadata say 3 x {px} x {px}, named {onnxfile.INPUT}"
        raise BadInput(f"{path} {rule}; {again}")
    numbers = [*facts["mean"], *facts["std"]]
    if len(facts["mean"]) != 3 or len(numbers) != 6 or not all(isinstance(v, (int, float)) for v in numbers):
        raise BadInput(f"{path} has a mean or std in its metadata that is not three numbers; {again}")
    _check_classes(path, facts, ends[1][-1], again)
    return OnnxModel(Session(model.SerializeToString(), name=str(path)), facts)


_NEEDED: dict[str, type] = {"task": str, "resolution": int, "mean": list, "std": list, "classes": list}


def _shape(path: Path, ends: Any) -> list[int]:
    """The shape of the only input or output; 0 where it is not fixed."""
    if len(ends) != 1:
        raise BadInput(f"{path} has {len(ends)} inputs or outputs, but a net of nasaug has one; export it again")
    return [size.dim_value for size in ends[0].type.tensor_type.shape.dim]


def _check_classes(path: Path, facts: dict[str, Any], outputs: int, remedy: str) -> None:
    """Raises BadInput if the file names other classes than the net has outputs."""
    if "classes" in facts and tasks.of_facts(facts).targets == "classes" and len(facts["classes"]) != outputs:
        rule = f"names {len(facts['classes'])} classes, but its net has {outputs} outputs"
        raise BadInput(f"{path} {rule}; {remedy}")
