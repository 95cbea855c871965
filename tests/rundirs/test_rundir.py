import fcntl
import json
import multiprocessing
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest

from nasaug.cli.options import option
from nasaug.core import files
from nasaug.core.errors import BadInput, RunFault, written
from nasaug.rundirs import folder
from nasaug.rundirs.folder import RunDir, without_passwords


@dataclass(frozen=True)
class Settings:
    seed: int = 0
    lr: float = 0.1


pytestmark = pytest.mark.usefixtures("empty_folder")


def in_another_process(code):
    """Starts a process that runs `code` with a new run "r" in `run`; returns it once it has printed a line."""
    start = "import os\nfrom tests.rundirs.test_rundir import Settings\nfrom nasaug.rundirs.folder import RunDir\n"
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    process = subprocess.Popen(
        [sys.executable, "-c", f"{start}run = RunDir.create('train', Settings(), 'r')\n{code}"],
        env=os.environ | {"PYTHONPATH": root}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    return process


def test_runs_are_numbered_on_by_verb():
    paths = []
    for verb in ("search", "train", "search"):
        with RunDir.create(verb, Settings()) as run:
            paths.append(str(run.path))
    os.mkdir("runs/search-7")
    os.mkdir("runs/search-old")
    with RunDir.create("search", Settings()) as run:
        paths.append(str(run.path))
    assert paths == ["runs/search-1", "runs/train-1", "runs/search-2", "runs/search-8"]


def test_a_number_taken_by_a_faster_process_is_passed_over(monkeypatch):
    os.makedirs("runs/train-1")
    monkeypatch.setattr(folder.Path, "glob", lambda *_: [])  # as if train-1 had been created just after the check
    with RunDir.create("train", Settings()) as run:
        assert str(run.path) == "runs/train-2"


def test_a_new_run_holds_recipe_and_environment():
    with RunDir.create("train", Settings(seed=3), "deep/r") as run:
        assert (run.path / "recipe.toml").read_text() == "seed = 3\nlr = 0.1\n"
        environment = files.read_json(run.path / "env.json", "nasaug-env/1")
    assert environment["python"] == sys.version.split()[0]
    assert environment["versions"]["torch"][0].isdigit()
    assert environment["cores"] >= 1 and environment["command"] == shlex.join(sys.orig_argv)


def test_the_commit_is_that_of_the_checkout():
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    asked = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True)
    commit = folder.describe_environment()["commit"]
    assert (commit or "").removesuffix("-dirty") == (asked.stdout.strip() if asked.returncode == 0 else "")


def test_an_explicit_run_that_exists_is_left_alone():
    os.mkdir("r")
    with open("r/mine.txt", "w") as file:
        file.write("precious")
    with pytest.raises(BadInput, match="r exists and is not empty; give another run"):
        RunDir.create("train", Settings(), "r")
    assert os.listdir("r") == ["mine.txt"]


def test_an_empty_folder_will_do_and_a_file_will_not():
    os.mkdir("r")
    with RunDir.create("train", Settings(), "r") as run:
        assert (run.path / "recipe.toml").exists()
    with open("file", "w"):
        pass
    with pytest.raises(BadInput, match="cannot write file"):
        RunDir.create("train", Settings(), "file")
    with open("runs", "w"):
        pass
    with pytest.raises(BadInput, match="cannot write runs/train-1"):
        RunDir.create("train", Settings())


def test_a_full_disk_leaves_no_run_behind(monkeypatch):
    def full(path, _):
        raise RunFault(f"cannot write {path}: No space left on device")

    monkeypatch.setattr(folder, "write_with_names", full)
    with pytest.raises(RunFault):
        RunDir.create("train", Settings())
    assert os.listdir("runs") == []


def test_resuming_what_is_no_run_tells_the_runs_there_are():
    RunDir.create("train", Settings()).__exit__()
    with pytest.raises(BadInput, match="runs/train-2 is not a run that can be resumed; choices: runs/train-1"):
        RunDir.resume("runs/train-2")
    with pytest.raises(BadInput, match="choices: none"):
        RunDir.resume("elsewhere/train-2")


def test_resuming_with_other_settings_names_them():
    RunDir.create("train", Settings(), "r").__exit__()
    with RunDir.resume("r") as run:
        run.check_settings(Settings())
        with pytest.raises(BadInput, match=r"lr \(begun with 0.1, asked 0.2\); resume with"):
            run.check_settings(Settings(lr=0.2))


def test_two_processes_cannot_hold_one_run():
    process = in_another_process("print('ready', flush=True); input()")
    with pytest.raises(BadInput, match=f"r is in use by process {process.pid}"):
        RunDir.resume("r")
    process.communicate("\n")
    RunDir.resume("r").__exit__()


def test_one_that_only_asks_whether_a_run_is_in_use_keeps_no_other_from_it(monkeypatch):
    RunDir.create("train", Settings(), "r").__exit__()
    fork = multiprocessing.get_context("fork")
    asking = fork.Event()

    def ask():
        with open("r/.lock") as lock:
            fcntl.lockf(lock, fcntl.LOCK_SH)
            asking.set()
            time.sleep(60)

    process = fork.Process(target=ask)
    process.start()
    asking.wait()
    monkeypatch.setattr(folder.time, "sleep", lambda _: (process.kill(), process.join()))
    RunDir.hold(folder.Path("r")).__exit__()


