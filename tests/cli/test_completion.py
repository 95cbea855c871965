"""What a shell completes, asked of a real bash, and the names that it offers."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nasaug.cli import names
from nasaug.cli.names import SHELLS
from nasaug.deployment.formats import MAKE
from nasaug.kernels.choice import KINDS as _  # noqa: F401  loads torch once
from nasaug.training.device import DEVICES
from nasaug.training.recipe import OBJECTIVES
from support.commands import call, done, refused

ASK = """
source ./script
complete_it() {
    COMP_WORDS=("$@"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}; COMPREPLY=()
    asked=$(complete -p nasaug | sed 's/.*-F \\([^ ]*\\).*/\\1/')
    $asked nasaug "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
    echo "${COMPREPLY[@]}"
}
while IFS= read -r line; do complete_it $line; done
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash on this machine")
def test_bash_completes_verbs_options_and_names(empty_folder):
    Path("bin").mkdir()
    Path("bin/nasaug").write_text(f'#!/bin/sh\nexec {sys.executable} -m nasaug "$@"\n')
    Path("bin/nasaug").chmod(0o755)
    Path("mine.toml").touch()
    Path("mine.json").touch()
    Path("script").write_text(done("completion", "bash").out)
    asked = {
        "nasaug sear": "search search-worker", "nasaug search --mac": "--mac-budget",
        "nasaug search --space tin": "tiny-images", "nasaug search --space mi": "mine.toml",
        "nasaug train --method netaug+mixu": "netaug+mixup", "nasaug compare --methods baseline,net": "netaug",
        "nasaug profile --arch mobilenetv3-w": "mobilenetv3-w0.35", "nasaug train --arch mi": "mine.json",
        "nasaug train --data fas": "fashion-mnist", "nasaug list rec": "recipes",
    }  # fmt: skip
    ended = subprocess.run(
        ["bash", "-c", "PATH=$PWD/bin:$PATH\n" + ASK], input="\n".join(asked) + "\n", capture_output=True, text=True
    )
    answers = dict(zip(asked, ended.stdout.splitlines(), strict=True))
    assert [(line, answers[line]) for line, wanted in asked.items() if not answers[line].endswith(wanted)] == []


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_has_a_script_that_names_verbs_and_options(shell):
    script = done("completion", shell).out
    assert all(word in script for word in ("latency-table", "mac-budget", "no-browser"))


def test_another_shell_is_refused(empty_folder):
    assert "unknown shell 'tcsh'" in refused("completion", "tcsh")


def test_names_that_complete_are_those_that_are_accepted():
    assert names.DEVICES == DEVICES and set(names.FORMATS) == set(MAKE) and set(names.OBJECTIVES) == set(OBJECTIVES)
    for line in (
        "search --mac-budget 1M --data digits --strategy", "search --mac-budget 1M --data digits --sampler",
        "search --mac-budget 1M --data digits --pick", "compare --arch mcunet --data digits --match",
        "sweep --data digits --pruner", "latency-table --space tiny-images --out x.json --backend",
        "list", "completion",
        "train --method baseline --arch mobilenetv2-tiny --data digits --device",
    ):  # fmt: skip
        said = call(*line.split(), "nonesuch").err
        kind = line.split()[-1].removeprefix("--")
        offered = {
            "strategy": names.STRATEGIES, "sampler": names.SAMPLERS, "pick": names.PICKS, "match": names.MATCHES,
            "pruner": names.PRUNERS, "backend": names.BACKENDS, "list": names.KINDS, "completion": names.SHELLS,
            "device": names.DEVICES,
        }[kind]  # fmt: skip
        assert [name for name in offered if name not in said] == [], said
