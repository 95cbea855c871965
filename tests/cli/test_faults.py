"""Faults of a run: exit code 1, one line with the remedy, and existing files are kept."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nasaug.rundirs.folder import RunDir
from support.commands import SEARCH, TRAIN, Child, call, faulty, tree


def test_a_loss_that_is_no_number_is_a_fault(here):
    assert "loss is nan" in (said := faulty(call(*TRAIN, "--set", "lr=1e30"))) and "--set lr=5e+29" in said


def test_the_supernet_has_a_learning_rate_of_its_own(here):
    said = faulty(call(*SEARCH, "--run", "wild", "--set", "lr=0.01", "--set", "search.lr=1e30"))
    assert "is nan" in said and "a supernet's by --set search.lr=5e+29" in said


def test_too_little_memory_is_a_fault(here, monkeypatch):
    def greedy(*args, **kwargs):
        import torch

        torch.empty(2**60)

    monkeypatch.setattr("nasaug.training.train.run_training", greedy)
    assert "out of memory; start anew with a lower batch, like --set batch=8" in faulty(call(*TRAIN))


@pytest.mark.parametrize("command", [SEARCH, TRAIN], ids=["search", "train"])
@pytest.mark.parametrize("largest", [0, 600, 5_000, 20_000, 30_000, 45_000, 80_000])
def test_a_disk_that_takes_no_more_is_a_fault_wherever_it_happens(here, command, largest):
    """No file may grow beyond `largest` bytes; the write that fails is always inside the run's folder."""
    before = {path: held for path, held in tree().items() if path != "runs"}
    called = Child(here, *command, "--run", "full", largest=largest).end()
    if called.code == 0:
        assert command == TRAIN and largest >= 30_000  # all its files are smaller
        return
    faulty(called)
    assert Path("full").exists() == (largest > 1_000)  # below that, not even the run's first files fit
    after = tree()
    assert {path: after.get(path) for path in before} == before
    shutil.rmtree("full", ignore_errors=True)
    assert {path for path in tree() if path not in before} <= {"runs"}


def test_a_reader_that_goes_away_is_no_error(finished):
    command = [sys.executable, "-m", "nasaug", "profile", "--arch", "found.json"]
    with subprocess.Popen(command, cwd=finished, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 141


def test_a_run_in_use_is_left_alone(here):
    with RunDir.resume("runs/search-1"):
        held = Child(here, "search", "--resume", "--run", "runs/search-1").end()
    assert held.code == 2 and f"in use by process {os.getpid()}" in held.err
