"""Trainings that torchrun starts in several processes: killed, started again, and resumed by another number of them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

TRAIN = ("train", "--arch", "mobilenetv2-tiny", "--data", "digits", "--set", "epochs=8", "--set", "evaluate_every=1")
RUN = ("--run", "run")


def torchrun(folder, *command, restarts=0, count=2):
    module = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count))
    return subprocess.Popen(
        [*module, "--max-restarts", str(restarts), "-m", "nasaug", "--", *command], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def workers(agent):
    """The processes of nasaug that torchrun has started, in their order."""
    return [int(p) for p in Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()]


def wait_for_epoch(log, number):
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if log.is_file() and f'"epoch": {number}' in log.read_text():
            return
        time.sleep(0.1)
    raise AssertionError(f"no epoch {number} in {log}")


def result(folder):
    return json.loads((folder / "run" / "result.json").read_text())


def test_a_killed_process_is_started_again_and_the_training_goes_on(tmp_path):
    agent = torchrun(tmp_path, *TRAIN, *RUN, restarts=1)
    wait_for_epoch(tmp_path / "run" / "log.jsonl", 3)
    os.kill(workers(agent)[-1], signal.SIGKILL)
    out, _ = agent.communicate(timeout=240)
    assert agent.returncode == 0, out
    assert "resumed train at step" in out and [row["epoch"] for row in result(tmp_path)["val"]] == list(range(1, 9))


def test_a_training_stopped_in_two_processes_goes_on_in_one(tmp_path):
    agent = torchrun(tmp_path, *TRAIN, *RUN)
    wait_for_epoch(tmp_path / "run" / "log.jsonl", 3)
    agent.send_signal(signal.SIGTERM)
    out, _ = agent.communicate(timeout=240)
    assert "--resume" in out and not (tmp_path / "run" / "result.json").exists()
    subprocess.run([sys.executable, "-m", "nasaug", "train", "--resume", *RUN], cwd=tmp_path, check=True)
    assert [row["epoch"] for row in result(tmp_path)["val"]] == list(range(1, 9))


def test_bad_input_is_told_once(tmp_path):
    agent = torchrun(tmp_path, *TRAIN, *RUN, "--set", "batch=3")
    out, _ = agent.communicate(timeout=120)
    assert agent.returncode != 0 and out.count("is too small for 2 processes") == 1
    agent = torchrun(tmp_path, "compare", "--arch", "mobilenetv2-tiny", "--data", "digits")
    out, _ = agent.communicate(timeout=120)
    assert out.count("nasaug compare is one process, but 2 were started; start it without torchrun") == 1


def test_a_search_by_two_processes(tmp_path):
    agent = torchrun(
        tmp_path, "search", "--mac-budget", "1M", "--data", "digits", "--trials", "8", "--set", "train_macs=2e9",
        "--set", "search.finalists=2", *RUN,
    )  # fmt: skip
    out, _ = agent.communicate(timeout=500)
    assert agent.returncode == 0, out
    assert json.loads((tmp_path / "run" / "env.json").read_text())["ranks"] == 2
    assert result(tmp_path)["candidates"] >= 8 and (tmp_path / "found.json").is_file()
