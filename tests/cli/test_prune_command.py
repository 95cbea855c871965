"""`prune`: from a finished run to a smaller or sparser net, resumable at any moment, reading test images once."""

import json
import math
import os
import re
import shlex
import shutil
import signal
from pathlib import Path

import pytest
import torch

from nasaug.arch import archfile
from nasaug.arch.cost import cost
from nasaug.cli import main as cli
from nasaug.core import tensorfile
from nasaug.core.signals import Stopped
from nasaug.data import Data
from nasaug.nets.store import load_net
from nasaug.pruning import selection
from nasaug.pruning.steps import Pruning
from nasaug.rundirs.folder import RunDir
from nasaug.training.loop import Trainer
from support.commands import TRAIN, Child, call, calls_of, done, refused, timeless, tree

SOURCE = Path("runs/netaug-train-1")
STEPS = 2
COMMAND = ("prune", "--from", str(SOURCE), "--steps", str(STEPS), "--run", "r")
SPARSE = (*COMMAND, "--unstructured", "--target-sparsity", "0.8")


def structured(share=0.5):
    """The command that prunes to this share of the MACs."""
    macs = int(share * cost(archfile.read(str(SOURCE / "arch.json")).plan).macs)
    return (*COMMAND, "--target-macs", str(macs), "--magnitude", "9:2"), macs


def result_of(run="r"):
    return json.loads(Path(run, "result.json").read_text())


def left_by(run="r"):
    """The files of a finished run, without times."""
    tensors = {name: tensorfile.read(Path(run, name)) for name in ("model.safetensors", "test.safetensors")}
    log = [timeless(event) for event in RunDir(run).read_log() if event["event"] == "epoch"]
    files = {name: timeless(json.loads(Path(run, name).read_text())) for name in ("result.json", "arch.json")}
    return tensors, log, files, {path.name for path in Path(run).iterdir() if path.is_file()}


def assert_same(one, other):
    for name, (tensors, state) in one[0].items():
        theirs, their_state = other[0][name]
        assert state == their_state and tensors.keys() == theirs.keys()
        assert all(torch.equal(t, theirs[n]) for n, t in tensors.items())
    assert one[1:] == other[1:]


def test_a_pruned_net_has_its_target_and_is_taken_by_the_other_commands(here):
    command, macs = structured(0.75)  # so that the net can lose more afterwards
    before = tree(SOURCE)
    said = done(*command)
    assert tree(SOURCE) == before
    result, found = result_of(), archfile.read("r/arch.json")
    assert 0.75 * macs < result["macs"] <= macs  # one of eight channels is a large step
    assert cost(found.plan).known.items() <= result.items()
    assert load_net(Path("r/model.safetensors")).plan == found.plan
    start = cost(archfile.read(str(SOURCE / "arch.json")).plan)
    assert [row["goal"] for row in result["steps"]] == selection.targets(start.macs, macs, STEPS)
    for row, magnitude in zip(result["steps"], (9, 2), strict=True):
        assert 0.75 * row["goal"] < row["macs"] <= row["goal"] and row["magnitude"] == magnitude
        assert row["val_top1_before"] >= 0 and row["val_top1"] == max(x["val_top1"] for x in history(row["step"]))
    assert result["val_top1"] == result["steps"][-1]["val_top1"] and result["start"]["macs"] == start.macs
    assert [row["step"] for row in result["val"]] == sorted(row["step"] for row in result["val"])
    assert result["epochs"] == sum(row["epochs"] for row in result["steps"]) == 2  # the recipe's
    assert re.search(r"all 2 steps that are left: about", said.out) and f"{result['test_top1']:.2f} %" in said.out
    lines = said.out.splitlines()
    top = [line.split() for line in lines].index("step MACs params magnitude pruned tuned".split())
    assert [line.split()[0] for line in lines[top + 1 : top + 4]] == ["start", "1", "2"]
    done("report", str(SOURCE), "r")
    assert f"exactly {result['macs']:,} MACs" in done("profile", "--arch", "r/arch.json").out
    done("train", "--recipe", "quick.toml", "--arch", "r/arch.json", "--method", "baseline", "--run", "again")
    done("prune", "--from", "r", "--target-macs", str(result["macs"] - 1), "--steps", "1", "--run", "more")


