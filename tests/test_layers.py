"""Imports point one way, and what a module must not know it does not import (DESIGN: the rooms)."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "nasaug"
PURE = (
    "errors streams units files schedule stats space spacefile plan around channels cost archfile recipe rundir "
    "progress stops".split()
)
NETWORKS = "kernels elastic noise net fold checkpoint models prune".split()
LEARNING = (
    "runtime data augment tasks teacher difficulty methods scoring training engine settings teaching caveats train "
    "search".split()
)
ORDER = [*PURE, *NETWORKS, *LEARNING, "apps", "cli", "__main__"]
MUST_NOT_KNOW = {
    "plan": {"files", "recipe", "rundir"},
    "cost": {"files", "recipe", "rundir"},
    "rundir": {"space", "plan", "cost"},
    "kernels": {"space", "recipe", "rundir"},
    "elastic": {"space", "recipe", "rundir", "files"},
    "net": {"space", "recipe", "rundir", "files"},
    "fold": {"space", "recipe", "rundir", "files"},
    "runtime": {"space", "plan", "recipe", "rundir", "elastic", "net"},
    "data": {"space", "plan", "recipe", "rundir", "elastic", "net"},
    "augment": {"space", "plan", "recipe", "rundir", "elastic", "net"},
    "tasks": {"recipe", "rundir", "files"},
    "methods": {"recipe", "rundir", "files", "checkpoint", "runtime", "data"},
    "scoring": {"space", "recipe", "rundir", "files", "methods"},
    "engine": {"recipe", "rundir"},
}
SLOW = "torch torchvision optuna scipy matplotlib pydantic rich tomli_w".split()

modules = sorted(PACKAGE.rglob("*.py"))


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


rooms = sorted({room_of(path) for path in modules} - {"__init__"})


def name_of(path):
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)


def imported(path):
    """The full names that a module imports from nasaug, wherever in it."""
    package = path.relative_to(PACKAGE.parent).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "nasaug")
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            source = ".".join([*above, *([node.module] if node.module else [])])
            if source.split(".")[0] == "nasaug":
                yield from (f"{source}.{alias.name}" for alias in node.names)


def test_every_room_has_its_place_in_the_order():
    assert [room for room in rooms if room not in ORDER] == []


@pytest.mark.parametrize("path", [path for path in modules if room_of(path) in ORDER], ids=name_of)
def test_imports_point_one_way(path):
    room = room_of(path)
    for name in imported(path):
        other = name.split(".")[1]
        if other in (room, "__version__"):
            continue
        assert ORDER.index(other) < ORDER.index(room), f"{name_of(path)} imports {name}, which is below it"
        assert other not in MUST_NOT_KNOW.get(room, ()), f"{name_of(path)} must not know {name}"


def test_the_package_itself_imports_nothing_before_a_net_is_asked_for():
    """`nasaug.load` does, when it is called."""
    code = f"import sys, nasaug; print([m for m in sys.modules if m.startswith('nasaug.') or m in {SLOW}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("room", [room for room in rooms if room in (*PURE, "cli", "__main__")])
def test_pure_rooms_and_the_command_line_import_nothing_slow(room):
    slow = SLOW if room in ("cli", "__main__") else [*SLOW, "cyclopts"]
    code = f"import nasaug.{room}, sys; print(*(m for m in {slow} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def code_of(path):
    """The module's code without its docstrings and comments."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value = ast.Constant(None)
    return ast.unparse(tree)


def test_cuda_is_named_in_one_place():
    named = {name_of(path) for path in modules if "cuda" in code_of(path).lower()}
    assert named <= {"nasaug.runtime", "nasaug.spacefile"}  # which lists it among names that a network has itself


def test_no_module_needs_what_windows_has_not_to_be_imported():
    names = [name_of(path).removesuffix(".__init__") for path in modules if path.stem != "__main__"]
    code = f"""
import importlib, os, select, signal, sys
import torch, torchvision  # which look for some of it themselves
for name in ("fcntl", "resource", "termios", "pwd", "grp"):
    sys.modules[name] = None
del os.sched_getaffinity, select.poll, signal.SIGHUP
for name in {names}:
    importlib.import_module(name)
from nasaug.rundir import cores
from nasaug.runtime import open_runtime
from nasaug.stops import deaf_children, stop_signals
from nasaug.streams import mute_unheard
mute_unheard()
del signal.pthread_sigmask
with deaf_children():
    pass
print(cores() >= 1, len(stop_signals()), open_runtime("cpu").peak_memory())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "True 2 None\n", done.stderr
