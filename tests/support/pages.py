"""The documentation's pages: their fenced blocks, and running those as a reader would, on small data.

A `console` block is run: its lines that begin with `$ ` are commands, the others output. A block with a title is the
file of that name, which is written first. A block of commands that cannot be run has a comment above it that says why:
`<!-- not run: needs several machines -->`. SMALLER lists all that differs from what the page says."""

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from unittest import mock

from support.commands import call

ROOT = Path(__file__).resolve().parents[2]
QUICK = "--recipe quick.toml"  # tests/support/commands.py: two epochs of 48 digits, nets of a tiny space
VALUES = "--set data.train_images=0 --set data.val_images=8"

SMALLER = (  # pattern in a command, what is run instead
    (r"--set (train_macs|epochs)=\S+", ""),
    (r"--(trials|steps) \d+", r"--\1 2"),
    (r"--seeds \d+", "--seeds 1"),
    (r"^(nasaug compare)(?!.*--seeds)", r"\1 --seeds 1"),
    (r"--match compute", "--match compute --set train_macs=1e8"),
    (r"--lengths [\d,]+", "--lengths 1,2"),
    (r"--data-fraction [\d,.]+", "--data-fraction 0.5,1"),
    (r"--mac-budget \S+", "--mac-budget 100k"),
    (r"--(sram|flash)-budget \S+", r"--\1-budget 1MB"),
    (r"--sizes \S+", "--sizes 20k,40k"),
    (r"--policies \S+", "--policies 0,4"),
    (r"--target-macs \S+", "--target-macs 12k"),
    (r"--round 8", "--round 2"),
    (r"(--data (?:photos|ages|VOCdevkit)\b/?)", rf"\1 {VALUES}"),
    (r"--recipe photos\.toml", f"{QUICK} --data photos"),
    (r"^(nasaug (?:search|netaug-train|train|transfer|compare|sweep|prune)\b)(?!.*--re(?:cipe|sume))", rf"\1 {QUICK}"),
)
NOT_HERE = "pip", "make", *(() if shutil.which("cc") else ("cc",))  # sets up a machine, or is not on this one


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, title, text, the line that it begins on, and why it is not run."""

    kind: str
    title: str
    text: str
    line: int
    not_run: str

    @property
    def commands(self) -> list[str]:
        """Commands with their continued lines joined: after `$ ` in a console block, else lines that begin like one."""
        text = re.sub(r"\\\n\s*", "", self.text)
        if self.kind == "console":
            return re.findall(r"^\$ (.+)", text, re.M)
        like = r"^(?:\$ )?((?:[A-Z_]+=\S+ )*(?:nasaug|python3?|torchrun|pipx?|make|createdb|srun) .+)"
        return re.findall(like, text, re.M) if self.kind in ("", "sh", "bash") else []


_BLOCK = re.compile(
    r"(?:<!-- not run: (?P<why>[^>]+?) -->\n+)?"
    r"^[ ]*```(?P<kind>[\w-]*)(?:[ ]+title=\"(?P<title>[^\"]+)\")?[ ]*\n(?P<text>.*?)^[ ]*```[ ]*$", re.M | re.S,
)  # fmt: skip


def blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    return [
        Block(m["kind"], m["title"] or "", m["text"], text.count("\n", 0, m.start()) + 1, m["why"] or "")
        for m in _BLOCK.finditer(text)
    ]  # fmt: skip


def smaller(command: str) -> str:
    """The command that is run in place of this one."""
    for pattern, instead in SMALLER:
        command = re.sub(pattern, instead, command)
    return command


def run_page(page: Path) -> int:
    """Run the page's blocks in the working directory, in order; the number of commands run."""
    ran = 0
    for block in blocks(page):
        if block.title:
            Path(block.title).write_text(block.text, "utf-8")
        elif block.kind == "console" and not block.not_run:
            for command in block.commands:
                if command.split()[0] not in NOT_HERE:
                    _run(smaller(command), f"{page.name}, line {block.line}: {command}")
                    ran += 1
    return ran


def _run(command: str, said: str) -> None:
    words = shlex.split(command, comments=True)
    if words[0] == "nasaug" and not set("|>&") & set(command):
        called = call(*words[1:])
        assert called.code == 0, f"{said}\n{command}\n{called.out[-2000:]}{called.err[-2000:]}"
    elif words[0] == "python" and not set("|>&") & set(command):
        with mock.patch.object(sys, "argv", words[1:]), redirect_stdout(StringIO()):
            runpy.run_path(words[1], run_name="__main__")
    else:
        shell = re.sub(r"\bnasaug (?=[a-z])", f"{sys.executable} -m nasaug ", command)
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        shell = re.sub(r"^python ", f"{sys.executable} ", shell)
        shell = shell.replace("PYTHONPATH=. ", f"PYTHONPATH=.:{ROOT} ")
        done = subprocess.run(shell, shell=True, env=env, capture_output=True, text=True)
        assert done.returncode == 0, f"{said}\n{shell}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