def test_the_rounding_that_a_refusal_names_is_possible(here):
    least = ("--target-macs", str(cost(archfile.read(str(SOURCE / "arch.json")).plan).macs - 1))
    said = refused(*COMMAND, *least, "--round", "1000")
    done(*COMMAND, *least, "--round", re.search(r"give less, like (\d+)\n", said)[1])


def test_a_teacher_that_cannot_be_is_left_out_as_the_refusal_says(here):
    macs = ("--set", "teacher.macs=90000", "--set", "difficulty.policy=weight")
    done(*TRAIN, "--set", "teacher.source=supernet", *macs, "--run", "taught")
    command = ("prune", "--from", "taught", "--steps", "1", "--target-macs", structured()[0][-3], "--run", "r")
    command = (*command, "--recipe", "taught/recipe.toml")
    one, none = refused(*command).partition("; give ")[2].split(", or none: ")
    done(*command, *shlex.split(none))
    shutil.rmtree("r")
    done(*command, *shlex.split(one.replace("RUN", str(SOURCE))))


def history(step):
    return [e for e in RunDir("r").read_log() if e["event"] == "epoch" and e["stage"] == f"step {step} of {STEPS}"]


def test_the_views_magnitude_and_learning_rate_are_those_of_the_step(here, monkeypatch):
    seen = {}

    def train_step(trainer, *batch):
        view = trainer.views["train"]
        seen[trainer.plan] = view.policy, view.magnitude(0.5), trainer.training.lr, type(trainer.method).__name__
        return original(trainer, *batch)

    original = Trainer.train_step
    monkeypatch.setattr(Trainer, "train_step", train_step)
    command, _ = structured()
    done(*command, "--lr-scale", "0.25", "--set", "lr=0.08")
    assert list(seen.values()) == [("randaugment", m, 0.02, "Baseline") for m in (9, 2)]
    seen.clear()
    shutil.rmtree("r")
    done(*command[:-2], "--method", "gradaug")  # the recipe's own views
    assert [row[:2] + row[3:] for row in seen.values()] == [("none", 9, "GradAug")] * 2


def test_a_recipes_magnitude_follows_what_was_pruned_here_and_in_later_trainings(here, monkeypatch):
    command, _ = structured(0.75)  # as above
    line = 'views.train.magnitude={kind="pruned",start=10,end=0}'
    follows = ("--set", "views.train.policy=randaugment", "--set", line)
    done(*command[:-2], *follows)
    start, rows = cost(archfile.read(str(SOURCE / "arch.json")).plan).macs, result_of()["steps"]
    assert [row["magnitude"] for row in rows] == pytest.approx([10 * row["macs"] / start for row in rows])
    assert archfile.read("r/arch.json").pruned == pytest.approx(1 - rows[-1]["macs"] / start)
    seen, original = [], Trainer.train_step

    def train_step(trainer, *batch):
        seen.append(trainer.views["train"].magnitude(0.5))
        return original(trainer, *batch)

    monkeypatch.setattr(Trainer, "train_step", train_step)
    done("train", "--recipe", "quick.toml", "--arch", "r/arch.json", "--method", "baseline", "--run", "t", *follows)
    assert set(seen) == {rows[-1]["magnitude"]}
    done("prune", "--from", "t", "--target-macs", str(rows[-1]["macs"] - 1), "--steps", "1", "--run", "more")
    (again,) = result_of("more")["steps"]
    assert again["magnitude"] == pytest.approx(10 * again["macs"] / start)  # relative to the very first net


def test_the_test_images_are_read_once_at_the_end(here, monkeypatch):
    events = calls_of(monkeypatch, (Data, "finish"), (Pruning, "_step"), (Trainer, "end_epoch"))
    done(*structured()[0])
    assert events.count("finish") == 1 and events[-1] == "finish" and events.count("_step") == STEPS


