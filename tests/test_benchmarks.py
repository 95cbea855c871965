"""The code that the scripts in benchmarks/ share, without any training."""

import importlib
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from nasaug.comparison import report
from nasaug.pool import processes
from nasaug.rundirs.folder import RESULT_FORMAT, RunDir
from support.reports import make_run, summary_of

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
EMPTY = {"format": RESULT_FORMAT}  # a result


@pytest.fixture
def cells(empty_folder, monkeypatch):
    """benchmarks/cells.py with runs that finish at once; `cells.ran` lists their commands."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import cells

    def end(command, **_):
        cells.ran.append(command)
        path = Path(command[command.index("--run") + 1])
        path.mkdir(exist_ok=True)
        (path / "job.json").write_text("{}")
        RunDir(path).finish({})
        return SimpleNamespace(returncode=0, poll=lambda: 0)

    monkeypatch.setattr(cells, "ran", [], raising=False)
    monkeypatch.setattr(processes, "subprocess", SimpleNamespace(Popen=end, STDOUT=None, DEVNULL=None))
    monkeypatch.setattr(cells.os, "nice", lambda by: 0)
    return cells


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.py")), ids=lambda path: path.stem)
def test_every_benchmark_can_be_imported(path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    if path.stem not in sys.modules:
        monkeypatch.setitem(sys.modules, path.stem, None)  # taken out again afterwards
        del sys.modules[path.stem]
    importlib.import_module(path.stem)


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

    assert run("1", "2") == run("1", "1") == {"c": EMPTY} and len(cells.ran) == 1
    with pytest.raises(SystemExit, match="root/c was started with --seeds 1, and now --seeds 3 is asked for; remove"):
        run("3", "2")
    Path("root/c/result.json").unlink()  # interrupted
    with pytest.raises(SystemExit, match="--seeds 1"):
        run("3", "2")
    Path("root/c/job.json").unlink()
    run("3", "2")
    assert run("3", "2") == {"c": EMPTY} and len(cells.ran) == 2


def test_a_cell_of_which_no_options_were_noted_is_read_as_it_is(cells):
    cells.run(Path("root"), [cells.Cell("c", "train", ("--seeds", "1"))])
    Path("root/c.options").unlink()
    assert cells.run(Path("root"), [cells.Cell("c", "train", ("--seeds", "3"))]) == {"c": EMPTY}
    assert len(cells.ran) == 1


def test_results_name_their_data_and_no_folder_of_this_machine(cells, monkeypatch):
    monkeypatch.setattr(cells, "RESULTS", Path())
    told = {"arms": [{"data": str(Path("photos").resolve()), "top1": 50.0}, {"data": "digits"}, {"seed": 0}]}
    cells.write("page", "Title", [], told)
    kept = json.loads(Path("page.json").read_text())
    assert kept == {"arms": [{"data": "CIFAR-10 (JPEG)", "top1": 50.0}, {"data": "digits"}, {"seed": 0}]}


def drove(name, **last):
    path = Path("root/cells", name)
    path.mkdir(parents=True)
    RunDir(path).finish({"val": [{}, last]})


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


def test_the_page_of_a_comparison_has_its_table_and_its_failures(cells, methods, tmp_path, monkeypatch):
    monkeypatch.setattr(cells, "RESULTS", Path())
    run = tmp_path / "methods_tiny"
    summary = summary_of(run / "cells", baseline=70, netaug=73)
    failed = [{"arm": "gradaug", "seed": 1, "error": "out of memory"}]
    report.write(run, summary | {"failed": failed}, report.read_runs([run / "cells"]))
    c = replace(methods.comparisons("found.json", tmp_path)["methods_tiny"], against="netaug")
    methods.page("methods_tiny", c, run)
    lines = Path("methods_tiny.md").read_text().splitlines()
    (row,) = (line for line in lines if line.startswith("| netaug"))
    (plain,) = (line for line in lines if line.startswith("| baseline"))
    assert "better" in row and row.endswith("% | 3 | - |") and re.search(r"\| -\d\.\d+ \[-.*, -.*\] \|$", plain)
    assert "Failed: gradaug, seed 1: out of memory" in lines
    assert json.loads(Path("methods_tiny.json").read_text())["seeds"] == [0, 1, 2, 3, 4]


def test_the_page_of_a_sweep_has_its_table_and_the_end_of_its_trainings(cells, tmp_path, monkeypatch):
    import magnitude

    monkeypatch.setattr(cells, "RESULTS", Path())
    monkeypatch.setattr(magnitude, "RESULTS", Path())
    run, rows = RunDir(tmp_path / "sweep"), []
    for size, macs in (("small", 1e5), ("large", 1e6)):
        spread = {"mean": 70.0, "half": 0.5}
        policies = {p: {f"{split}_top1": spread for split in ("val", "test", "train")} for p in ("0", "9")}
        rows.append({"size": size, "macs": macs, "method": "baseline", "policies": policies, "best": {"policy": "9"}})
        for policy in policies:
            make_run(run.path / f"{size}-{policy}", seed=0, arm=f"baseline@{policy}")
    lines = [f"{size},baseline@{p},0,{size}-{p}" for size in ("small", "large") for p in ("0", "9")]
    run.swept_file.write_text("\n".join(["size,arm,seed,path", *lines]))
    kept = {"format": "nasaug-sweep/1", "data": "d", "data_key": "k", "curves": {}, "policies": ["0", "9"]}
    run.sweep_file.write_text(json.dumps(kept | {"rows": rows}))
    run.sweep_picture.touch()
    magnitude.page_of_sweep(run.path)
    text = Path("magnitude_sweep.md").read_text()
    assert "| 100k | 70.00 ± 0.50 | **70.00 ± 0.50** | 9: 70.00 ± 0.50 % |" in text
    assert "| 1M | 71.0 (70.0) | 71.0 (70.0) |" in text  # make_run's last epoch
    assert magnitude.largest(run.path) == {0: str(run.path / "large-9")}


# --- the published table of networks --------------------------------------------------------------------------


@pytest.fixture
def macro(cells):
    import nas_bench_macro

    return nas_bench_macro


ROW = [45.32, 45.33, 45.44, 387_882, 7_713_280]  # NAS-Bench-Macro's 00000000 (Su et al., CVPR 2021; Apache-2.0)
SECOND = [64.34, 64.21, 64.12, 791_594, 14_115_328]


def test_a_table_of_networks_is_read_in_both_forms(macro):
    published = {"test_acc_1": 45.32, "test_acc_2": 45.33, "test_acc_3": 45.44, "params": 387_882, "flops": 7_713_280}
    Path("a.json").write_text(json.dumps({"00000000": published}))
    Path("b.json").write_text(json.dumps({"archs": {"00000000": ROW, "00000001": SECOND, "00000010": SECOND}}))
    one, two = (macro.Table.read(Path(name)) for name in ("a.json", "b.json"))
    arch = macro.arch_of(one.space, "00000000")
    assert one.rows[arch] == two.rows[arch] and len(one.rows) == 1 and len(two.rows) == 2
    assert two.best(10e6) == pytest.approx(45.363, abs=1e-3) and two.best(20e6) == pytest.approx(64.223, abs=1e-3)


@pytest.mark.parametrize(
    ("table", "told"),
    [([1, 2], "is not NAS-Bench-Macro's table"), ({"archs": {"012": ROW}}, "codes of 8 digits 0 to 2"),
     ({"00000003": ROW}, "codes of 8 digits"), ({"00000001": ROW}, "00000001 has 387882 parameters and 7713280 MACs"),
     ({}, "is not NAS-Bench-Macro's table")],
)  # fmt: skip
def test_what_is_not_the_table_is_refused(macro, table, told):
    Path("t.json").write_text(json.dumps(table))
    with pytest.raises(SystemExit, match=told):
        macro.Table.read(Path("t.json"))


def test_correlations_are_over_all_and_just_below_each_budget(macro):
    macs = [33e6, 34e6, 44e6, 45e6, 60e6, 64e6, 10e6, 20e6]
    truth = [80.0, 81.0, 85.0, 86.0, 90.0, 91.0, 50.0, 60.0]
    rows = {"scores": [-x for x in truth], "losses": truth, "accuracy": truth, "macs": macs, "params": macs}
    found = macro.correlations(rows)
    assert [row["n"] for row in found] == [8, 2, 2, 2]
    assert found[0]["scores"]["tau"][0] == pytest.approx(-1)
    assert found[0]["macs"]["tau"][0] == pytest.approx(1) == found[0]["params"]["rho"]
