"""Cost of a process: start-up time and memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from timing import Row, alternate, made_up, ratio


def start(rounds: int) -> list[Row]:
    def run(*command: str):
        return lambda: subprocess.run([sys.executable, *command], check=True, capture_output=True)

    jobs = {
        "help": run("-m", "nasaug", "--help"), "training": run("-c", "import nasaug.cli.train"),
        "torch": run("-c", "import torch"),
    }  # fmt: skip
    times = alternate(jobs, rounds, 1)
    return [
        Row("--help over `import torch`, time", 1 / ratio(times, "torch", "help"), reach=0.4, most=True),
        Row("imports of train over `import torch`, time", ratio(times, "training", "torch"), reach=1.5, most=True),
    ]


def memory(rounds: int) -> list[Row]:
    """Increase of peak resident memory during a step: NetAug steps against their widest pass alone."""
    peaks = {kind: float(subprocess.run(
        [sys.executable, __file__, kind], check=True, capture_output=True, text=True
    ).stdout) for kind in ("widest", "base+widest", "base+widest+widest+widest")}  # fmt: skip
    least = peaks.pop("widest")
    names = ("NetAug step", "a step of four passes")
    return [
        Row(f"{name}, peak memory over its widest pass alone", peak / least, reach=1.1, most=True)
        for name, peak in zip(names, peaks.values(), strict=True)
    ]


def peak(kind: str) -> None:
    """Print the kB by which two steps of these passes raise this process's resident memory at their peak (Linux)."""
    import torch
    from speed_steps import our_step

    from nasaug.methods import NetAug, Pass

    def status(key: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(key))

    class Passes(NetAug):
        def passes(self, draw):
            return [Pass(draw.base if name == "base" else draw.space.largest) for name in kind.split("+")]

        def losses(self, step):
            x, y = step.view("train")
            for each in step.passes:
                yield "loss", step.loss(step.run(x, each.arch), y)

    torch.set_num_threads(2)
    step = our_step(Passes(ladder="factors"), made_up(256))
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak, so that the imports do not count
    before = status("VmRSS")
    step()
    step()
    print(status("VmHWM") - before)


if __name__ == "__main__":
    peak(sys.argv[1])
