"""`compare` and `report`: equal conditions for all arms, cells that fail or are stopped, and what is refused.

Cells are forked from a process that has imported everything, except where real processes are tested."""

import contextlib
import csv
import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from nasaug.arch import archfile
from nasaug.comparison import cells, compare, report, trainings
from nasaug.config.layers import load, to_dict
from nasaug.core.tensorfile import read
from nasaug.kernels import build, choice
from nasaug.pool import processes
from nasaug.training.device import open_runtime
from nasaug.training.job import job_for, load_data
from nasaug.training.recipe import Recipe
from support.commands import QUICK, call, done, faulty, refused, timeless
from support.forked import FORKING, Forked

MEMORY = "(by the system, if memory ran out: give fewer jobs or a lower batch)"
KILLED = f"killed by SIGKILL {MEMORY}; before that: it printed no message"
COMPARE = ("compare", *QUICK, "--arch", "found.json", "--jobs", "2")
NETAUG = "netaug:share=0.5,sort=false"
ARMS = ("baseline", NETAUG, "longer")
RUN = Path("runs/compare-1")


@pytest.fixture
def forked(monkeypatch):
    monkeypatch.setattr(processes, "subprocess", FORKING)


@pytest.fixture(scope="module")
def compared(finished, tmp_path_factory):
    """A folder with a finished comparison of three arms with two seeds each, and its output."""
    folder = shutil.copytree(finished, tmp_path_factory.mktemp("compared") / "here")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setattr(processes, "subprocess", FORKING)
        said = done(*COMPARE, "--methods", ",".join(ARMS), "--seeds", "2").out
    return folder, said


@pytest.fixture
def there(compared, forked, tmp_path, monkeypatch):
    """A copy of it as the working directory; its processes are forked."""
    monkeypatch.chdir(shutil.copytree(compared[0], tmp_path / "there"))


@pytest.fixture
def here(here, forked):
    """`here` with forked processes."""


def told(run=RUN):
    return json.loads((run / "comparison.json").read_text())


def results(where=RUN):
    """The results of each finished cell, without times, by arm and seed."""
    found = [json.loads(path.read_text()) for path in where.rglob("result.json") if path.parent != where]
    return {(r["arm"], r["seed"]): timeless(r) for r in found}


TWO = ("--methods", f"baseline,{NETAUG}", "--seeds", "1")


def results_of_two():
    """The results of TWO, from the whole comparison."""
    return {(arm, seed): result for (arm, seed), result in results().items() if arm != "longer" and seed == 0}


def written(where=RUN):
    """Modification time of each cell's result."""
    return {path: path.stat().st_mtime_ns for path in where.rglob("result.json") if path.parent != where}


# --- what a comparison says and leaves --------------------------------------------------------------------


def test_it_ends_in_a_table_json_csv_and_a_page(compared, monkeypatch):
    folder, said = compared
    monkeypatch.chdir(folder)
    assert "3 arms x 2 seeds, matched by epochs: 6 cells, 0 there already" in said
    assert report.table(told()) in said and said.count("not enough seeds") == 2
    summary = told()
    assert [(arm["arm"], arm["n"]) for arm in summary["arms"]] == [(arm, 2) for arm in ARMS]
    assert (summary["reference"], summary["match"], summary["failed"]) == ("baseline", "epochs", [])
    assert [arm["versus"] and arm["versus"]["verdict"] for arm in summary["arms"]] == [None] + ["not enough seeds"] * 2
    assert len(list(csv.DictReader((RUN / "comparison.csv").open()))) == 6
    assert NETAUG in (RUN / "comparison.html").read_text()
    assert json.loads((RUN / "result.json").read_text())["cells"] == 6


