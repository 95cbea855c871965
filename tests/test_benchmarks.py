"""The code that the scripts in benchmarks/ share, without any training."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from nasaug.pool import processes


@pytest.fixture
def cells(empty_folder, monkeypatch):
    """benchmarks/cells.py with runs that finish at once; `cells.ran` lists their commands."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    import cells

    def end(command, **_):
        cells.ran.append(command)
        path = Path(command[command.index("--run") + 1])
        path.mkdir(exist_ok=True)
        for name in ("job.json", "result.json"):
            (path / name).write_text("{}")
        return SimpleNamespace(returncode=0, poll=lambda: 0)

    monkeypatch.setattr(cells, "ran", [], raising=False)
    monkeypatch.setattr(processes, "subprocess", SimpleNamespace(Popen=end, STDOUT=None, DEVNULL=None))
    monkeypatch.setattr(cells.os, "nice", lambda by: 0)
    return cells


@pytest.fixture
def methods(cells, monkeypatch):
    """benchmarks/methods.py; calls append the comparisons that would run to `pages`."""
    import methods

    monkeypatch.setattr(methods, "run_cells", lambda root, made, jobs: methods.pages.extend(made))
    monkeypatch.setattr(methods, "pages", [], raising=False)
    return methods


def test_a_cell_that_was_begun_with_other_options_is_refused_and_they_are_named(cells):
    def run(seeds, jobs):
        options = ("--arch", "a b", "--seeds", seeds, "--jobs", jobs, "--set", "lr=1", "--set", "epochs=2")
        return cells.run(Path("root"), [cells.Cell("c", "compare", options)])

    assert run("1", "2") == run("1", "1") == {"c": {}} and len(cells.ran) == 1
    with pytest.raises(SystemExit, match="root/c was started with --seeds 1, and now --seeds 3 is asked for; remove"):
        run("3", "2")
    Path("root/c/result.json").unlink()  # interrupted
    with pytest.raises(SystemExit, match="--seeds 1"):
        run("3", "2")
    Path("root/c/job.json").unlink()
    run("3", "2")
    assert run("3", "2") == {"c": {}} and len(cells.ran) == 2


def test_a_cell_of_which_no_options_were_noted_is_read_as_it_is(cells):
    cells.run(Path("root"), [cells.Cell("c", "train", ("--seeds", "1"))])
    Path("root/c.options").unlink()
    assert cells.run(Path("root"), [cells.Cell("c", "train", ("--seeds", "3"))]) == {"c": {}} and len(cells.ran) == 1


def test_results_name_their_data_and_no_folder_of_this_machine(cells, monkeypatch):
    monkeypatch.setattr(cells, "RESULTS", Path())
    told = {"arms": [{"data": str(Path("photos").resolve()), "top1": 50.0}, {"data": "digits"}, {"seed": 0}]}
    cells.write("page", "Title", [], told)
    kept = json.loads(Path("page.json").read_text())
    assert kept == {"arms": [{"data": "CIFAR-10 (JPEG)", "top1": 50.0}, {"data": "digits"}, {"seed": 0}]}


def drove(name, **last):
    path = Path("root/cells", name)
    path.mkdir(parents=True)
    (path / "result.json").write_text(json.dumps({"val": [{}, last]}))


def test_only_the_comparison_that_needs_it_asks_for_what_teachers_drove_to(methods, monkeypatch):
    def call(name):
        monkeypatch.setattr(sys, "argv", ["methods.py", "photos", "found.json", "--root", "root", "--only", name])
        methods.main()
        return methods.pages[-1]

    with pytest.raises(SystemExit, match="run that first"):
        call("guided_drive")
    drove("difficulty-drive-s0", magnitude=3.0)
    assert call("methods_found").name == "methods_found"
    with pytest.raises(SystemExit, match=r"no mean_magnitude in \S+drive-s0; remove them and \S+root/guided, and"):
        call("guided_drive")
    Path("root/cells/difficulty-drive-s0").rename("old")
    drove("difficulty-drive-s1", mean_magnitude=4.0)
    drove("difficulty-drive-s2", mean_magnitude=5.0)
    assert any("aug-constant:magnitude=4.50," in word for word in call("guided_drive").options)
