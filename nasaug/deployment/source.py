"""What all exported formats are made of: a run's net, the facts about it, and images to calibrate and compare with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule

from .. import __version__, tasks
from ..arch.cost import Cost, cost
from ..arch.plan import end_of
from ..config.layers import load as load_recipe
from ..core.errors import BadInput, arg
from ..core.progress import Progress, say
from ..data import Data
from ..int8 import onnxfile, quantize
from ..int8.imitation import OUTPUT, any_batch
from ..nets.fold import fold
from ..rundirs.folder import RunDir
from ..rundirs.result import TrainingResult, read_result
from ..tasks import Task
from ..training.begin import at_path, begun_record
from ..training.device import open_runtime
from ..training.job import load_data, make_scorer
from ..training.quantised import TABLE, scales_in
from ..training.recipe import Recipe
from ..training.scoring import Scorer
from .predict import Model, load_run

OUTPUTS = {"classify": "logits", "regress": "number", "detect": "points"}  # the name of the output by task
COMPARED = 1000  # images of the validation split
NOISE = 64  # images of noise, where the run's own cannot be read


@dataclass
class Source:
    """A finished run's net, folded, with its facts and images.

    images: normalised batches [n, 3, h, w] to compare outputs on; `compared` says what they are."""

    run: RunDir
    result: TrainingResult
    model: Model
    folded: GraphModule
    task: Task
    facts: dict[str, Any]
    images: list[Tensor]
    compared: str
    data: Data | None = None
    scorer: Scorer | None = None

    @classmethod
    def of(cls, run: RunDir, data: str | None, needs_data: bool) -> Source:
        """The source of a run's exports; `data` is where its images are now, if they moved.

        Images that cannot be read are replaced by noise, unless they are needed or `data` was given."""
        model, result = load_run(run.path, "export"), read_result(run.path)
        task = tasks.of_facts(model.facts)
        for key in ("mean", "std", "classes"):
            if key not in model.facts:
                rule = f"was trained by a version of nasaug that did not store the {key} of its images"
                raise BadInput.of(argument="run", value=run.path, rule=rule, remedy="train it again", apart=True)
        facts = {
            "nasaug": __version__, "task": task.name, "input": onnxfile.INPUT,
            "output": OUTPUTS.get(task.name, "output"), "resolution": model.plan.resolution,
            "central": 1.0, "background": "white",
            **{key: value for key, value in model.facts.items() if key not in ("val_key", TABLE)},
            "arch": result.arch, "plan": model.plan.to_dict(), "cost": cost(model.plan).known,
        }  # fmt: skip
        source = cls(run, result, model, fold(model), task, facts, [], "")
        try:
            source._read(data)
        except BadInput as error:
            if needs_data or data is not None:
                raise
            say(f"warning: {error.line}; the files are compared on images of noise")
            generator = torch.Generator().manual_seed(0)
            source.images = [torch.randn(NOISE, 3, source.px, source.px, generator=generator)]
            source.compared = f"{NOISE} images of noise"
        return source

    def _read(self, data: str | None) -> None:
        recipe = at_path(load_recipe(self.run.recipe_file, Recipe), data)
        images = load_data(recipe, self.px, begun_record(self.run, recipe))
        if list(images.classes) != self.model.classes:
            other = f"{self.run.path} was trained on other classes than those of {images.name}"
            raise BadInput(f"{other}; give {arg.data} with the images that it was trained on")
        images.finish()  # nothing is selected any more: the run is finished
        self.data, self.scorer = images, make_scorer(recipe, images, open_runtime("cpu"))
        self.images = [x for x, _ in self.scorer.batches(images.val.take(COMPARED, seed=0), self.px)]
        self.compared = f"{sum(map(len, self.images)):,} validation images"

    @property
    def px(self) -> int:
        """The net's resolution."""
        return self.model.plan.resolution

    @property
    def scales(self) -> dict[str, quantize.Scale] | None:
        """Those of the int8 model that it was trained with; None if it was trained in float."""
        return scales_in(self.model.facts)

    @property
    def cost(self) -> Cost:
        return cost(self.model.plan)

    def onnx(self, **options: Any) -> Any:
        """The folded net as an ONNX model; `options` are those of `to_onnx`."""
        outputs = end_of(self.model.plan.classes).outputs
        return onnxfile.to_onnx(self.folded, self.px, outputs, self.facts["output"], facts=self.facts, **options)

    @cached_property
    def int8(self) -> Any:
        """Its int8 ONNX model, with the scales that it was trained with, or calibrated on training images drawn by
        seed, as they are evaluated."""
        if self.scales is not None:
            scales = {self.facts["output"] if name == OUTPUT else name: each for name, each in self.scales.items()}
            model = quantize.to_int8(self.onnx(norms_as_convs=True), any_batch(self.px), scales)
            onnxfile.set_facts(model, self.facts | {"calibration": "none: trained with its scales"})
            return model
        assert self.data is not None and self.scorer is not None
        drawn = self.data.train.take(quantize.CALIBRATION, seed=0)
        batches: Iterator[np.ndarray] = (x.numpy() for x, _ in self.scorer.batches(drawn, self.px))
        model = quantize.to_int8(self.onnx(norms_as_convs=True), batches)
        onnxfile.set_facts(model, self.facts | {"calibration": f"{len(drawn)} training images"})
        return model

    @cached_property
    def eager(self) -> Tensor:
        """The trained net's own outputs on the images, [n, outputs]."""
        with torch.inference_mode():
            return torch.cat([self.model(x).float() for x in self.images])

    def outputs(self, run: Callable[[Tensor], Tensor]) -> Tensor:
        """The outputs on the images of anything that is called as a net."""
        with torch.inference_mode():
            return torch.cat([run(x) for x in self.images])

    def agreement(self, one: Tensor, two: Tensor) -> float | None:
        """The share of images with the same class; None for numbers."""
        if self.task.targets != "classes":
            return None
        return (self.task.answer(one) == self.task.answer(two)).double().mean().item()

    def test_score(self, run: Callable[[Tensor], Tensor], title: str) -> float | None:
        """The task's metric on the run's test images; None if they cannot be read."""
        if self.data is None or self.scorer is None:
            return None
        judged: list[Tensor] = []
        with Progress(f"{title}: test images", len(self.data.test), unit="images") as bar:
            for x, labels in self.scorer.batches(self.data.test, self.px):
                judged.append(self.task.judge(run(x), labels))
                bar.update(sum(map(len, judged)))
        return self.task.score(judged)
