"""Running a model in ONNX Runtime, and how long an image takes there."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..core.errors import BadInput
from .onnxfile import INPUT, need_onnx

WARM_UP, LEAST_RUNS, MOST_RUNS = 20, 50, 1000
SECONDS = 1.0  # of timed runs, as far as the two numbers above allow


class Latency(NamedTuple):
    """Milliseconds for one image: the median and the 95th percentile of `runs` runs on `threads` threads."""

    median_ms: float
    p95_ms: float
    runs: int
    threads: int


class Session:
    """A model in ONNX Runtime on the CPU, called as a net: float32 images [n, 3, h, w] to outputs."""

    def __init__(self, model: bytes, threads: int = 1, name: str = "the model", fused: bool = True):
        """`model`: the file's content. `fused`: with ONNX Runtime's optimisations, which make integer kernels of an
        int8 model; without them its operations are computed in float, one by one, and rounded where the file says so.

        Raises BadInput if it is no model that ONNX Runtime can run."""
        need_onnx("running an ONNX file", "onnxruntime")
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as errors

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4  # not errors either: they are raised
        if not fused:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        kinds = "Fail", "InvalidProtobuf", "InvalidGraph", "InvalidArgument", "NotImplemented", "RuntimeException"
        self._refusals, self._name = tuple(getattr(errors, kind) for kind in kinds), name
        try:
            self._session: Any = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except self._refusals as error:
            raise self._refused(error) from None
        self.threads = threads

    def __call__(self, images: Tensor) -> Tensor:
        return torch.from_numpy(self.run(images.numpy()))

    def run(self, images: np.ndarray) -> np.ndarray:
        """The only output for float32 images [n, 3, h, w]. Raises BadInput if the model cannot be run."""
        try:
            return self._session.run(None, {INPUT: np.ascontiguousarray(images)})[0]
        except self._refusals as error:  # a damaged file may be refused only now
            raise self._refused(error) from None

    def _refused(self, error: Exception) -> BadInput:
        return BadInput(f"{self._name} cannot be run by ONNX Runtime ({str(error).splitlines()[0]}); export it again")

    def latency(self, resolution: int, seconds: float = SECONDS) -> Latency:
        """How long one image takes, after a warm-up, on an image of noise."""
        image = np.random.default_rng(0).standard_normal((1, 3, resolution, resolution), dtype=np.float32)
        return latency(lambda: self.run(image), self.threads, seconds)


def timings(run: Callable[[], object], seconds: float, warm_up: int, least: int, most: int) -> list[float]:
    """The milliseconds of each of at least `least` and at most `most` calls of `run`, for so many seconds, after a
    warm-up of so many calls."""
    for _ in range(warm_up):
        run()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < least or (time.perf_counter() < end and len(times) < most):
        begun = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - begun))
    return times


def latency(run: Callable[[], object], threads: int = 1, seconds: float = SECONDS) -> Latency:
    """How long a call of `run`, which processes one image on so many threads, takes after a warm-up."""
    times = timings(run, seconds, WARM_UP, LEAST_RUNS, MOST_RUNS)
    median, p95 = np.percentile(times, [50, 95]).tolist()
    return Latency(round(median, 4), round(p95, 4), len(times), threads)
