"""`make demo`: the main job on Fashion-MNIST at 1M MACs with reduced compute, and a small table.

Searches, then trains the found subnet plainly and with NetAug, both from its weights of the search and for the
same number of epochs. Finished steps are not repeated; interrupted ones resume.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from nasaug.core.signals import Stopped, deferred_stop
from nasaug.rundirs.folder import RunDir

ROOT = Path("runs/demo")
SEARCH = ROOT / "search"
QUICK = ("--set", "train_macs=6e11", "--trials", "60")
EPOCHS = ("--set", "epochs=3")


def nasaug(run: Path, verb: str, *options: str) -> dict:
    """The run's result: starts the run, resumes it, or reads it if finished."""
    there = RunDir(run)
    if not there.finished:
        more = ("--resume",) if there.recipe_file.is_file() else options
        process = subprocess.Popen([sys.executable, "-m", "nasaug", verb, "--run", str(run), *more])
        with deferred_stop() as pending:
            while process.poll() is None:
                time.sleep(0.2)
                if pending.signum is not None:  # the command saves its state, and says how to go on with it
                    process.send_signal(pending.signum)
                    process.wait()
        if process.returncode:
            sys.exit(process.returncode)
    return there.result()


def main() -> None:
    begun = time.monotonic()
    search = nasaug(SEARCH, "search", "--mac-budget", "1M", *QUICK)
    arch = ("--arch", str(SEARCH / "found.json"))
    arms = {m: nasaug(ROOT / m, "train", "--method", m, *arch, *EPOCHS) for m in ("baseline", "netaug")}
    print(f"\n{'found arch':34s}{'MACs':>10s}{'params':>10s}{'trained':>10s}{'test top-1':>12s}{'seconds':>9s}")
    for method, r in arms.items():
        net = f"{search['found']:34s}{r['macs']:>10,}{r['params']:>10,}"
        print(f"{net}{method:>10s}{r['test_top1']:>10.2f} %{r['seconds']:>9.0f}")
    print(f"one seed and {arms['netaug']['epochs']} epochs: a demonstration, not a comparison")
    print(f"results in {ROOT}/ (pareto.png in {SEARCH}); took {(time.monotonic() - begun) / 60:.1f} minutes")


if __name__ == "__main__":
    try:
        main()
    except Stopped as stop:
        sys.exit(128 + stop.signum)
