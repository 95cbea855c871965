"""Runs the cells of a comparison in forks of a process that has imported everything."""

import multiprocessing
import os
import subprocess
import sys
from types import SimpleNamespace

from nasaug.cli import main as cli
from support.commands import LOADED


class Forked:
    """The part of subprocess.Popen that `compare` uses, for `python -m nasaug ARGS`, without importing torch again."""

    def __init__(self, command, *, stdout, **_):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(LOADED.split())
        self._process = context.Process(target=_run, args=(os.getcwd(), stdout.name, command[3:]))
        self._process.start()

    def poll(self):
        return self._process.exitcode

    returncode = property(poll)

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self._process.pid, number)

    def wait(self, seconds):
        self._process.join(seconds)
        assert self.poll() is not None


def _run(folder, log, args):
    os.chdir(folder)
    told = os.open(log, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(told, stream)
    sys.argv = ["nasaug", *args]
    cli.main()


FORKING = SimpleNamespace(**vars(subprocess) | {"Popen": Forked})
