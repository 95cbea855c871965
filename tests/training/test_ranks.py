"""Several processes that train one net together, against one that trains it alone."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nasaug.core.errors import BadInput
from nasaug.training.ranks import Ranks

WORKER = Path(__file__).parents[1] / "support" / "together.py"


def started(count):
    """What each of `count` processes saw, by rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    processes = [
        subprocess.Popen(
            [sys.executable, str(WORKER)], env=os.environ | shared | {"RANK": str(rank)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for rank in range(count)
    ]  # fmt: skip
    ended = [process.communicate() for process in processes]
    # outputs too: a rank that aborts seldom says whether it had ended its work
    assert [process.returncode for process in processes] == [0] * count, ended
    return [json.loads(out.splitlines()[-1]) for out, _ in ended]


@pytest.fixture(scope="module")
def two():
    return started(2)


@pytest.fixture(scope="module")
def alone():
    return started(1)[0]


def test_all_ranks_end_with_the_same_net_and_have_seen_the_same(two):
    first, second = two
    assert (first.pop("rank"), second.pop("rank")) == (0, 1) and first["count"] == 2
    assert first == second


def test_together_they_train_as_much_as_one_alone(two, alone):
    for key in ("macs", "steps"):
        assert two[0][key] == alone[key]
    assert [row["step"] for row in two[0]["history"]] == [row["step"] for row in alone["history"]]
    assert two[0]["weights"] != alone["weights"]  # the second rank's views and norms are its own


def test_an_evaluation_counts_every_image_once_and_calibrates_with_all(two, alone):
    assert two[0]["images"] == alone["images"] and len(alone["images"]) > 0
    assert two[0]["judged"] == pytest.approx(alone["judged"], rel=1e-5)
    assert two[0]["statistics"] == pytest.approx(alone["statistics"], rel=1e-4, abs=1e-5)


def test_a_signal_to_one_stops_all_after_the_same_step(two, alone):
    assert [each["stopped"] for each in two] == [[3, 15], [3, 15]] and alone["stopped"] == [3, 15]


def test_nothing_holds_the_group_whose_threads_would_abort_the_process_at_its_end(two):
    assert [each["held"] for each in two] == [False, False]


def test_a_batch_that_cannot_be_shared_is_refused():
    Ranks(0, 8).check_batch(16)
    with pytest.raises(BadInput, match="batch = 15 is too small for 8 processes: give at least 16"):
        Ranks(0, 8).check_batch(15)


def test_shares_are_disjoint_and_complete():
    items = list(range(7))
    shares = [Ranks(rank, 3).share(items) for rank in range(3)]
    assert sorted(sum(shares, [])) == items and [len(share) for share in shares] == [3, 2, 2]
    assert Ranks().share(items) is items
