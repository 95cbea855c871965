"""--help, and start-up of the command line: its speed and its messages."""

import os
import re
import shlex
import subprocess
import sys

import pytest
from cyclopts import App

from nasaug.cli import main as cli
from nasaug.core.files import bundled
from support.commands import done

VERBS = cli.VERBS
WITHOUT_RESULT = {"cell-worker", "search-worker", "watch", "completion"}


def examples_in(shown):
    """The commands in a help text, without the program's name and what follows > ."""
    paragraphs = [" ".join(text.split()) for text in re.split(r"\n *\n", shown)]  # long ones are broken
    named = (re.fullmatch(rf"(?:python -m )?nasaug ((?:{'|'.join(VERBS)})(?: .*)?)", text) for text in paragraphs)
    return [found[1].partition(" > ")[0] for found in named if found]


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_shows_examples_that_the_command_line_understands(empty_folder, verb):
    shown = done(*filter(None, [verb]), "--help").out
    examples = examples_in(shown)
    assert len(examples) >= 2 and ("Start here" in shown) == (not verb)
    assert not verb or len([example for example in examples if example.split()[0] == verb]) >= 2
    for example in examples:
        cli.app.parse_args(shlex.split(example), exit_on_error=False, print_error=False)
    assert os.listdir() == []


def test_a_verb_without_examples_would_be_found(capsys):
    def mute(*, json: bool = False):
        """Do something."""

    app = App(name="nasaug", help_format="markdown")
    app.command(mute)
    app(["mute", "--help"], exit_on_error=False, result_action="return_value")
    assert "Do something" in (shown := capsys.readouterr().out) and examples_in(shown) == []


@pytest.mark.parametrize("verb", VERBS)
def test_help_explains_every_option(verb):
    shown = done(verb, "--help").out
    options = re.findall(r"^│[ *]+(--[a-z][a-z-]*)((?: [A-Z]+)?(?:\.\.\.)?) +(\S*)", shown, re.M)
    assert len(options) >= (0 if verb == "completion" else 1)
    assert [name for name, _, said in options if said in ("", "│")] == []
    assert ("--json" in {name for name, *_ in options}) == (verb not in WITHOUT_RESULT)


def test_options_that_verbs_share_say_the_same():
    said: dict[str, list[str]] = {}
    for verb in VERBS:
        for argument in cli.app[verb].assemble_argument_collection(parse_docstring=True):
            for name in argument.names:
                said.setdefault(name, []).append(str(argument.parameter.help))
    assert [name for name in ("--recipe", "--set", "--profile") if len(set(said[name])) > 1] == []
    assert len(said["--json"]) > 12 and [text for text in said["--json"] if not text.startswith("Print ")] == []


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
