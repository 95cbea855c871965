"""`doctor`: what this machine has, and how fast it is."""

import importlib.metadata
import json

import pytest
import torch

from nasaug.core.units import format_quantity
from nasaug.data import builtin
from nasaug.kernels import build, choice
from nasaug.training import doctor
from support.commands import call, done


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(doctor, "STEPS", 1)
    monkeypatch.setattr(doctor, "ROUNDS", 1)
    monkeypatch.setattr(choice, "ROUNDS", 1)
    monkeypatch.setattr(choice, "TURNS", 1)


def test_it_says_what_there_is_and_what_the_kernels_gain(empty_folder, quick, monkeypatch):
    found = json.loads(done("doctor", "--json").out)
    assert found["versions"]["torch"] == torch.__version__.partition("+")[0] or found["versions"]["torch"]
    assert found["devices"][0]["device"] == "cpu" and found["disk"]["here"]["path"] == str(empty_folder)
    assert found["training"]["images_per_s"] > 1 and found["training"]["without_kernels"] > 1
    library = build.library()
    gains = found["kernels"]["gains"]
    assert found["kernels"]["unit"] == (library and library.unit)
    assert set(gains) == (set(choice.KINDS) if library else set())
    assert all(gain["times"] > 0 for gain in gains.values())
    assert {kind for kind, gain in gains.items() if gain["used"]} == {k for k in gains if choice.table(
        torch.get_num_threads())[k]}  # fmt: skip
    monkeypatch.setattr(doctor, "examine", lambda: found)
    shown = done("doctor").out
    for text in (found["python"], found["processor"], "times as fast as torch", "data here: ", " free in "):
        assert text in shown or (text == "times as fast as torch" and not library)
    assert all(f"- {line}" in shown for line in found["advice"])
    assert format_quantity(found["memory"], "bytes") in shown


def test_without_kernels_and_without_an_extra_it_says_what_to_do(empty_folder, quick, monkeypatch):
    monkeypatch.setattr(choice.build, "library", lambda: None)
    monkeypatch.setattr(choice.build, "why_not", lambda: "no C compiler")
    version = importlib.metadata.version
    requires = ['onnx>=1 ; extra == "export"', 'nonesuch[x]>=1; extra == "postgres"', "torch>=2", 'x; extra == "dev"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: requires)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1" if name == "onnx" else version(name))
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda place: doctor.shutil._ntuple_diskusage(9, 8, 2**30))
    found = doctor.examine()
    assert found["kernels"] == {"unit": None, "why_not": "no C compiler", "gains": {}}
    assert found["extras"] == {
        "export": {"for": doctor.EXTRAS["export"], "missing": []},
        "postgres": {"for": doctor.EXTRAS["postgres"], "missing": ["nonesuch"]},
    }  # fmt: skip
    told = "\n".join(found["advice"])
    assert "pip install 'nasaug[postgres]'" in told and "only 1.0 GB are free in" in told
    assert len(found["devices"]) > 1 or "install gcc or clang" in told


def test_a_machine_whose_steps_do_not_work_is_a_fault(empty_folder, quick, monkeypatch):
    monkeypatch.setattr(torch.nn.functional, "cross_entropy", lambda *_: torch.tensor(torch.nan, requires_grad=True))
    ended = call("doctor", "--json")
    assert ended.code == 1 and ended.out == "" and "gives a loss of nan" in ended.err


def test_data_are_found_without_being_read(tmp_path, monkeypatch):
    monkeypatch.setenv("NASAUG_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert [name for name in builtin.NAMED if name not in ("fashion-mnist", "digits") and builtin.there(name)] == []
    (tmp_path / "cifar10" / "cifar-10-batches-py").mkdir(parents=True)
    for name in ("cub200", "cifar100"):  # one of these may be an image folder
        (tmp_path / name).mkdir()
    assert builtin.there("cifar10") == tmp_path / "cifar10" / "cifar-10-batches-py"
    assert builtin.there("cub200") == tmp_path / "cub200" and not builtin.there("cifar100")
