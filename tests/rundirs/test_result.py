"""A training's result is written and read as one object; files of older versions are read."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from nasaug.core.errors import BadInput
from nasaug.core.metric import Metric
from nasaug.rundirs.folder import RunDir
from nasaug.rundirs.result import TrainingResult, is_training, read_result

TOP1, MAE = Metric("top1", "%"), Metric("mae", "", False)
# in the file's order: as written by versions that had no other metrics
BEFORE = {
    "arm": "netaug", "method": "netaug", "arch": "tiny", "data": "digits", "data_key": "k", "seed": 3,
    "init": "inherit", "macs": 10, "params": 5, "peak": 7, "flash": 8, "val_top1": 70.0, "train_top1": 80.0,
    "val": [{"epoch": 1, "val_top1": 70.0}], "test_top1": 50.0, "test_images": 4, "epochs": 2, "train_macs": 1e6,
    "seconds": 1.5, "peak_memory": 9, "device": "CPU, 1 thread", "ladder": "supernet", "mean": [0.5], "classes": ["a"],
}  # fmt: skip


def test_a_result_of_before_is_read_and_written_as_it_was(tmp_path):
    RunDir(tmp_path).finish(BEFORE)
    result = read_result(tmp_path)
    assert (result.metric, result.val_score, result.test_score, result.train_score) == (TOP1, 70.0, 50.0, 80.0)
    assert result.more == {"ladder": "supernet", "mean": [0.5], "classes": ["a"]} and result.on_cpu
    assert json.dumps(result.to_json()) == json.dumps(BEFORE)  # the same keys, in the same order
    assert result.scores() == {"val_top1": 70.0, "test_top1": 50.0, "train_top1": 80.0}


def test_what_older_versions_left_out_is_not_there(tmp_path):
    left_out = ("arm", "init", "peak", "flash", "train_top1", "peak_memory", "val")
    least = {k: v for k, v in BEFORE.items() if k not in left_out}
    result = TrainingResult.from_json(least, tmp_path)
    assert result.arm == "netaug" and result.history == () and result.command is None
    assert result.train_score is result.peak_memory is result.init is result.peak is None


def test_another_metric_is_named_in_the_file(tmp_path):
    keys = {"val_top1": "val_mae", "test_top1": "test_mae", "train_top1": "train_mae"}
    table = {keys.get(k, k): v for k, v in BEFORE.items()} | {"metric": MAE.to_plain(), "val": []}
    RunDir(tmp_path).finish(table)
    result = read_result(tmp_path)
    assert result.metric == MAE and result.to_json() == table and is_training(table)
    assert not is_training({"val_top1": 1.0, "found": "x"}) and not is_training({"arms": [], "cells": 3})


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"test_top1": None}, "test_top1 is None, not what a training run writes; run it again"),
        ({"val_top1": "70"}, "val_top1 is '70', not what"), ({"macs": 1.5}, "macs is 1.5, not"),
        ({"seed": True}, "seed is True, not"),
        ({"val_mae": 1.0, "test_mae": 1.0}, "has no test score: no training run"),
        ({"metric": {"name": 3}}, "has no test score: no training run"),
    ],
)  # fmt: skip
def test_what_no_training_wrote_is_refused(tmp_path, changed, told):
    with pytest.raises(BadInput) as error:
        TrainingResult.from_json(BEFORE | changed, tmp_path)
    assert told in str(error.value) and str(tmp_path) in str(error.value)


def test_the_record_of_each_test_image_must_be_that_of_the_result(tmp_path):
    result = TrainingResult.from_json(BEFORE, tmp_path)
    assert result.judged() is None
    save_file({"correct": np.array([1, 0, 1, 0], np.uint8)}, tmp_path / "test.safetensors")
    assert result.judged().tolist() == [True, False, True, False]
    save_file({"correct": np.array([1, 1, 1, 0], np.uint8)}, tmp_path / "test.safetensors")
    with pytest.raises(BadInput, match="has 3 of 4 images right, but result.json says 50.00 % of 4"):
        result.judged()


def test_the_record_of_an_error_is_its_size_an_image(tmp_path):
    table = {k.replace("top1", "mae"): v for k, v in BEFORE.items()} | {"metric": MAE.to_plain(), "test_mae": 0.5}
    result = TrainingResult.from_json(table, tmp_path)
    save_file({"error": np.array([0.25, 0.75, 0.5, 0.5], np.float32)}, tmp_path / "test.safetensors")
    assert result.judged().tolist() == [0.25, 0.75, 0.5, 0.5]
    save_file({"error": np.array([0.25, 0.75, 0.5, 0.6], np.float32)}, tmp_path / "test.safetensors")
    with pytest.raises(BadInput, match="has 4 images and a mean of 0.525, but result.json says 0.5 of 4"):
        result.judged()