def test_cells_differ_in_seed_and_in_what_their_arm_says_alone(compared, monkeypatch):
    monkeypatch.chdir(compared[0])
    recipes = [to_dict(load(path, Recipe)) for path in sorted(RUN.glob("cells/*/recipe.toml"))]
    seen = {(r["arm"], r["seed"], r["method"], r["times"], r["netaug"].pop("share"), r["netaug"].pop("sort"))
            for r in recipes}  # fmt: skip
    plain = load("quick.toml", Recipe).netaug
    said = {"baseline": ("baseline", 1.0, plain.share, plain.sort), NETAUG: ("netaug", 1.0, 0.5, False)}
    said["longer"] = ("baseline", 4.0, plain.share, plain.sort)
    assert seen == {(arm, seed, *said[arm]) for arm in ARMS for seed in (0, 1)}
    for recipe in recipes:
        assert {key for key, value in recipe.items() if value != recipes[0][key]} <= {"arm", "seed", "method", "times"}
    assert len({r["data_key"] for r in results().values()}) == 1
    assert {arm: {r["epochs"] for (a, _), r in results().items() if a == arm} for arm in ARMS} == {
        "baseline": {2}, NETAUG: {2}, "longer": {8},
    }  # fmt: skip


def test_all_cells_compute_with_the_kernels_that_the_comparison_noted(compared, monkeypatch):
    monkeypatch.chdir(compared[0])
    noted = json.loads((RUN / "env.json").read_text())["cells"]
    folders = [path.parent for path in RUN.rglob("result.json") if path.parent != RUN]
    assert set(noted) == {"1"} and len(folders) == 2 * len(ARMS)
    table = json.loads(noted["1"][choice.CHOSEN])
    for folder in folders:
        kernels = json.loads((folder / "env.json").read_text())["kernels"]
        assert kernels["compiled"] == sorted(kind for kind in table if table[kind] and build.library())


def test_a_cell_is_the_training_that_train_alone_would_do(there):
    done("train", *QUICK, "--arch", "found.json", "--method", "baseline", "--seed", "1", "--run", "alone")
    alone = timeless(json.loads(Path("alone/result.json").read_text()))
    assert alone == results()["baseline", 1]
    assert alone["val"] != results()["baseline", 0]["val"]


def test_matched_by_compute_every_arm_takes_the_same_within_a_step(here):
    whole = 2e7
    arms = "baseline,netaug,distill:source=runs/netaug-train-1"
    done(*COMPARE, "--methods", arms, "--seeds", "1", "--match", "compute", "--set", f"train_macs={whole}")
    for (arm, _), result in results().items():
        step = result["train_macs"] / result["val"][-1]["step"]
        most = 2 * step  # steps whose nets are drawn differ
        assert whole <= result["train_macs"] < whole + most < 1.5 * whole, arm
    assert told()["match"] == "compute" and len(results()) == 3


def test_matched_by_seconds_every_arm_trains_as_long(here):
    done(*COMPARE, "--methods", "baseline,netaug", "--seeds", "1", "--match", "seconds", "--set", "max_seconds=0.3")
    took = {json.loads(path.read_text())["seconds"] for path in written()}
    assert len(took) >= 1 and all(0.3 <= seconds < 2 for seconds in took)


def cells_of(monkeypatch, *args):
    """The cells that a comparison would train."""
    caught = []
    with monkeypatch.context() as patched:
        patched.setattr(compare.CompareJob, "carry_out", lambda job, run, ready: caught.extend(ready.cells))
        patched.setattr(compare.CompareJob, "result", lambda *_: None)
        done(*args)
    return caught


def test_of_epochs_by_compute_all_arms_take_what_the_dearest_affords(here, monkeypatch):
    """An arm that gives a number keeps it."""
    Path("few.toml").write_text("epochs = 1")
    Path("auto.toml").write_text('base = "quick.toml"\nepochs = "auto"\ntrain_macs = 2e7\n')
    args = ("compare", "--recipe", "auto.toml", "--arch", "found.json", "--seeds", "2")
    made = cells_of(monkeypatch, *args, "--methods", "baseline,netaug,longer,few.toml")
    found, runtime = archfile.read("found.json"), open_runtime("cpu")
    epochs = {cell.arm: job_for(found, cell.recipe, runtime, 48).length.epochs for cell in made}
    alone = [load("auto.toml", Recipe, differences=(method,)) for method in ("baseline", "netaug")]
    cheap, dear = (job_for(found, recipe, runtime, 48).length.epochs for recipe in alone)
    assert epochs == {"baseline": dear, "netaug": dear, "longer": 4 * dear, "few.toml": 1} and 1 < dear < cheap


