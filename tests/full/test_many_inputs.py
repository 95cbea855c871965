"""A million altered inputs, in pieces that share the processors; `fuzz.py` beside this repeats a single one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).with_name("fuzz.py")
INPUTS, PIECES = 1_000_000, 8


@pytest.mark.timeout(3600)
def test_a_million_inputs_are_taken_or_refused_in_a_line():
    inputs, finds, at_once = 0, [], os.cpu_count() or 1
    for first in range(0, PIECES, at_once):
        pieces = range(first, min(PIECES, first + at_once))
        command = [sys.executable, str(FUZZ), "--inputs", str(INPUTS), "--piece"]
        running = [
            subprocess.Popen([*command, f"{piece}/{PIECES}"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            for piece in pieces
        ]
        for process in running:
            rows = [json.loads(line) for line in process.communicate()[0].splitlines()]
            assert process.returncode == 0
            inputs += sum(row["inputs"] for row in rows)
            finds += [(row["reader"], find) for row in rows for find in row["finds"]]
    assert finds == [] and inputs >= INPUTS
