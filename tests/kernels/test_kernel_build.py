"""The kernels are compiled once and cached; without them torch's operations run."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nasaug.kernels import build
from support.kernels import WITHOUT, needs_compiler

PROGRAM = """
import sys, torch
from nasaug.kernels import build, choice
from nasaug.arch.blocks import Layer
from nasaug.kernels.fused import conv_norm_act
assert (build.library() is None) == (sys.argv[1] == "without"), build.why_not()
assert bool(build.why_not()) == (sys.argv[1] == "without")
g = torch.Generator().manual_seed(0)
x = torch.randn(4, 6, 5, 5, generator=g, requires_grad=True)
layer = Layer("it", "conv", 6, 6, 5, 5, 3, 1, 6, act="relu6")
w, one, zero = torch.randn(6, 1, 3, 3, generator=g), torch.ones(6), torch.zeros(6)
for t in (w, one, zero):
    t.requires_grad_().grad = torch.zeros_like(t)
conv_norm_act(x, layer, w, one, zero, (None, None, 0.0), 1e-5).square().sum().backward()
print([round(t.grad.abs().sum().item(), 3) for t in (x, w, one, zero)])
"""


def told_with(which, **changes):
    """Output of PROGRAM in this environment; `which` says whether it has compiled kernels."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, which], capture_output=True, text=True, env=os.environ | changes, timeout=200
    )
    assert done.stdout.startswith("["), done.stderr
    return done


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("missing", ["switched off", "no compiler"])
def test_without_them_torch_does_the_same(missing, tmp_path):
    """A training step with and without kernels, in separate processes; prints nothing, leaves nothing behind."""
    changes = {
        "switched off": {"NASAUG_KERNELS": "off"}, "no compiler": {"PATH": str(tmp_path / "bin"), "CC": ""},
    }[missing]  # fmt: skip
    empty = tmp_path / "kept"
    runs = [told_with("without", **{"NASAUG_KERNELS": str(empty)} | changes)]
    if not WITHOUT:
        runs.append(told_with("with"))
    assert [run.stderr for run in runs] == [""] * len(runs)
    assert len({run.stdout for run in runs}) == 1
    assert not empty.exists() or not any(empty.iterdir())


@needs_compiler
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"CC": "false"}, "false failed"),
        ({"CC": "{tmp}/says-why"}, "says-why failed: error: no such target"),
        ({"CC": "{tmp}/makes-nothing"}, "makes-nothing made no file"),
        ({"CC": "{tmp}/makes-text"}, "the library made by .*makes-text does not run on this machine"),
        ({"NASAUG_KERNELS": "/proc/nowhere"}, "No such file or directory: '?/proc/nowhere.*NASAUG_KERNELS=FOLDER"),
        ({"NASAUG_KERNELS": "{tmp}/file"}, "(File exists|Not a directory).*{tmp}/file.*NASAUG_KERNELS=FOLDER"),
        ({"NASAUG_KERNELS": "", "XDG_CACHE_HOME": "", "HOME": "~nobody-at-all"}, "no home folder.*NASAUG_KERNELS"),
        ({"NASAUG_MARCH": "no-such-processor"}, "no-such-processor"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_what_cannot_be_compiled_is_told_in_a_line_and_done_by_torch(changes, told, tmp_path):
    script(tmp_path / "says-why", "echo 'error: no such target' >&2; exit 1")
    script(tmp_path / "makes-nothing", "exit 0")
    made = 'while [ "$1" != -o ]; do shift; done; echo "no library" > "$2"'
    script(tmp_path / "makes-text", made)
    (tmp_path / "file").write_text("kept")
    filled = {name: value.replace("{tmp}", str(tmp_path)) for name, value in changes.items()}
    done = told_with("without", **{"NASAUG_KERNELS": str(tmp_path / "kept")} | filled)
    why = told.replace("{tmp}", str(tmp_path))
    line = f"nasaug: warning: no compiled kernels [(].*{why}.*[)]; torch's operations.*"
    assert re.fullmatch(f"{line}\n", done.stderr), done.stderr
    assert done.stdout == told_with("without", NASAUG_KERNELS="off").stdout
    assert (tmp_path / "file").read_text() == "kept"
    left = list((tmp_path / "kept").iterdir()) if (tmp_path / "kept").exists() else []
    assert left == []


@needs_compiler
def test_a_compiler_that_hangs_is_ended_with_all_that_it_began(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "HANGS_AFTER_S", 0.5)
    pid = tmp_path / "pid"
    hangs = script(tmp_path / "hangs", f"sleep 100 & echo $! > {pid}; wait")
    with pytest.raises(subprocess.TimeoutExpired):
        build._run([hangs])
    for _ in range(50):
        if not Path(f"/proc/{pid.read_text().strip()}").exists():
            break
        time.sleep(0.1)
    else:
        state = Path(f"/proc/{pid.read_text().strip()}/stat").read_text()
        assert ") Z" in state  # exited, not yet reaped by its new parent


@needs_compiler
@pytest.mark.parametrize("damage", ["cut off", "changed", "gone", "another's", "no notes", "notes cut off"])
def test_a_cached_library_that_is_damaged_is_made_anew(damage, tmp_path, monkeypatch):
    """On a copy of the cache, so that only the damaged part is compiled again."""
    source = build.library()
    notes = Path(shutil.copy(source.notes, tmp_path))
    path = Path(shutil.copy(source.functions._name, tmp_path))
    whole, compiled = path.read_bytes(), []
    monkeypatch.setenv("NASAUG_KERNELS", str(tmp_path))

    def compile_again(command, into):
        compiled.append(command)
        path.write_bytes(whole)
        into.write_bytes(source.notes.read_bytes())

    monkeypatch.setattr(build, "_compile", compile_again)
    assert build._from_cache_or_compiled(build._command()).notes == notes and not compiled
    path.unlink()  # a loaded library must not change
    path.write_bytes(whole)
    {
        "cut off": lambda: path.write_bytes(whole[:5000]), "changed": lambda: path.write_bytes(whole[:-9] + b"x" * 9),
        "gone": path.unlink, "another's": lambda: path.write_bytes(b"not a library"), "no notes": notes.unlink,
        "notes cut off": lambda: notes.write_bytes(notes.read_bytes()[:9]),
    }[damage]()  # fmt: skip
    assert build._from_cache_or_compiled(build._command()).unit == source.unit and len(compiled) == 1


@needs_compiler
def test_a_library_of_a_unit_that_the_processor_has_not_is_refused(monkeypatch):
    monkeypatch.setattr(build, "_features", lambda: frozenset({"sse2"}))
    with pytest.raises(build._Unfit, match="which this processor lacks"):
        build._load(build.library().notes)
    assert "neither AVX2" in build.unsupported()


def test_other_systems_are_left_to_torch(monkeypatch):
    monkeypatch.setattr(build.platform, "system", lambda: "Darwin")
    assert build.unsupported() in ("they are not written for Darwin", "NASAUG_KERNELS=off")
