"""Real commands, as processes, killed and stopped at random moments of their time, and resumed: the same result, bit
for bit. tests/cli/test_kills.py is the short version; docs/explanation/reliability.md has the figures.

Prints a line per command with `-s`: signals sent, and the most seconds of work that a kill cost.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from nasaug.core import tensorfile
from support.commands import QUICK, SEARCH, lay_out, timeless

EACH = ("--set", "evaluate_every=1")
FASHION = ("netaug-train", "--arch", "mobilenetv2-tiny", "--data", "fashion-mnist")
COMMANDS = {
    "search": (*SEARCH, *EACH, "--set", "epochs=30", "--trials", "30"),
    "train": ("train", *QUICK, *EACH, "--method", "baseline", "--arch", "found.json", "--set", "epochs=200"),
    "netaug-train": ("netaug-train", *QUICK, *EACH, "--arch", "found.json", "--set", "epochs=150"),
    "compare": ("compare", *QUICK, "--arch", "found.json", "--methods", "baseline,netaug", "--seeds", "2",
                "--jobs", "2", "--set", "epochs=60"),
    "sweep": ("sweep", *QUICK, "--arch", "mobilenetv2", "--sizes", "0.02M", "--policies", "0,9", "--seeds", "2",
              "--jobs", "2", "--set", "epochs=20"),
    "transfer": ("transfer", "--from", "runs/train-1", *QUICK, *EACH, "--shots", "4", "--set", "epochs=150"),
    "prune": ("prune", "--from", "runs/train-1", "--target-macs", "20k", "--steps", "3", "--set", "epochs=40"),
    "fashion-mnist": (*FASHION, "--set", "epochs=2", "--set", "train_macs=1e12", "--set", "data.train_images=20000"),
}  # fmt: skip
SIGNALS = [signal.SIGKILL] * 5 + [signal.SIGINT, signal.SIGTERM]
VARYING = {"log.jsonl", "env.json", "job.json", "study.db", ".lock"}  # times, and the study's own file
TOLD = {  # times, and paths
    "cpu_hours", "gpu_hours", "hours", "source", "path", "commands", "command", "at", "begun", "created",
    "seconds_per_image",
}


@dataclass
class Tally:
    sent: dict = field(default_factory=dict)
    anew: int = 0  # had not begun: started again
    lost: float = 0.0  # seconds between the last save, or the start of the process, and the kill, at most


def start(folder: Path, command: tuple[str, ...]) -> subprocess.Popen:
    with open(folder / "said.txt", "ab") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "nasaug", *command], cwd=folder, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
            env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True,
        )  # fmt: skip


def end(folder: Path, command: tuple[str, ...]) -> float:
    begun = time.monotonic()
    code = start(folder, command).wait(900)
    assert code == 0, (folder / "said.txt").read_text()[-2000:]
    return time.monotonic() - begun


def state_of(run: Path) -> dict:
    """What a run has found, by file: tensors, and everything in JSON but times."""
    found: dict = {}
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        if path.suffix == ".safetensors":
            tensors, state = tensorfile.read(path)
            found[name] = {key: (t.dtype, t.shape, t.numpy().tobytes()) for key, t in tensors.items()}
            found[name]["state"] = json.dumps(plain(state), sort_keys=True)
        elif path.suffix == ".json" and path.name not in VARYING:
            found[name] = json.dumps(plain(json.loads(path.read_text())), sort_keys=True)
    return found


def plain(value):
    """Without times; what a study logs has none either."""
    if isinstance(value, dict):
        return {key: plain(v) for key, v in timeless(value).items() if key not in TOLD and "seconds" not in key}
    return [plain(each) for each in value] if isinstance(value, list) else value


def check_whole(folder: Path) -> None:
    """No file that takes another's place is half written, and nothing runs on behind a killed command."""
    for path in folder.rglob("*"):
        if path.suffix == ".safetensors" and not path.name.startswith("."):
            tensorfile.read(path)
        elif path.suffix == ".json" and not path.name.startswith("."):
            json.loads(path.read_text())
    for _ in range(300):
        if not (left := running_in(folder)):
            return
        time.sleep(0.1)
    raise AssertionError(f"processes {left} run on")


