"""A signal to a whole process group, as `timeout` and schedulers send it: saved and reported, as after Ctrl-C."""

import contextlib
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from PIL import Image

from nasaug.core import signals
from nasaug.core.signals import Stopped, deferred_stop, raised_stop
from support.commands import QUICK, Child, call, tree, wait_for

STREAMED = (
    "train", *QUICK, "--arch", "mobilenetv2-tiny", "--resolution", "16", "--data", "photos", "--method", "baseline",
    "--set", "data.train_images=0", "--set", "epochs=400", "--set", "batch=8", "--set", "evaluate_every=1",
    "--run", "run",
)  # fmt: skip


@pytest.fixture
def streamed(laid_out):
    """Images that are not square, so that two worker processes decode them."""
    for i in range(80):
        folder = Path("photos", "ab"[i % 2])
        folder.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((20, 14), i).save(folder / f"{i}.png")
    return laid_out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("times", [1, 3])
def test_a_streamed_training_saves_before_its_decoders_go(streamed, number, times):
    child = Child(streamed, *STREAMED)
    wait_for(streamed / "run" / "log.jsonl", '"epoch"', child)
    for _ in range(times):
        with contextlib.suppress(ProcessLookupError):  # it has ended by then, on a fast machine
            child.signal_group(number)
        time.sleep(0.05)
    ended = child.end()
    # a repeated signal after the last message ends the interpreter, which a shell reports as the same exit code
    assert ended.code == 128 + number or (times > 1 and ended.code == -number), ended.err
    assert ended.err.endswith("stopped; go on with: nasaug train --resume --run run\n")
    assert "Traceback" not in ended.err and "DataLoader" not in ended.err
    assert (streamed / "run" / "checkpoint.safetensors").is_file()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_while_the_data_are_read_is_told_and_leaves_nothing(streamed, monkeypatch, no_nohup, number):
    before = tree()
    monkeypatch.setattr("nasaug.training.train.load_data", lambda *_: os.kill(os.getpid(), number))
    called = call(*STREAMED)
    assert (called.code, called.err) == (128 + number, "nasaug: stopped before there was anything to save\n")
    assert tree() == before


def test_an_echo_is_the_same_request_and_a_later_signal_ends_it_at_once(monkeypatch):
    def stopped_twice(apart: float) -> None:
        monkeypatch.setattr(signals, "SAME_WITHIN_S", 0.2)
        with raised_stop():
            try:
                with deferred_stop():
                    os.kill(os.getpid(), signal.SIGTERM)
            except Stopped:  # the context above receives the repeated signal
                time.sleep(apart)
                os.kill(os.getpid(), signal.SIGTERM)
                os._exit(7)

    for apart, code in ((0.0, 7), (0.4, 128 + signal.SIGTERM)):
        process = multiprocessing.get_context("fork").Process(target=stopped_twice, args=(apart,))
        process.start()
        process.join()
        assert process.exitcode == code


def test_decoders_die_with_a_training_that_is_killed(streamed):
    child = Child(streamed, *STREAMED)
    wait_for(streamed / "run" / "log.jsonl", '"epoch"', child)
    child.signal(signal.SIGKILL)
    begun = time.monotonic()
    assert child.end().code == -signal.SIGKILL  # once all that write to its pipe are gone, the decoders too
    assert time.monotonic() - begun < 30