LENGTHS = (*COMPARE, "--methods", "baseline,netaug", "--lengths", "2,1", "--cells", "cells", "--seeds")


def test_lengths_share_their_cells_with_comparisons_of_one_length(here, monkeypatch):
    few, second = (*COMPARE, "--methods", "baseline", "--seeds", "1", "--cells", "cells", "--set"), "runs/compare-2"
    done(*few, "epochs=2")
    said = done(*LENGTHS, "1").out
    assert "2 arms x 2 lengths x 1 seeds, matched by epochs: 4 cells, 1 there already" in said
    assert "netaug, 1 epoch, seed 0: validation" in said
    summary = told(Path(second))
    assert [(arm["arm"], arm["length"]["value"], arm["epochs"]) for arm in summary["arms"]] == [
        ("baseline", 1, 1), ("baseline", 2, 2), ("netaug", 1, 1), ("netaug", 2, 2),
    ]  # fmt: skip
    (words,) = (each["words"] for each in summary["crossings"])
    assert "plain training of the same compute" in words and words in said.splitlines()

    (short,) = cells_of(monkeypatch, *few, "epochs=1")
    again = cells_of(monkeypatch, "compare", "--resume", "--run", second, "--lengths", "1,2")
    assert short.finished and len(again) == 4 and all(cell.finished for cell in again)
    assert words in done("report", "cells").out
    assert json.loads(Path("report.json").read_text())["crossings"] == summary["crossings"]
    assert "was begun with --lengths 1,2, not 1;" in refused("compare", "--resume", "--run", second, "--lengths", "1")

    next(Path("cells").glob("netaug-s0-*/result.json")).unlink()
    monkeypatch.setattr(trainings, "run_all", lambda works, *_: [(work, "no memory") for work in works])
    called = call("compare", "--resume", "--run", second)
    (failed,) = told(Path(second))["failed"]
    epochs = {1: "1 epoch", 2: "2 epochs"}[failed["length"]["value"]]
    assert f"1 of 4 cells failed: netaug, {epochs} (seed 0); try" in faulty(called)
    assert f"failed: netaug, {epochs}, seed 0: no memory" in called.out.splitlines()


def test_who_says_how_long_beside_lengths_is_refused(here):
    Path("few.toml").write_text("epochs = 1")
    said = refused(*COMPARE, "--lengths", "1,2", "--methods", "few.toml")
    assert "arm 'few.toml' sets epochs = 1, but --lengths says how long to train every arm; leave" in said
    Path("twice.toml").write_text('base = "quick.toml"\ntimes = 2.0\n')
    said = refused("compare", "--recipe", "twice.toml", "--arch", "found.json", "--lengths", "1,2")
    assert "times = 2 multiplies the lengths, which --lengths gives as they are; set it to 1" in said


def test_cells_of_the_short_lengths_come_first_and_have_the_keys_of_recipes_that_say_so(here, monkeypatch):
    made = cells_of(monkeypatch, *LENGTHS, "2")
    assert [(cell.recipe.epochs, cell.seed, cell.arm) for cell in made] == [
        (epochs, seed, arm) for epochs in (1, 2) for seed in (0, 1) for arm in ("baseline", "netaug")
    ]  # fmt: skip
    for match, lengths, key, values in (
        ("compute", "0.02G,1e7", "train_macs", (1e7, 2e7)), ("seconds", "60,0.5s", "max_seconds", (0.5, 60.0)),
    ):  # fmt: skip
        args = (*COMPARE, "--methods", "netaug", "--seeds", "1", "--match", match)
        made = cells_of(monkeypatch, *args, "--lengths", lengths)
        assert [getattr(cell.recipe, key) for cell in made] == list(values)
        for cell, value in zip(made, values, strict=True):
            (same,) = cells_of(monkeypatch, *args, "--set", f"{key}={value}")
            assert (same.path.name, same.recipe) == (cell.path.name, cell.recipe)


# --- going on ---------------------------------------------------------------------------------------------


