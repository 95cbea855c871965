"""An installed package has no checkout: its data files must be in the wheel and be found there."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("search_spaces", "recipes")


def shipped_files():
    return {str(path.relative_to(ROOT)) for folder in FOLDERS for path in (ROOT / folder).rglob("*.toml")}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the sdist and the wheel."""
    folder = tmp_path_factory.mktemp("built")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", folder], cwd=ROOT, check=True)
    return folder


def test_an_installed_wheel_finds_its_spaces_and_recipes(built, tmp_path):
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import nasaug; from nasaug.core.files import bundled, read_toml\n"
        "print(nasaug.__file__)\n"
        "for kind in ('search_spaces', 'recipes'):\n"
        "    for path in bundled(kind).rglob('*.toml'):\n"
        "        read_toml(path); print(kind + '/' + path.relative_to(bundled(kind)).as_posix())"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, tmp_path], cwd="/", check=True, capture_output=True, text=True
    )
    package, *found = done.stdout.splitlines()
    assert Path(package).is_relative_to(tmp_path)
    assert set(found) == shipped_files() != set()


def test_a_wheel_has_the_source_of_the_compiled_kernels(built):
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        assert {"nasaug/kernels/csrc/block.c", "nasaug/kernels/csrc/vec.h"} <= set(wheel.namelist())


def test_a_wheel_has_the_page_of_a_report(built):
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        pages = "page.html.j2", "search_page.html.j2", "macros.html.j2", "page.css"
        assert {f"nasaug/reporting/{name}" for name in pages} <= set(wheel.namelist())


def test_a_wheel_has_the_licence_and_names_it(built):
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        inside = {name.partition(".dist-info/")[2]: wheel.read(name) for name in wheel.namelist()}
    assert inside["licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
    assert b"\nLicense-Expression: Apache-2.0\nLicense-File: LICENSE\n" in inside["METADATA"]


def test_a_wheel_has_no_folder_of_its_own_beside_the_package(built):
    """A top-level `recipes` in site-packages could clash with any other package."""
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        tops = {name.split("/")[0] for name in wheel.namelist()}
    assert all(top == "nasaug" or top.endswith(".dist-info") for top in tops)


def test_the_sdist_has_them_where_the_checkout_has(built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        names = {name.split("/", 1)[1] for name in sdist.getnames() if "/" in name}
    beside = {"pyproject.toml", "LICENSE", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "mkdocs.yml"}
    assert shipped_files() | {"nasaug/__init__.py", *beside} <= names