def test_a_new_run_where_one_is_at_work_names_the_process_and_a_lock_alone_is_no_run():
    process = in_another_process("print('ready', flush=True); input()")
    with pytest.raises(BadInput, match=f"r is in use by process {process.pid}"):
        RunDir.create("train", Settings(), "r")
    process.communicate("\n")
    with pytest.raises(BadInput, match="r was interrupted before it started; remove it, or give another run"):
        RunDir.create("train", Settings(), "r")
    for name in ("env.json", "recipe.toml"):
        os.unlink(f"r/{name}")
    RunDir.create("train", Settings(), "r").__exit__()


def test_a_killed_run_can_be_resumed_though_its_workers_live_on():
    process = in_another_process(
        "import pathlib, time\n"
        "worker = os.fork()\n"
        "if worker == 0: time.sleep(60)\n"
        "pathlib.Path('worker').write_text(str(worker))\n"
        "run.log('epoch', step=5)\n"
        "run.log('epoch', step=9)\n"
        "open('r/log.jsonl', 'a').write('{\"time\": 3, \"ev')\n"
        "open(f'r/.model.{os.getpid()}.tmp', 'w').close()\n"
        "print('ready', flush=True)\n"
        "input()"
    )
    process.kill()
    process.wait()
    try:
        with RunDir.resume("r") as run:
            assert [event["step"] for event in run.read_log()] == [5, 9]
            assert sorted(os.listdir("r")) == [".lock", "env.json", "log.jsonl", "recipe.toml"]
            run.log("epoch", step=12)
            assert [event["step"] for event in run.read_log()] == [5, 9, 12]
    finally:
        os.kill(int(open("worker").read()), 9)


def test_rewinding_drops_all_from_the_first_event_past_the_place():
    with RunDir.create("search", Settings()) as run:
        run.log("begun")
        for step in (1, 2, 3):
            run.log("epoch", step=step, loss=0.5)
        run.log("trained")
        for trial in (1, 2):
            run.log("trial", trial=trial)
        run.log("searched")
        run.rewind(step=3)
        assert len(run.read_log()) == 8
        run.rewind(trial=1)
        assert [event["event"] for event in run.read_log()] == ["begun", *["epoch"] * 3, "trained", "trial"]
        run.rewind(step=1)
        assert [event["event"] for event in run.read_log()] == ["begun", "epoch"]


def test_a_figure_that_is_not_finite_is_a_fault_and_not_logged():
    with RunDir.create("train", Settings()) as run:
        with pytest.raises(RunFault, match="not finite"):
            run.log("epoch", loss=float("nan"))
        assert run.read_log() == []


def test_a_run_is_finished_when_its_result_is_there():
    with RunDir.create("train", Settings()) as run:
        assert not run.finished
        with pytest.raises(BadInput, match="result.json"):
            run.result()
        run.finish({"accuracy": 0.9})
    read = RunDir(run.path)
    assert read.finished and read.result() == {"format": "nasaug-result/1", "accuracy": 0.9}
    assert json.loads((run.path / "result.json").read_text())["accuracy"] == 0.9


def test_passwords_in_addresses_are_blotted_out():
    told = without_passwords("nasaug search --storage postgresql://me:s3cret@host/db --data a:b@c")
    assert told == "nasaug search --storage postgresql://me:***@host/db --data a:b@c"
    told = without_passwords("'postgresql://host/db?user=me&password=s3cret&x=1' mysql://host/db?PWD=s3cret")
    assert told == "'postgresql://host/db?user=me&password=***&x=1' mysql://host/db?PWD=***"


def test_rewinding_a_stage_leaves_what_came_before_it(tmp_path):
    with RunDir.create("search", Settings(), tmp_path / "r") as run:
        for stage, step in (("one", 5), ("two", 1), ("two", 2), ("two", 3)):
            run.log("epoch", stage=stage, step=step)
        run.rewind("two", step=1)
        assert [(e["stage"], e["step"]) for e in run.read_log()] == [("one", 5), ("two", 1)]
        run.rewind("one", step=4)
        assert run.read_log() == []


def test_a_run_is_held_once_within_a_process_too():
    run = RunDir.create("train", Settings(), "r")
    os.symlink("r", "link")
    for name in ("r", "link"):
        with pytest.raises(BadInput, match=f"{name} is in use by process {os.getpid()}; wait for it"):
            RunDir.hold(folder.Path(name))
    holds = "from nasaug.rundirs.folder import *; RunDir.hold(Path('r'))"
    other = subprocess.run([sys.executable, "-c", holds], capture_output=True, text=True)
    assert f"r is in use by process {os.getpid()}" in other.stderr  # the attempts above did not release it
    with run:
        pass
    for _ in range(2):
        with RunDir.resume("r"):
            pass


def test_a_folder_in_use_is_an_error_about_run():
    os.mkdir("r")
    folder.Path("r/mine.txt").touch()
    with pytest.raises(BadInput) as refused:
        folder.check_new(folder.Path("r"))
    error = refused.value
    assert (error.field, str(error.value), error.rule) == ("run", "r", "exists and is not empty")
    assert error.remedy == "give another run"
    assert written(error.line, option) == "--run r exists and is not empty; give another --run"
