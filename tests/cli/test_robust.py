"""`robust` on finished runs: figures, resuming, and the same images for every net."""

import json
import shutil
from pathlib import Path

import pytest

import nasaug
from nasaug.core.signals import Stopped
from nasaug.robustness import robust as module
from nasaug.robustness.constants import COMMON
from support.commands import done, stop
from support.killed import snapshots

RUN = "runs/netaug-train-1"
FEW = "--corruptions fog,jpeg,saturate --severities 1,5 --images 100 --attacked 40 --steps 2".split()


def test_figures_in_table_json_and_page(here):
    shutil.copytree(RUN, "other")
    shown = done("robust", "--run", RUN, "--run", "other", *FEW, "--eps", "2,8", "--out", "r").out
    told = json.loads(Path("r/robust.json").read_text())
    one, two = told["runs"]
    assert one["mce"] == two["mce"] == pytest.approx(100) and "relative mCE %" in shown
    assert one["errors"] == two["errors"] and list(one["errors"]) == ["fog", "jpeg", "saturate"]
    assert one["mean_error"] == pytest.approx(sum(sum(one["errors"][c].values()) for c in ("fog", "jpeg")) / 4)
    assert one["cka"]["other"] == pytest.approx(1) and 1 <= one["effective_rank"] <= one["features"]
    clean = one["attacks"]["clean"]["0"]
    assert one["attacks"]["pgd"]["8"] <= one["attacks"]["fgsm"]["2"] <= clean
    page = Path("r/robust.html").read_text()
    assert "PGD" in page and "<svg" in page and "saturate" in page
    again = done("robust", "--run", RUN, "--run", "other", *FEW, "--eps", "2,8", "--out", "r", "--json")
    told = json.loads(Path("r/robust.json").read_text())
    assert json.loads(again.out) == {"run": "r", **told} and "data digits" in again.err


def test_all_test_images_give_the_score_that_the_run_recorded(here):
    heard = []
    found = nasaug.robust(RUN, corruptions="none", eps=(), out="r", on_event=lambda event: heard.append(str(event)))
    (run,) = found.runs
    assert run.error == pytest.approx(100 - run.recorded) and run.images == 360 and run.mce is None
    assert found[RUN] is run and not [line for line in heard if "warning" in line]


def figures_in(folder):
    """Without the seconds that they took."""
    told = json.loads((folder / "robust.json").read_text())
    return told | {"runs": [run | {"seconds": 0} for run in told["runs"]]}


def test_killed_at_any_moment_it_goes_on_to_the_same_figures(here, tmp_path, monkeypatch):
    asked = {"corruptions": ["fog", "jpeg"], "severities": (2,), "eps": (), "images": 40}
    with snapshots(monkeypatch, here / "whole", tmp_path / "states") as states:
        nasaug.robust(RUN, **asked, out="whole")
    whole = figures_in(Path("whole"))
    assert len(states) >= 6
    for state in states:
        nasaug.robust(RUN, **asked, out=state)
        assert figures_in(state) == whole and (state / "robust.html").is_file()


def test_a_stopped_evaluation_goes_on_to_the_same_figures(here, monkeypatch):
    asked = {"corruptions": ["fog", "jpeg"], "severities": (2,), "eps": (), "images": 60}
    whole = nasaug.robust(RUN, **asked, out="whole")
    corrupted, seen = module.Subject.corrupted, []

    def until_jpeg(subject, told, name, frosts):
        return stop() if name == "jpeg" else corrupted(subject, told, name, frosts)

    def noted(subject, told, name, frosts):
        seen.append(name)
        return corrupted(subject, told, name, frosts)

    with monkeypatch.context() as patched, pytest.raises(Stopped) as stopped:
        patched.setattr(module.Subject, "corrupted", until_jpeg)
        nasaug.robust(RUN, **asked, out="part")
    command = stopped.value.resume.split()
    assert command[:2] == ["nasaug", "robust"]
    monkeypatch.setattr(module.Subject, "corrupted", noted)
    done(*command[1:])
    assert seen == ["jpeg"]
    kept = [json.loads(Path(folder, "robust.json").read_text())["runs"][0] for folder in ("whole", "part")]
    assert kept[0] | {"seconds": 0} == kept[1] | {"seconds": 0} and whole.runs[0].errors["jpeg"]


def test_thin_nets_of_gradaug_are_compared_with_their_base(here):
    done(*"train --recipe quick.toml --arch found.json --method gradaug --from-scratch --run g".split())
    found = nasaug.robust("g", corruptions="none", eps=(), images=80, out="r")
    likeness = found.runs[0].thin_cka
    assert len(likeness) >= 2 and all(0 < value < 1 for value in likeness.values())


def test_the_groups_of_names(here):
    assert module._settings("common", (1,), (), 1, 0, 1, None, 0).corruptions == COMMON
    assert len(module._settings(["all"], (1,), (), 1, 0, 1, None, 0).corruptions) == 19