def test_a_sparse_net_has_just_its_zeros_in_every_step(here, monkeypatch):
    zeros = []
    end_epoch = Trainer.end_epoch

    def noted(trainer):
        zeros.append(selection.sparsity(trainer.net)["prunable"])
        return end_epoch(trainer)

    monkeypatch.setattr(Trainer, "end_epoch", noted)
    said = done(*SPARSE, "--set", "ema=0.9", "--set", "epochs=4")
    net, result = load_net(Path("r/model.safetensors")), result_of()
    total = sum(net.get_parameter(name).numel() for name in selection.prunable(net.plan))
    assert selection.sparsity(net)["prunable"] == round(0.8 * total) / total == result["sparsity"]["prunable"]
    goals = [1 - goal for goal in selection.targets(1.0, 0.2, STEPS)]
    assert [row["sparsity"] for row in result["steps"]] == [round(goal * total) / total for goal in goals]
    assert zeros == [row["sparsity"] for row in result["steps"] for _ in range(2)]  # after every epoch's updates
    assert archfile.read("r/arch.json").plan == archfile.read(str(SOURCE / "arch.json")).plan
    assert archfile.read("r/arch.json").pruned == 0  # later trainings need not keep the zeros
    assert "warning" not in said.out and re.search(r"step +MACs +params +zeros", said.out)
    assert "MACs are unchanged" in said.out and f"{100 * result['sparsity']['prunable']:.2f} %" in said.out
    for layer in result["sparsity"].keys() - {"prunable", "all"}:
        assert re.search(rf"^  {re.escape(layer)} +[\d.]+ %$", said.out, re.M)
    more = ("--unstructured", "--target-sparsity", "0.9", "--steps", "2", "--run", "sparser")
    done("prune", "--from", "r", *more)
    there, half, whole = result["sparsity"]["prunable"], *(row["sparsity"] for row in result_of("sparser")["steps"])
    assert there < half < whole == round(0.9 * total) / total
    again = refused("prune", "--from", "r", "--unstructured", "--target-sparsity", "0.5")
    share = f"{100 * there:.3g} % of the weights are zero already; give above {math.ceil(1000 * there) / 1000:g}"
    assert f"--target-sparsity 0.5: {share}" in again


# --- stopped and resumed ------------------------------------------------------------------------------------


def stop(*args, **kwargs):
    raise Stopped(signal.SIGTERM)


@pytest.mark.parametrize("kind", ["structured", "sparse"])
def test_every_state_that_a_kill_can_leave_ends_the_same(here, tmp_path, monkeypatch, kind):
    """Resumes from copies of the run's folder, taken before each rename or removal of a file."""
    command, taken = (structured()[0] if kind == "structured" else SPARSE), []
    with monkeypatch.context() as patched:
        def snapped(original):
            def instead(*args, **kwargs):
                if Path("r").is_dir():
                    taken.append(shutil.copytree("r", tmp_path / "states" / str(len(taken))))
                return original(*args, **kwargs)

            return instead

        patched.setattr(os, "replace", snapped(os.replace))
        patched.setattr(Path, "unlink", snapped(Path.unlink))
        done(*command)
    expected, resumed = left_by(), 0
    for state in taken if kind == "structured" else taken[::3]:
        shutil.rmtree("r")
        shutil.copytree(state, "r")
        called = call("prune", "--resume", "--run", "r")
        if not (state / "job.json").is_file():
            assert called.code == 2 and re.search("not a run that can be resumed|interrupted before", called.err)
            continue
        assert called.code == 0, (state, called.err)
        assert_same(left_by(), expected)
        resumed += 1
    assert resumed >= (15 if kind == "structured" else 5)


def test_ctrl_c_ends_it_with_a_line_that_resumes_it(here):
    command, _ = structured()
    long = (*command, "--set", "epochs=16")
    done(*long)
    expected = left_by()
    shutil.rmtree("r")
    child = Child(Path.cwd(), *long)
    while not (Path("r/log.jsonl").is_file() and "step 2 of 2" in Path("r/log.jsonl").read_text()):
        assert child.running(0.002), child.end().err
    child.signal(signal.SIGINT)
    ended = child.end()
    assert ended.code == 128 + signal.SIGINT and "Traceback" not in ended.err, ended.err
    resume = "nasaug prune --resume --run r"
    assert ended.err.splitlines()[-1] == f"stopped; go on with: {resume}" and not Path("r/result.json").exists()
    shutil.rmtree(SOURCE)  # the run holds all that is needed
    resumed = done(*shlex.split(resume)[1:])
    assert "resumed step 2 of 2 at step" in resumed.out and "step 1 of 2" not in resumed.out
    assert_same(left_by(), expected)


