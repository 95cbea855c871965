"""--help, and start-up of the command line: its speed and its messages."""

import os
import re
import shlex
import subprocess
import sys

import pytest

from nasaug.cli import main as cli
from nasaug.core.files import bundled
from support.commands import done

VERBS = (
    "search search-worker netaug-train train transfer compare sweep prune report profile export predict robust verify "
    "list runs"
).split()


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_shows_examples_that_the_command_line_understands(empty_folder, verb):
    shown = done(*filter(None, [verb]), "--help").out
    examples = re.findall(rf"^(?:python -m )?nasaug ((?:{'|'.join(VERBS)}) .*?) *$", shown, re.M)
    assert len(examples) >= 2 and any(e.startswith(verb) for e in examples)
    for example in examples:
        cli.app.parse_args(shlex.split(example), exit_on_error=False, print_error=False)
    assert os.listdir() == []


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "verify"])  # it has a run, and no option
def test_help_explains_every_option(verb):
    shown = done(verb, "--help").out
    options = re.findall(r"^│[ *]+(--[a-z][a-z-]*)((?: [A-Z]+)?(?:\.\.\.)?) +(\S*)", shown, re.M)
    assert len(options) >= (1 if verb in ("report", "list", "runs") else 4)
    assert [name for name, _, said in options if said in ("", "│")] == []


@pytest.mark.parametrize("line", ["--help", "profile --arch mobilenetv2-tiny"])
def test_what_needs_no_network_imports_nothing_heavy(line):
    command = [sys.executable, "-X", "importtime", "-m", "nasaug", *line.split()]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = set(re.findall(r"\|\s+([\w.]+)$", told.stderr, re.M))
    heavy = {"torch", "optuna", "pydantic", "numpy", "matplotlib", "thop"}
    assert "nasaug.cli.main" in imported and not heavy & {name.split(".")[0] for name in imported}


def test_bad_input_of_a_process_is_one_line_and_code_2(empty_folder):
    command = [sys.executable, "-m", "nasaug", "search", "--mac-budget", "25Q"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2 and ended.stdout == "" and os.listdir() == []
    assert re.fullmatch("nasaug: --mac-budget 25Q[^\n]*\n", ended.stderr)
    command[1:1] = ["-X", "importtime"]  # refused before torch is loaded
    assert not re.search(r"\| +torch$", subprocess.run(command, capture_output=True, text=True).stderr, re.M)


def test_every_shipped_arm_is_named_where_arms_are_asked_for(empty_folder):
    shown = done("compare", "--help").out
    arms = [path.stem for path in bundled("recipes").joinpath("arms").iterdir() if path.suffix == ".toml"]
    assert len(arms) > 20 and [arm for arm in arms if not re.search(rf"(?<![\w-]){arm}(?![\w-])", shown)] == []
