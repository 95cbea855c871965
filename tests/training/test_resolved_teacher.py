"""A teacher is resolved and loaded once per training."""

import json
import sys
from pathlib import Path
from unittest import mock

import pytest

from nasaug.cli import main as cli
from nasaug.core import tensorfile

SETS = "data.train_images=48 data.val_images=20 batch=16 epochs=1 calibration_images=32".split()


def train(*args):
    sets = [f"--set={item}" for item in SETS]
    command = ["nasaug", "train", "--data", "digits", "--arch", "mobilenetv2-tiny", *sets, *args]
    with mock.patch.object(sys, "argv", command), pytest.raises(SystemExit, match="^0$"):
        cli.main()


def test_a_run_as_teacher_is_loaded_once(empty_folder, monkeypatch):
    train("--method", "baseline", "--run", "first")
    read, model, times = tensorfile.read, Path("first/model.safetensors"), []

    def counted(path, *, wanted=True):
        times.append(wanted and Path(path) == model)  # its tensors, not only the metadata
        return read(path, wanted=wanted)

    monkeypatch.setattr(tensorfile, "read", counted)
    train("--method", "baseline+distill:source=first", "--run", "second")
    assert sum(times) == 1
    own, taught = (json.loads(Path(run, "result.json").read_text())["train_macs"] for run in ("first", "second"))
    assert taught == 2 * own  # one pass of the same net per view