def running_in(folder: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                there = Path(os.readlink(entry / "cwd"))
            except OSError:
                continue
            if there == folder or folder in there.parents:
                found.append(int(entry.name))
    return found


def lost_by(run: Path, begun: float, at: float) -> float:
    """Seconds since the run last saved, or since the killed process was started."""
    saved = [path.stat().st_mtime for path in run.rglob("*.safetensors")] if run.is_dir() else []
    return at - max([begun, *saved])


def interrupted(folder: Path, verb: str, command: tuple[str, ...], whole: float, rng: Random) -> Tally:
    """Run the command, interrupted by all SIGNALS, to its end."""
    tally, run, now = Tally(), folder / "runs" / f"{verb}-1", command
    waiting = SIGNALS.copy()
    rng.shuffle(waiting)
    while waiting:
        begun_at = time.time()
        process, moment = start(folder, now), rng.uniform(0.15, 0.9) * whole
        try:
            code = process.wait(moment)
        except subprocess.TimeoutExpired:
            number = waiting.pop()
            process.send_signal(number)
            at = time.time()
            code = process.wait(120)
            assert code in ((-number,) if number == signal.SIGKILL else (128 + number, -number)), (number, code)
            tally.sent[number.name] = tally.sent.get(number.name, 0) + 1
            tally.lost = max(tally.lost, lost_by(run, begun_at, at) if number == signal.SIGKILL else 0.0)
            check_whole(folder)
        else:
            assert code == 0, (folder / "said.txt").read_text()[-2000:]
            shutil.rmtree(run)  # ended before the signal: once more from the start
        begun = (run / "job.json").is_file() and not (run / "result.json").is_file()
        if not begun:
            tally.anew += now != command or run.exists()
            shutil.rmtree(run, ignore_errors=True)
        now = (verb, "--resume", "--run", f"runs/{verb}-1") if begun else command
    end(folder, now)
    return tally


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder in which every command but the last ran without interruption, and how long each took."""
    folder, took = tmp_path_factory.mktemp("whole"), {}
    lay_out(folder)
    for name, command in COMMANDS.items():
        if name != "fashion-mnist":
            took[name] = end(folder, command)
    return folder, took


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_random_moments_and_resumed_it_ends_the_same(whole, tmp_path, name):
    (before, took), command = whole, COMMANDS[name]
    verb = command[0]
    if name == "fashion-mnist":
        before = tmp_path / "uninterrupted"
        before.mkdir()
        seconds = end(before, command)
    else:
        seconds = took[name]
    folder = tmp_path / "interrupted"
    folder.mkdir()
    for path in before.iterdir():
        if path.name not in ("runs", "said.txt"):
            shutil.copy2(path, folder)
    needed = [] if name in ("search", "fashion-mnist") else ["search-1"]  # found.json names its weights
    needed += ["train-1"] if name in ("prune", "transfer") else []
    for each in needed:
        shutil.copytree(before / "runs" / each, folder / "runs" / each)
    tally = interrupted(folder, verb, command, seconds, Random(f"kills/{name}"))
    one, two = (state_of(at / "runs" / f"{verb}-1") for at in (folder, before))
    differing = [key for key in one.keys() | two.keys() if one.get(key) != two.get(key)]
    print(f"\n{name}: {seconds:.0f} s, {tally.sent}, started anew {tally.anew}, lost {tally.lost:.1f} s at most")
    assert differing == []
    assert any(key.endswith(".safetensors") for key in one)


@pytest.mark.timeout(900)
def test_a_latency_table_is_measured_on_after_kills(tmp_path):
    """Timings differ from run to run, so that its table is whole, and of all networks, is what can be asked for."""
    command, rng = ("latency-table", "--space", "tiny-images", "--out", "t.json", "--networks", "40"), Random(5)
    now, kills = command, 0
    while kills < 3:
        process = start(tmp_path, now)
        try:
            code = process.wait(rng.uniform(4, 12))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
        else:
            assert code == 0, (tmp_path / "said.txt").read_text()[-2000:]
            (tmp_path / "t.json").unlink()
        check_whole(tmp_path)
        begun = any(path.name != "said.txt" for path in tmp_path.iterdir())
        now = (*command, "--resume") if begun and not (tmp_path / "t.json").exists() else command
    end(tmp_path, now)
    assert json.loads((tmp_path / "t.json").read_text())["format"] == "nasaug-latency/1"


@pytest.mark.timeout(900)
def test_robust_goes_on_to_the_same_figures_after_kills(whole, tmp_path):
    folder, rng = shutil.copytree(whole[0], tmp_path / "here"), Random(6)
    command = ("robust", "--run", "runs/train-1", "--corruptions", "all", "--images", "300", "--eps", "2,8",
               "--attacked", "100", "--steps", "40", "--out")  # fmt: skip
    seconds, kills, lost = end(folder, (*command, "whole")), 0, 0.0
    while kills < 5:
        begun, process = time.time(), start(folder, (*command, "killed"))
        try:
            code = process.wait(rng.uniform(0.4, 0.95) * seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            at = time.time()
            process.wait()
            kills += 1
            saved = [path.stat().st_mtime for path in (folder / "killed").glob("*.json")]
            lost = max(lost, at - max([begun, *saved]))
        else:
            assert code == 0, (folder / "said.txt").read_text()[-2000:]
            shutil.rmtree(folder / "killed")
        check_whole(folder)
    end(folder, (*command, "killed"))
    print(f"\nrobust: {seconds:.0f} s, SIGKILL {kills}, lost {lost:.1f} s at most")
    one, two = (json.loads((folder / name / "robust.json").read_text()) for name in ("killed", "whole"))
    assert plain(one) == plain(two)
