"""The pool of processes."""

import subprocess

from nasaug.pool import processes
from nasaug.pool.processes import Queue, Watch, _Pool, _Running


class Stubborn:
    """A process that only ends when it is killed."""

    def __init__(self):
        self.calls = []

    def send_signal(self, number):
        self.calls.append("asked")

    def kill(self):
        self.calls.append("killed")

    def wait(self, timeout=None):
        if "killed" not in self.calls:
            raise subprocess.TimeoutExpired("it", timeout)
        self.calls.append("gone")


def test_a_process_that_must_be_killed_is_waited_for(monkeypatch):
    monkeypatch.setattr(processes, "KILL_AFTER_S", 0.0)
    pool, process = _Pool(Queue([]), 1, {}, Watch()), Stubborn()
    pool.running.append(_Running(None, process, 0.0, 0))
    pool.stop()
    assert process.calls == ["asked", "killed", "gone"]
