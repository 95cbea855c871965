"""Imports point one way, no room imports what it must not depend on (DESIGN: the rooms), and tests mirror the rooms."""

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
PACKAGE = TESTS.parent / "nasaug"
PURE = "core config rundirs arch".split()
NETWORKS = "kernels nets int8".split()
LEARNING = "augment data tasks methods training".split()
SHARED = "pool reporting".split()
APPS = "nas pruning comparison deployment robustness".split()  # none imports another
ORDER = [*PURE, *NETWORKS, *LEARNING, *SHARED, *APPS, "cli", "__main__"]
MUST_NOT_KNOW = {
    "arch": {"rundirs"},
    "kernels": {"rundirs", "config"},
    "nets": {"rundirs", "config"},
    "int8": {"rundirs", "config"},
    "augment": {"rundirs", "arch", "nets"},
    "data": {"rundirs", "arch", "nets", "kernels", "config"},
    "tasks": {"rundirs", "nets", "kernels"},
    "methods": {"rundirs", "kernels", "data"},
    "reporting": {"nets", "kernels", "data", "methods", "tasks", "training"},
    **{app: set(APPS) - {app} for app in APPS},
}
_PAGES = ("page", "search_page", "robust_page", "pictures", "plots", "tables", "templates", "wording")  # not `drawing`
# single modules that may import less than their room
MODULES_MUST_NOT_KNOW = {
    "arch.plan": {"core.files"},
    "arch.blocks": {"core.files"},
    "arch.cost": {"core.files"},
    "nets.net": {"arch.space", "core.files"},
    "nets.layers": {"arch.space", "core.files"},
    "nets.fold": {"arch.space", "core.files"},
    "training.device": {"arch", "nets", "training.recipe"},
    "training.scoring": {"methods", "rundirs", "config"},
    "training.loop": {"rundirs", "training.recipe"},
    **{f"reporting.{name}": {"arch"} for name in _PAGES},
}
SLOW = "torch torchvision optuna scipy matplotlib pydantic rich jinja2 tomli_w".split()

modules = sorted(PACKAGE.rglob("*.py"))
tests = sorted(TESTS.rglob("test_*.py"))


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


rooms = sorted({room_of(path) for path in modules} - {"__init__"})


def name_of(path):
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


NAMES = {name_of(path): path for path in modules}


def imported(path):
    """The full names that a module imports from nasaug, at any level of its code."""
    package = path.relative_to(PACKAGE.parent).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "nasaug")
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            source = ".".join([*above, *([node.module] if node.module else [])])
            if source.split(".")[0] == "nasaug":
                yield from (f"{source}.{alias.name}" for alias in node.names)


def imported_modules(path):
    """The modules of nasaug that a module imports from, except itself."""
    named = {name if name in NAMES else name.rpartition(".")[0] for name in imported(path)}
    return named - {name_of(path), "nasaug"}


def test_the_top_holds_rooms_alone():
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}
    assert [room for room in rooms if room not in ORDER] == []


def test_the_rules_name_rooms_and_modules_that_exist():
    assert set(MUST_NOT_KNOW) <= set(rooms) and {f"nasaug.{name}" for name in MODULES_MUST_NOT_KNOW} <= set(NAMES)


def test_every_room_says_on_its_door_what_it_is():
    for room in ORDER[:-1]:
        door = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text()))
        assert door and door.endswith("."), room


@pytest.mark.parametrize("path", [path for path in modules if room_of(path) in ORDER], ids=name_of)
def test_imports_point_one_way(path):
    room, must_not = room_of(path), MODULES_MUST_NOT_KNOW.get(name_of(path).removeprefix("nasaug."), ())
    for name in imported(path):
        other = name.split(".")[1]
        if other != "__version__":
            assert ORDER.index(other) <= ORDER.index(room), f"{name_of(path)} imports {name}, which is below it"
            assert other not in MUST_NOT_KNOW.get(room, ()), f"{name_of(path)} must not know {name}"
            known = {".".join(name.split(".")[1:end]) for end in (2, 3)}
            assert not known & set(must_not), f"{name_of(path)} must not know {name}"


def test_no_two_modules_import_each_other():
    """Directly or through others, within a room or across rooms."""
    left = {name: imported_modules(path) & set(NAMES) for name, path in NAMES.items()}
    while free := [name for name, needed in left.items() if not needed & set(left)]:
        for name in free:
            del left[name]
    assert not left, f"a cycle runs through some of {sorted(left)}"