def test_it_resumes_under_the_same_options_and_refuses_others(here, monkeypatch):
    command, macs = structured()
    with monkeypatch.context() as patched:
        cut = Pruning._cut
        patched.setattr(Pruning, "_cut", lambda pruning, i: stop() if i else cut(pruning, i))
        assert call(*command, "--recipe", "quick.toml").code == 143
    for options, said in (
        (("--target-macs", "1k"), f"was begun with --target-macs {macs}, not 1000; leave it out"),
        (("--steps", "3"), "was begun with --steps 2, not 3"),
        (("--magnitude", "2:9"), "was begun with --magnitude 9:2, not 2:9"),
        (("--criterion", "bn"), "was begun with --criterion l1, not bn"),
        (("--lr-scale", "1"), "was begun with --lr-scale 0.5, not 1"), (("--method", "mixup"), "--method none, not"),
        (("--round", "8"), "was begun with --round 1, not 8"),
        (("--from", "runs/search-1"), "was begun with --from"), (("--unstructured",), "without --unstructured"),
        (("--target-sparsity", "0.5"), "--target-sparsity none, not 0.5"),
        (("--seed", "1"), r"other settings: seed \(begun with 0, asked 1\)"),
        (("--set", "epochs=3"), r"epochs \(begun with 2, asked 3\)"),
    ):
        assert re.search(said, refused("prune", "--resume", "--run", "r", *options))
    done(*command, "--resume", "--recipe", "quick.toml", "--set", "data.workers=0")  # which changes no result
    assert "is finished already" in done("prune", "--resume", "--run", "r").out
    assert "no unfinished run of prune" in refused("prune", "--resume")


# --- what it is given ---------------------------------------------------------------------------------------


def test_the_smallest_target_that_a_refusal_names_is_possible(here):
    named = re.search(r"smallest possible net (\d+)", refused("prune", "--from", str(SOURCE), "--target-macs", "1"))[1]
    assert f"give at least {named}" in refused("prune", "--from", str(SOURCE), "--target-macs", str(int(named) - 1))
    done("prune", "--from", str(SOURCE), "--target-macs", named, "--steps", "1", "--run", "r")
    assert result_of()["macs"] == int(named)


def test_a_run_that_is_not_there_whole_is_refused(here):
    for missing, said in (("model.safetensors", "has no model.safetensors"), ("result.json", "is not finished")):
        copy = Path(shutil.copytree(SOURCE, f"without-{missing}"))
        (copy / missing).unlink()
        assert said in refused("prune", "--from", str(copy), "--target-macs", "20k")
    arch = json.loads((SOURCE / "arch.json").read_text())
    arch["plan"]["blocks"][0]["width"] += 1
    shutil.copytree(SOURCE, "other")
    Path("other/arch.json").write_text(json.dumps({k: arch[k] for k in ("format", "name", "plan", "cost")}))
    assert "are not of the same net" in refused("prune", "--from", "other", "--target-macs", "20k")


def test_other_splits_than_the_nets_own_are_told_of(here):
    command, _ = structured()
    with_others = (*command, "--set", "data.split_seed=1")
    assert "warning: runs/netaug-train-1 had other validation images" in done(*with_others).out


def test_help_shows_examples_that_the_command_line_understands(empty_folder):
    shown = done("prune", "--help").out
    examples = re.findall(r"^nasaug (prune .*?) *$", shown, re.M)
    assert len(examples) == 4
    for example in examples:
        cli.app.parse_args(shlex.split(example), exit_on_error=False, print_error=False)
    options = re.findall(r"^│[ *]+(--[a-z][a-z-]*)((?: [A-Z]+)?(?:\.\.\.)?) +(\S*)", shown, re.M)
    assert len(options) >= 9 and [name for name, _, said in options if said in ("", "│")] == []