def test_resuming_trains_what_is_missing_and_nothing_else(there):
    """One cell interrupted half-way, one interrupted before it began, and one never started."""
    before, whole = written(), results()
    cut, early, never = (path.parent for path in list(before)[:3])
    (cut / "result.json").unlink()
    for path in early.iterdir():
        if path.name not in ("env.json", "recipe.toml"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(never)
    (RUN / "result.json").unlink()
    assert "6 cells, 3 there already" in done("compare", "--resume").out
    assert {path: when for path, when in written().items() if before[path] == when}.keys() == set(list(before)[3:])
    assert results() == whole


def test_a_finished_comparison_trains_nothing_again(there, monkeypatch):
    monkeypatch.setattr(trainings, "run_all", None)
    begun = (*COMPARE, "--methods", ",".join(ARMS), "--seeds", "2", "--data", "digits", "--match", "epochs")
    again, before = (*begun, "--resume", "--run", str(RUN)), told()
    assert report.table(before) in done(*again).out
    assert told() == before | {"commands": [*before["commands"], " ".join(("nasaug", *again))]}
    printed = json.loads(done("compare", "--resume", "--run", str(RUN), "--json").out)
    assert printed == {"run": str(RUN.resolve()), **told()}
    (row,) = (row for row in json.loads(done("runs", "--json").out) if row["verb"] == "compare")
    one, two = told()["arms"][0]["test_top1"]["values"]
    assert row["figures"].startswith(f"test top-1 over 2 seeds: {one:.2f}, {two:.2f} % baseline, ")
    assert row["arch"].startswith("tiny:")
    assert (row["data"], row["macs"]) == ("digits", told()["arms"][0]["macs"])


OTHERS = {
    "--seeds 3": "with --seeds 2, not 3", "--seeds 5": "with --seeds 2, not 5",
    "--methods baseline": f"--methods baseline,{NETAUG},longer, not baseline;",
    "--match compute": "with --match epochs, not compute", "--set lr=0.2": "with --set none, not lr=0.2",
    "--recipe small": "with --recipe quick.toml, not small", "--data fashion-mnist": "--data none, not fashion-mnist",
    "--lengths 1,2": "with --lengths none, not 1,2",
    "--cells elsewhere": "with --cells none", "--from-scratch": "with --from-scratch False, not True",
    "--arch mobilenetv2-tiny": "trains tiny:.* px, not what was asked for", "--resolution 16": "not what was asked for",
}  # fmt: skip


def test_resuming_under_other_options_is_refused_and_the_option_named(there):
    for line, said in OTHERS.items():
        assert re.search(said, refused("compare", "--resume", "--run", str(RUN), *line.split())), line


def test_resuming_may_change_how_images_are_read(there):
    begun = next(path.parent for path in (RUN / "cells").rglob("result.json"))
    os.remove(begun / "result.json")
    os.remove(RUN / "result.json")
    before = written()
    fewer = ("--set", "data.workers=0", "--set", "data.keep_decoded=false")
    assert "6 cells, 5 there already" in done("compare", "--resume", *fewer).out
    assert written().items() >= before.items() and len(written()) == 6
    assert "workers = 0\nmemory_mb = 2000\nkeep_decoded = false\n" in (begun / "recipe.toml").read_text()
    assert "was begun with --set none, not epochs=9" in refused(
        "compare", "--resume", "--run", str(RUN), *fewer, "--set", "epochs=9"
    )


def test_resuming_needs_the_weights_that_all_trainings_start_from(there):
    shutil.move("runs/search-1", "away")
    said = refused("compare", "--resume", "--run", str(RUN))
    assert "start.safetensors is missing, from which the trainings of runs/compare-1 start; restore it, or" in said
    shutil.move("away", "runs/search-1")
    done("compare", "--resume", "--run", str(RUN))


def test_it_starts_from_the_weights_that_its_net_has_and_says_so(here):
    arch = "runs/netaug-train-1/arch.json"
    said = done("compare", *QUICK, "--arch", arch, "--methods", "baseline,scratch", "--seeds", "1", "--jobs", "2").out
    assert re.search(r"baseline: weights: those of the net in \S*netaug-train-1/model.safetensors\n", said)
    assert "scratch: weights: fresh\n" in said
    assert {arm: r["init"] for (arm, _), r in results().items()} == {"baseline": "inherit", "scratch": "scratch"}


def test_resuming_under_a_recipe_edited_since_is_refused(there):
    Path("quick.toml").write_text(Path("quick.toml").read_text().replace("batch = 16", "batch = 8"))
    assert "batch (begun with 16, asked 8)" in refused("compare", "--resume", "--run", str(RUN))


def test_data_named_by_an_option_are_those_of_a_resumed_comparison_too(photos, forked, monkeypatch):
    """Although the recipe names other data."""
    args = (*COMPARE, *photos, "--methods", "baseline", "--seeds", "1")
    done(*args)
    assert told()["data"] == "photos"
    before = written()
    assert "1 cells, 1 there already" in done("compare", "--resume", "--run", str(RUN)).out
    assert written() == before


# --- cells that fail --------------------------------------------------------------------------------------


def test_a_cell_that_fails_takes_no_other_along_and_is_tried_again(here):
    Path("wild.toml").write_text("lr = 1e30")
    called = call(*COMPARE, "--methods", "wild.toml,baseline", "--seeds", "1")
    again = f"nasaug compare --resume --run {RUN}"
    assert f"1 of 2 cells failed: wild.toml (seed 0); try them again with {again}" in faulty(called)
    (failed,) = told()["failed"]
    assert (failed["arm"], failed["seed"]) == ("wild.toml", 0)
    assert failed["error"].startswith("train: the base loss is nan")
    assert f"failed: wild.toml, seed 0: {failed['error']}" in called.out.splitlines()
    assert [(arm["arm"], arm["n"]) for arm in told()["arms"]] == [("baseline", 1)]
    assert failed["error"] in html.unescape((RUN / "comparison.html").read_text())
    assert not (RUN / "result.json").exists()
    before = written()
    assert "2 cells, 1 there already" in (again := call(*again.split()[1:])).out and faulty(again)
    Path("wild.toml").write_text("lr = 0.01")
    assert "failed" not in done("compare", "--resume").out
    assert told()["failed"] == [] and [arm["arm"] for arm in told()["arms"]] == ["wild.toml", "baseline"]
    assert before.items() < written().items() and (RUN / "result.json").exists()


def test_where_every_cell_fails_it_says_why(here, monkeypatch):
    """The data are read once, to count the images of an epoch and to estimate how long it takes."""
    Path("wild.toml").write_text("lr = 1e30")
    loads = []
    monkeypatch.setattr(cells, "load_data", lambda *args: loads.append(args) or load_data(*args))
    said = faulty(call(*COMPARE, "--methods", "wild.toml", "--seeds", "1", "--set", "data.train_images=0"))
    assert len(loads) == 1
    assert "no cell was finished; the first failed with: train: the base loss is nan" in said
    assert "--resume --run" in said


def test_a_cell_that_is_killed_is_told_with_the_signal_and_can_go_on(there, monkeypatch):
    whole, start = results_of_two(), processes.start

    def start_and_kill(work, *args):
        process = start(work, *args)
        if work.about.arm == NETAUG:
            process.send_signal(signal.SIGKILL)
        return process

    shutil.rmtree(RUN)
    with monkeypatch.context() as patched:
        patched.setattr(processes, "start", start_and_kill)
        faulty(call(*COMPARE, *TWO))
    assert [f["error"] for f in told()["failed"]] == [KILLED]
    done("compare", "--resume")
    assert results() == whole


@contextlib.contextmanager
def at_work_in(folder, log):
    """A process left behind by an earlier command, which locks the folder and reports progress. Yields its id."""
    code = (
        "import fcntl, os, sys, time\n"
        "lock = open(sys.argv[1] + '/.lock', 'w')\n"
        "fcntl.lockf(lock, fcntl.LOCK_EX)\n"
        "print(os.getpid(), file=lock, end='', flush=True)\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    print('epoch 3 of 9', file=open(sys.argv[2], 'a'))\n"
        "    time.sleep(0.01)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, folder, log], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield process.pid
        finally:
            process.kill()


def test_a_cell_that_another_process_is_at_is_told_with_that_process(there):
    """Whatever progress that process reports."""
    (RUN / "result.json").unlink()
    one, *rest = (path.parent for path in written())
    (one / "result.json").unlink()
    with at_work_in(one, f"{one}.log") as process:
        faulty(call("compare", "--resume"))
    (failed,) = told()["failed"]
    assert re.match(rf"\S+ is in use by process {process};", failed["error"])
    assert "5 there already" in done("compare", "--resume").out


def test_a_cell_that_told_nothing_is_not_told_with_what_an_earlier_process_did(there, monkeypatch):
    (RUN / "result.json").unlink()
    one = next(iter(written())).parent
    (one / "result.json").unlink()
    Path(f"{one}.log").write_text("nasaug: no space\nepoch 3 of 9\n")
    monkeypatch.setattr(Forked, "__init__", _killed)
    faulty(call("compare", "--resume"))
    assert [f["error"] for f in told()["failed"]] == [KILLED]


def _killed(self, *_, **__):
    self._process = SimpleNamespace(exitcode=-signal.SIGKILL)


def test_what_a_cut_off_training_left_is_cleared_but_not_what_another_begins(empty_folder):
    for name in ("env.json", "recipe.toml"):  # written in this order
        Path("cell").mkdir(exist_ok=True)
        Path("cell", name).touch()
        with at_work_in("cell", "log"):
            processes._clear(Path("cell"))
        assert Path("cell", name).exists()
    processes._clear(Path("cell"))
    assert os.listdir("cell") == [".lock"]


# --- signals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_stop_while_cells_start_reaches_them_all_and_they_go_on_the_same(there, monkeypatch, no_nohup, number):
    whole, start, started = results_of_two(), processes.start, []

    def start_and_stop(*args):
        started.append(start(*args))
        if len(started) == 2:
            os.kill(os.getpid(), number)
        return started[-1]

    shutil.rmtree(RUN)
    with monkeypatch.context() as patched:
        patched.setattr(processes, "start", start_and_stop)
        called = call(*COMPARE, *TWO)
    assert called.code == 128 + number and len(started) == 2
    assert called.err == f"stopped; go on with: nasaug compare --resume --run {RUN}\n"
    assert all(process.poll() is not None for process in started)
    done("compare", "--resume")
    assert results() == whole


def test_ctrl_c_ends_real_processes_which_save_what_they_have(here, monkeypatch):
    """Trainings too long to finish by themselves; they have their own sessions, so the signal must be forwarded."""
    monkeypatch.setattr(processes, "subprocess", subprocess)
    sleep, there, sent = time.sleep, RUN / "cells", []

    def sleep_and_stop(seconds):
        sleep(seconds)
        logs = [path.read_text() for path in there.glob("*/log.jsonl")]
        if len(logs) == 2 and all('"epoch"' in log for log in logs) and not sent:
            sent.append(signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(processes.time, "sleep", sleep_and_stop)
        called = call(*COMPARE, "--methods", "baseline,netaug", "--seeds", "1", "--set", "epochs=20000")
    assert called.code == 130 and called.err.endswith(f"--resume --run {RUN}\n")
    for path in there.glob("*.log"):
        assert path.read_text().splitlines()[-1].startswith("stopped; go on with: python -m nasaug train --resume")
    steps = [read(path)[1]["step"] for path in there.glob("*/checkpoint.safetensors")]
    assert len(steps) == 2 and all(0 < step < 60000 for step in steps) and not written()


# --- cells that comparisons share, and reports ------------------------------------------------------------


def test_cells_in_a_folder_of_their_own_are_used_again(here, monkeypatch):
    shared = (*COMPARE, "--seeds", "1", "--cells", "cells")
    done(*shared, "--methods", "baseline")
    before = written(Path("cells"))
    assert "2 cells, 1 there already" in done(*shared, "--methods", "baseline,longer").out
    assert len(before) == 1 and before.items() < written(Path("cells")).items()
    assert not (RUN / "cells").exists() and [arm["arm"] for arm in told()["arms"]] == ["baseline"]
    for run, arms in ((RUN, ["baseline"]), (Path("runs/compare-2"), ["baseline", "longer"])):
        done("report", str(run), "--out", "page.html")
        assert [arm["arm"] for arm in json.loads(Path("page.json").read_text())["arms"]] == arms
    others = cells_of(monkeypatch, *shared, "--methods", "baseline,longer", "--set", "lr=0.02")
    assert [cell.path.parent for cell in others] == [Path("cells").resolve()] * 2
    assert not any(cell.path.exists() for cell in others)


def test_cells_of_a_version_with_other_defaults_are_not_taken_for_these(here):
    shared = (*COMPARE, "--seeds", "1", "--cells", "cells", "--methods", "baseline")
    done(*shared)
    recipe = next(Path("cells").glob("baseline-s0-*/recipe.toml"))
    recipe.write_text(recipe.read_text().replace("momentum = 0.9", "momentum = 0.8"))  # no part of a key
    said = refused(*shared, "--run", "other")
    assert "momentum (begun with 0.8, asked 0.9); remove it, or start anew" in said


def test_a_report_of_a_comparison_says_what_the_comparison_did(there):
    said = done("report", str(RUN)).out
    assert json.loads(Path("report.json").read_text()) == told() and report.table(told()) in said
    one, two = sorted(str(path.parent) for path in written())[:2]
    done("report", one, two, "runs/netaug-train-1", "--out", "few.html")
    assert sum(arm["n"] for arm in json.loads(Path("few.json").read_text())["arms"]) == 3


@pytest.mark.parametrize(
    ("args", "said"),
    [("", "report needs run folders"), ("nowhere", "nowhere is not the folder of a run"),
     ("found.json", "found.json is not the folder"), ("runs/search-1", "has no test score: no training run"),
     ("runs/netaug-train-1 runs/search-1", "no training run"),
     ("runs/netaug-train-1 --out page.pdf", "ending in .html")],
)  # fmt: skip
def test_a_report_refuses_what_is_no_finished_training(here, args, said):
    assert said in refused("report", *args.split())


# --- what is refused, beside tests/support/refusals.py -----------------------------------------------------


def test_a_teacher_of_other_classes_is_refused_before_anything_is_written(photos):
    args = (*COMPARE, "--seeds", "1", "--methods", "baseline,distill:source=")
    source = "runs/netaug-train-1"
    said = refused(*args[:-1], args[-1] + source, *photos)
    assert f"{source} has 10 classes at" in said and "3 classes at" in said
    done("train", *QUICK, *photos, "--arch", "found.json", "--method", "baseline", "--run", "abc")
    os.rename("photos/a", "photos/d")
    said = "abc was trained on the classes a, b, c, but photos has b, c, d; give a teacher that was trained on the same"
    assert said in refused(*args[:-1], args[-1] + "abc", *photos)
    tiny = ("--arch", "found.json", "--run", "r", *photos)
    assert said in refused("train", *QUICK, "--method", "distill:source=abc", *tiny)
    sizes = ("--sizes", "found.json", "--policies", "9", "--seeds", "1", "--run", "r", *photos)
    assert said in refused("sweep", *QUICK, "--methods", "distill:source=abc", *sizes)


def test_a_cell_whose_time_cannot_be_told_takes_no_other_along(there, monkeypatch):
    """As when a teacher cannot be downloaded: the cell itself will report it."""
    of_arm = trainings._arm_seconds

    def not_netaug(job, *rest):
        if job.recipe.method == "netaug":
            raise OSError("no network")
        return of_arm(job, *rest)

    monkeypatch.setattr(trainings, "_arm_seconds", not_netaug)
    shutil.rmtree(RUN)
    done(*COMPARE, "--methods", "baseline,netaug", "--seeds", "1")
    assert [(arm["arm"], arm["n"]) for arm in told()["arms"]] == [("baseline", 1), ("netaug", 1)]


def test_fresh_weights_are_what_a_net_without_a_supernet_has_anyway(here):
    args = ("compare", *QUICK, "--arch", "mobilenetv2-tiny", "--methods", "baseline,scratch", "--seeds", "1")
    assert "arms 'baseline' and 'scratch' are the same training" in refused(*args)


def test_an_arm_may_not_change_the_data(here):
    Path("fewer.toml").write_text("data.train_images = 40")
    said = refused(*COMPARE, "--methods", "baseline,fewer.toml")
    assert "arms 'baseline' and 'fewer.toml' use different data" in said


def test_cells_in_a_file_are_refused(here):
    assert "--cells found.json is not a folder" in refused(*COMPARE, "--cells", "found.json")