def test_no_room_has_the_name_of_a_public_function():
    """Importing a package `nasaug.search` would replace the function `nasaug.search`."""
    import nasaug

    assert not set(rooms) & set(nasaug.__all__)


def test_the_package_itself_imports_nothing_before_a_net_is_asked_for():
    """`nasaug.load` imports torch when it is called."""
    code = f"import sys, nasaug; print([m for m in sys.modules if m.startswith('nasaug.') or m in {SLOW}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("room", [*PURE, "pool", "cli"])
def test_pure_rooms_and_the_command_line_import_nothing_slow(room):
    slow = SLOW if room == "cli" else [*SLOW, "cyclopts"]
    names = [name_of(path) for path in modules if room_of(path) == room]
    if room == "cli":
        names = ["nasaug.cli.main", "nasaug.__main__"]
    code = f"import {', '.join(names)}, sys; print(*(m for m in {slow} if m in sys.modules))"
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
    # the last two list it: as a name that a net has, and for a shell to complete
    assert named <= {"nasaug.training.device", "nasaug.arch.spacefile", "nasaug.cli.names"}


def test_no_module_needs_what_windows_has_not_to_be_imported():
    names = [name_of(path) for path in modules if path.stem != "__main__"]
    code = f"""
import importlib, os, select, signal, sys
import torch, torchvision  # which look for some of it themselves
for name in ("fcntl", "resource", "termios", "pwd", "grp"):
    sys.modules[name] = None
del os.sched_getaffinity, select.poll, signal.SIGHUP
for name in {names}:
    importlib.import_module(name)
from nasaug.rundirs.folder import cores
from nasaug.training.device import open_runtime
from nasaug.core.signals import deaf_children, stop_signals
from nasaug.core.streams import mute_unheard
mute_unheard()
del signal.pthread_sigmask
with deaf_children():
    pass
print(cores() >= 1, len(stop_signals()), open_runtime("cpu").peak_memory())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "True 2 None\n", done.stderr


def test_tests_lie_in_the_room_that_they_test():
    """Exceptions: tests of the whole tree at the top; slow tests, tests of the pages and helpers in folders aside."""
    aside = {"full", "docs", "support", "__pycache__"}
    assert {path.name for path in TESTS.iterdir() if path.is_dir()} - aside <= set(rooms)
    assert [path for path in tests if path.parent.name == "support"] == []


def test_no_two_files_of_tests_have_one_name():
    """pytest could import only one of them, because the test folders are not packages."""
    assert [name for name, count in Counter(path.name for path in tests).items() if count > 1] == []


def test_tests_share_helpers_by_support_and_import_no_other_test():
    found = {path.stem for path in tests} | {"conftest", "tests"}
    for path in TESTS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or "."] if isinstance(node, ast.ImportFrom) else []
            assert not {part for name in names for part in name.split(".")} & found, (path, names)


def options_named(tree):
    """The texts, but docstrings, that name an option of the command line; whole commands may."""
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            named = re.search(r"(?:^|[\s(])(?<!var\()--[a-z][a-z-]*(?=[\s:;,.)]|$)", node.value)
            if named and node.value.strip() != named.group().strip() and "nasaug " not in node.value:
                yield node.value


@pytest.mark.parametrize("path", [path for path in modules if room_of(path) != "cli"], ids=name_of)
def test_only_the_command_line_names_options(path):
    """Others name the function's argument (`core.errors.arg`), which the command line shows as its option."""
    assert list(options_named(ast.parse(path.read_text()))) == []


def test_an_option_in_a_message_is_found():
    for text in ("f'{x} is wrong; give --run'", "'--run is wrong'", "f'leave {a} or --set out'"):
        assert list(options_named(ast.parse(f"raise E({text})")))
    assert not list(options_named(ast.parse("run('--run', 'nasaug train --profile', f'--set={x}')")))


def test_the_names_that_type_checkers_see_are_those_that_there_are():
    import nasaug

    seen = {}
    for node in ast.walk(ast.parse((PACKAGE / "__init__.py").read_text())):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for line in node.body:
                for name in line.names:
                    other = "" if name.name == name.asname else f":{name.name}"
                    seen[name.asname] = line.module + other
    assert seen == nasaug._FROM
