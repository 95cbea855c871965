"""The net that a training starts from."""

import sys
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import pytest

import nasaug
from nasaug.arch.blocks import BLOCKS
from nasaug.arch.plan import plan
from nasaug.arch.spacefile import load
from nasaug.core.errors import BadInput, RunFault
from nasaug.core.signals import Stopped
from nasaug.methods import Base, Baseline, NetAug, Sandwich
from nasaug.nets.net import Net
from nasaug.nets.store import save_net
from nasaug.rundirs.folder import RunDir
from nasaug.training import provenance, train, whole
from nasaug.training.begin import create_or_resume, stopping
from nasaug.training.job import make_job, start_net
from nasaug.training.options import Options
from nasaug.training.recipe import Recipe
from nasaug.training.to_end import train_to_end
from nasaug.training.train import TrainJob
from support.toys import CPU
from support.trainers import trainer_of


@pytest.mark.parametrize("method", [Baseline(), NetAug(), Sandwich(1, 1, 1e5, 1e6)])
@pytest.mark.parametrize("asked, inherited", [(True, False), (False, False), (True, True)])
def test_fresh_residual_blocks_begin_as_identities_where_asked(tmp_path, method, asked, inherited):
    """Not in a network with inherited weights: these stay as trained."""
    space = load("mobilenetv2-small", BLOCKS)
    top, supernet = plan(space, space.largest, 4), tmp_path / "supernet.safetensors"
    base = Base(top, space, space.largest)
    if inherited:
        save_net(supernet, Net(top))
    job = make_job(Recipe(zero_init_residual=asked), method, base, images=64, runtime=CPU)
    net = start_net(replace(job, inherit=supernet if inherited else None))
    blocks = [block for block in net.plan.blocks if block.shortcut == "identity"]
    last = [net.get_parameter(f"{block.layers[-1].name}.norm.weight") for block in blocks]
    assert len(last) > 5 and all(bool(scale.any()) != (asked and not inherited) for scale in last)


@pytest.fixture
def boards(monkeypatch):
    """The TensorBoard writers made so far."""
    made = []

    class Writer:
        def __init__(self, *args, **kwargs):
            self.rows, self.closed = [], False
            made.append(self)

        def add_scalar(self, name, value, step):
            self.rows.append(name)

        def close(self):
            self.closed = True

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    return made


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_written_for_tensorboard_is_closed_even_after_a_fault(empty_folder, monkeypatch, boards, fails):
    if fails:
        monkeypatch.setattr(RunDir, "log", lambda *args, **row: 1 / 0)
    with RunDir.create("train", Recipe(), "r") as run, pytest.raises(ZeroDivisionError) if fails else nullcontext():
        train_to_end(trainer_of(Baseline()), run, "toy")
    (board,) = boards
    assert board.closed and ("toy/val_top1" in board.rows) != fails


@pytest.mark.parametrize("batch, advice", [(64, "set batch=32"), (3, "set batch=2"), (2, "where more memory is free")])
def test_out_of_memory_advises_a_batch_that_is_lower(empty_folder, batch, advice):
    with RunDir.create("train", Recipe(batch=batch), "r") as run, pytest.raises(RunFault, match=advice):
        with stopping("train", run):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")


QUICK = {"data.train_images": 48, "data.val_images": 40, "batch": 16, "epochs": 1, "calibration_images": 32}


def test_python_resumes_a_run_of_netaug_train_and_refuses_those_of_other_verbs(empty_folder, monkeypatch):
    options = Options.of("digits", None, QUICK, 0, "cpu", "n", False)
    job = TrainJob("netaug-train", "mobilenetv2-tiny", "netaug", options=options)
    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(train, "run_training", mock.Mock(side_effect=Stopped(15)))
        create_or_resume(job)
    result = nasaug.train(run="n", resume=True)
    assert result.method == "netaug" and nasaug.train(run="n", resume=True) == result
    with pytest.raises(BadInput) as refused:
        nasaug.compare(run="n", resume=True)
    assert str(refused.value).endswith("resume it as one of netaug-train, with resume and run = n")


def test_weights_of_other_splits_are_looked_for_once(empty_folder, monkeypatch):
    looked = mock.Mock(wraps=provenance.of_other_splits)
    for module in (train, whole):
        monkeypatch.setattr(module, "of_other_splits", looked)
    nasaug.train("mobilenetv2-tiny", method="baseline", data="digits", set=QUICK, device="cpu", run="r")
    assert looked.call_count == 1
    assert RunDir("r").environment()["start"]["other_splits"] == []
