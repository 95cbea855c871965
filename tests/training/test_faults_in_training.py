"""Memory that runs out, losses that are no numbers, locks of other hosts: what stops a training, and what it leaves."""

import platform
from pathlib import Path

import pytest
import torch

from nasaug.arch import archfile
from nasaug.core import tensorfile
from nasaug.core.errors import BadInput, Diverged, RunFault
from nasaug.core.progress import heard_by
from nasaug.methods import Baseline
from nasaug.rundirs.folder import LOCK, RunDir
from nasaug.training import memory
from nasaug.training.loop import Trainer
from nasaug.training.recipe import Recipe
from nasaug.training.timing import time_steps
from nasaug.training.to_end import train_to_end
from support.trainers import trainer_of


@pytest.mark.parametrize("fits", [12, 3, 1])
def test_when_memory_runs_out_a_batch_that_was_tried_is_named(monkeypatch, fits):
    """A GPU's error, faked: a step of more than `fits` images."""
    trainer, step = trainer_of(Baseline()), Trainer.train_step
    batch = trainer.length.batch

    def limited(trainer, images, labels):
        if len(images) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        step(trainer, images, labels)

    monkeypatch.setattr(Trainer, "train_step", limited)
    halves = [b for b in (batch >> n for n in range(1, 8)) if 2 <= b <= fits]
    told = f"{halves[0]} was tried and fits: start anew with set batch={halves[0]}" if halves else "no lower batch than"
    with pytest.raises(RunFault, match=told):
        time_steps(trainer)
    assert trainer.step == 0


def test_memory_is_predicted_from_the_plan_before_a_training_starts(monkeypatch):
    plan = archfile.read("mobilenetv2-tiny").plan
    assert memory.least(plan, plan, 64) > 64 * memory.least(plan, plan, 1) / 4 and (memory.available() or 1) > 0
    monkeypatch.setattr(memory, "available", lambda: memory.least(plan, plan, 40))
    memory.check(plan, plan, 40)
    with pytest.raises(BadInput, match=r"^batch = 128: a step needs at least .* of memory.*give set batch=32"):
        memory.check(plan, plan, 128)
    monkeypatch.setattr(memory, "available", lambda: 1000)
    with pytest.raises(BadInput, match="use a smaller network"):
        memory.check(plan, plan, 128)


def test_files_that_a_container_has_read_do_not_count_as_used_memory(monkeypatch, tmp_path):
    for name, content in (("max", 1000), ("current", 950), ("stat", "anon 50\ninactive_file 900")):
        (tmp_path / f"memory.{name}").write_text(f"{content}\n")
    monkeypatch.setattr(memory, "_CONTAINERS", ((tmp_path, *memory._CONTAINERS[0][1:]),))
    assert memory.available() == 950
    (tmp_path / "memory.max").write_text("max\n")  # no limit
    assert memory.available() > 1e6


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_stops_it_and_leaves_the_last_good_checkpoint(empty_folder, value):
    trainer, save = trainer_of(Baseline()), Trainer.save
    saves = []

    def spoilt(trainer, path):
        saves.append(trainer.step)
        if len(saves) == 2:
            with torch.no_grad():
                next(trainer.net.parameters()).mul_(value)
        save(trainer, path)

    with RunDir.create("train", Recipe(), "r") as run, pytest.MonkeyPatch.context() as patched:
        patched.setattr(Trainer, "save", spoilt)
        with pytest.raises(Diverged, match=r"toy: a weight is not finite by step \d+.*keeps step"):
            train_to_end(trainer, run, "toy")
        tensors, state = tensorfile.read(run.checkpoint_file)
    assert state["step"] == saves[0] and all(t.isfinite().all() for t in tensors.values())


def test_a_lock_that_was_left_on_another_host_is_taken_over_with_a_warning(empty_folder):
    lines = []
    with RunDir.create("train", Recipe(), "r"):
        assert Path("r", LOCK).read_text().endswith(f" on {platform.node()}")
        with pytest.raises(BadInput, match=r"r is in use by process \d+"):
            RunDir.resume("r")
    assert Path("r", LOCK).read_text() == ""
    for left, warned in (("77 on elsewhere", True), (f"77 on {platform.node()}", False), ("", False)):
        Path("r", LOCK).write_text(left)
        with heard_by(lambda event: lines.append(str(event))), RunDir.resume("r"):
            assert bool(lines) == warned and all("lock of process 77 on elsewhere was left" in x for x in lines)
        lines.clear()
