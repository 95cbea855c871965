"""The code that the scripts in benchmarks/ share, without any training."""

import gzip
import importlib
import io
import json
import re
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from nasaug.arch.blocks import BLOCKS
from nasaug.comparison import report
from nasaug.core.errors import BadInput
from nasaug.methods import measured
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
    monkeypatch.setattr(processes, "subprocess", SimpleNamespace(Popen=end, STDOUT=None, PIPE=None))
    monkeypatch.setattr(cells.os, "nice", lambda by: 0)
    return cells


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.py")), ids=lambda path: path.stem)
def test_every_benchmark_can_be_imported(path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    if path.stem not in sys.modules:
        monkeypatch.setitem(sys.modules, path.stem, None)  # taken out again afterwards
        del sys.modules[path.stem]
    importlib.import_module(path.stem)


def test_the_design_that_was_chosen_is_that_of_the_space(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import designs

    space = designs.load(designs.SPACE, BLOCKS)
    found = {name: designs.arch(space, design) for name, design in designs.DESIGNS.items()}
    assert [name for name, arch in found.items() if arch == space.canonical(space.named(designs.SPACE))] == ["G"]


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


def test_a_resumed_cell_keeps_the_jobs_that_are_asked_for(cells):
    cell = cells.Cell("c", "compare", ("--seeds", "1", "--jobs", "3", "--set", "lr=1"))
    cells.run(Path("root"), [cell])
    assert cells._work(Path("root"), cell).go_on() == ("compare", "--run", "root/c", "--resume", "--jobs", "3")


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


def test_what_a_supernet_puts_first_is_looked_up(macro):
    table = macro.Table.read(table_file())
    choices = [table.space.choices(macro.arch_of(table.space, code)) for code in ("00000000", "00000001")]
    rows = [{"val_loss": loss, "choices": each} for loss, each in zip((1.2, 1.1), choices, strict=True)]
    run = RunDir(Path("run"))
    run.path.mkdir()
    run.candidates_file.write_text(json.dumps({"candidates": rows}))
    figures = macro.filtered(table, run, 20_000_000)
    assert figures["first"] == figures["best"] == pytest.approx(64.223, abs=1e-3) and figures["candidates"] == 2
    assert figures["led"] == pytest.approx((64.223 + 45.363) / 2, abs=1e-3)
    assert macro.filtered(table, run, 10_000_000)["first"] == pytest.approx(45.363, abs=1e-3)


@pytest.mark.parametrize(
    ("table", "told"),
    [([1, 2], "is not NAS-Bench-Macro's table"), ({"archs": {"012": ROW}}, "codes of 8 digits 0 to 2"),
     ({"00000003": ROW}, "codes of 8 digits"), ({"00000001": ROW}, "00000001 has 387882 parameters and 7713280 MACs"),
     ({}, "is not NAS-Bench-Macro's table"), ({"archs": 7}, "must be an object with codes"),
     ({"00000000": ROW[:4]}, "its rows are three"), ({"00000000": 7}, "00000000 has 7; its rows are"),
     ({"00000000": {"params": 1}}, "its rows are"), ({"00000000": [None, *ROW[1:]]}, "its rows are"),
     ({"00000000": ["NaN", *ROW[1:]]}, "three accuracies from 0 to 100")],
)  # fmt: skip
def test_what_is_not_the_table_is_refused(macro, table, told):
    Path("t.json").write_text(json.dumps(table))
    with pytest.raises(BadInput, match=told):
        macro.Table.read(Path("t.json"))


@pytest.mark.parametrize("data", [b"", b"\x1f\x8b", gzip.compress(b'{"a": 1}')[:-9], b"\x00\xff\xfe", b"no"])
def test_a_file_that_is_no_json_is_no_table(macro, data):
    Path("t.json.gz").write_bytes(data)
    with pytest.raises(BadInput, match=r"^t.json.gz is not NAS-Bench-Macro's table: [^\n]+$"):
        macro.Table.read(Path("t.json.gz"))


@pytest.mark.parametrize(
    ("options", "told"),
    [(["none.json", "--only", "samplers"], "cannot read none.json"), (["t.json", "--only", "ranks"], "give --folder"),
     (["t.json", "--only", "samplers"], "t.json has 1 networks; give the whole table, of 3,969"),
     (["t.json", "--only", "samplers", "--seeds", "-1"], "--seeds -1: must be at least 1")],
)  # fmt: skip
def test_bad_input_to_the_table_is_one_line_and_exit_2(empty_folder, options, told):
    Path("t.json").write_text(json.dumps({"00000000": ROW}))
    command = [sys.executable, BENCHMARKS / "nas_bench_macro.py", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith(told) and done.stderr.count("\n") == 1, done.stderr


def test_correlations_are_over_all_and_just_below_each_budget(macro):
    macs = [33e6, 34e6, 44e6, 45e6, 60e6, 64e6, 10e6, 20e6]
    truth = [80.0, 81.0, 85.0, 86.0, 90.0, 91.0, 50.0, 60.0]
    rows = {"scores": [-x for x in truth], "losses": truth, "accuracy": truth, "macs": macs, "params": macs}
    found = macro.correlations(rows)
    assert [row["n"] for row in found] == [8, 2, 2, 2]
    assert found[0]["scores"]["tau"][0] == pytest.approx(-1)
    assert found[0]["macs"]["tau"][0] == pytest.approx(1) == found[0]["params"]["rho"][0]
    low, high = found[0]["macs"]["rho"][1:]
    assert low == pytest.approx(1) == high  # whatever is drawn is in order


def test_settings_are_shown_with_what_they_gave_on_the_networks_for_choosing(macro, cells, monkeypatch):
    monkeypatch.setattr(cells, "RESULTS", Path())
    macs = [33e6, 34e6, 44e6, 45e6, 60e6, 64e6]
    truth = [80.0, 81.0, 85.0, 86.0, 90.0, 91.0]
    rows = {"scores": truth, "losses": truth, "accuracy": truth, "macs": macs, "params": macs}
    Path("one-tuned.json").write_text(json.dumps(rows))
    Path("one.options").write_text("--data images\n--set lr=0.1\n--set a.b=c\n")
    macro.tuned_page(Path())
    text = Path("nas_bench_tuned.md").read_text()
    assert "| one | `--set lr=0.1 --set a.b=c` | 1.00 [1.00, 1.00] (n = 6) | 1.00 [" in text


def test_supernets_trained_in_several_ways_are_compared_by_how_they_rank(macro, cells, monkeypatch):
    monkeypatch.setattr(cells, "RESULTS", Path())
    monkeypatch.setattr(macro, "FIRST", 1)
    truth = [88.0, 89.0, 90.0, 91.0]
    rows = {"accuracy": truth, "macs": [36e6, 38e6, 42e6, 44e6]}
    macro.settings_page({"one": rows | {"losses": truth}, "other": rows | {"losses": [-x for x in truth]}})
    text = Path("nas_bench_settings.md").read_text()
    assert "| one | 1.00 [1.00, 1.00] | 1.00 | 91.00 % |" in text
    assert "| other | -1.00 [-1.00, -1.00] | -1.00 | 88.00 % |" in text
    assert "n = 4 networks, 2 of them above 90%" in text
    given = macro.settings_cells(macro.Table.read(table_file()), Path("images"), Path("runs"))
    assert "sandwich.smallest=false" in given["never the smallest net"].options
    ends = [word for word in given["samples of 0.5 to 1.2 budgets"].options if word.startswith("sandwich.")]
    assert [word.split("=")[0] for word in ends] == ["sandwich.low", "sandwich.high"]


def table_file():
    Path("t.json").write_text(json.dumps({"00000000": ROW, "00000001": SECOND}))
    return Path("t.json")


def test_what_searches_found_is_looked_up_in_the_table(macro, cells, monkeypatch):
    monkeypatch.setattr(cells, "RESULTS", Path())
    table = macro.Table.read(table_file())
    worse, best = macro.arch_of(table.space, "00000000"), macro.arch_of(table.space, "00000001")
    elsewhere = worse._replace(space="of-16-px")
    found = {seed: macro.searched(table, arch, 20_000_000) for seed, arch in enumerate((elsewhere, best))}
    assert [row["code"] for row in found.values()] == ["00000000", "00000010"]  # the canonical code of two networks
    assert (found[0]["rank"], found[0]["of"], found[1]["rank"]) == (2, 2, 1)
    assert found[0]["regret"] == pytest.approx(18.86, abs=0.01) and found[1]["regret"] == 0
    assert macro.searched(table, worse, 10_000_000)["rank"] == 1  # the other costs more than this budget
    led = {"first": 64.22, "led": 54.79, "best": 64.22, "candidates": 2}
    macro.search_page({seed: row | led for seed, row in found.items()}, 20_000_000, ("train_macs=6e12",))
    text = Path("nas_bench_search.md").read_text()
    assert "| 0 | 00000000 | 7.71M | 45.36 % | 2 | 18.86 | 64.22 % | 54.79 % | 64.22 % |" in text
    assert "--seeds 2 --set train_macs=6e12`" in text


@pytest.fixture
def ranks(cells, monkeypatch):
    import finalist_ranks

    monkeypatch.setattr(cells, "RESULTS", Path())
    return finalist_ranks


def test_supernets_are_compared_by_how_they_rank_finalists(ranks):
    from nasaug.config.layers import load
    from nasaug.training.recipe import Recipe

    told = ranks.settings(load("small", Recipe, ["sandwich.low=5e5", "zero_init_residual=false"]))
    assert told == "`zero_init_residual=false sandwich.low=500000.0`"
    assert ranks.settings(load("small", Recipe)) == "the default"
    found = [{"networks": 30, "tau": tau, "within": 0.2} for tau in (0.3, 0.5)]
    ranks.page({"now": {"settings": "the default", "supernets": found}}, 5)
    row = "| now | the default | 0.40 ± 1.27 (n = 2) | 0.20 ± 0.00 (n = 2) | 0.30, 0.50 |"
    assert row in Path("finalist_ranks.md").read_text()


def test_the_finalists_of_a_search_are_those_that_were_trained(ranks):
    run = Path("1M-search-s0")
    run.mkdir()
    listed = [{"id": "a", "choices": {"width": 8, "op": [3, 5]}}, {"id": "b", "choices": {"width": 4, "op": [3, 5]}}]
    (run / "result.json").write_text(json.dumps({"finalists": listed}))
    with pytest.raises(SystemExit, match="1M-search-s0 has no finalists that were trained"):
        ranks.finalists(run)
    state = {"format": "nasaug-finalists/4", "candidates": 2, "rounds": [{"a": [70.0, 1.2], "b": [69.0, 1.3]}]}
    (run / "finalists.json").write_text(json.dumps(state))
    assert ranks.finalists(run) == {(("op", (3, 5)), ("width", 8)): 1.2, (("op", (3, 5)), ("width", 4)): 1.3}


@pytest.mark.parametrize(
    ("words", "told"), [([".", "now=runs/x"], "has no finished search"), (["wins", "now"], "ARM=RUN")]
)
def test_what_cannot_be_ranked_is_refused(ranks, monkeypatch, words, told):
    test_the_finalists_of_a_search_are_those_that_were_trained(ranks)
    Path("wins").mkdir()
    Path("1M-search-s0").rename("wins/1M-search-s0")
    monkeypatch.setattr("sys.argv", ["finalist_ranks.py", *words])
    with pytest.raises(SystemExit, match=told):
        ranks.main()


# --- search against rivals ------------------------------------------------------------------------------------


@pytest.fixture
def wins(cells, monkeypatch, tmp_path):
    """benchmarks/search_wins.py; pages are written to the working directory. `wins.setting` is that of two seeds."""
    import search_wins

    monkeypatch.setattr(cells, "RESULTS", Path())
    monkeypatch.setattr(search_wins, "RESOLUTIONS", (20,))
    monkeypatch.setattr(search_wins, "STRIDES", search_wins.STRIDES[:2])
    setting = search_wins.Setting(str(tmp_path / "photos"), tmp_path / "root", 1_000_000, "tiny-images", seeds=2)
    setting.root.mkdir()
    monkeypatch.setattr(search_wins, "setting", setting, raising=False)
    return search_wins


def test_the_multiplier_is_the_largest_within_the_budget(wins):
    space = wins.strided((2, 1, 2, 1, 2))
    assert [rule.stride for rule in space.rules if rule.name in ("s1.b1", "s2.b1", "s3.b1")] == [2, 1, 2]
    choices = space.choices(space.named(wins.PUBLISHED)) | {"resolution": 20, "stem.stride": 1}
    multiplier, net = wins.widest(lambda m: wins.scaled(space, choices, m), 1_000_000)
    wider = wins.scaled(space, choices, multiplier + 0.001)
    assert 900_000 <= wins.cost(net).macs <= 1_000_000 < wins.cost(wider).macs
    assert all(block.spec.width % wins.DIVISOR == 0 for block in net.body)


@pytest.mark.parametrize("macs", [1000, 100_000_000_000])
def test_no_multiplier_fits_a_budget_below_the_thinnest_or_far_above_the_widest_net(wins, macs):
    space = wins.strided(wins.STRIDES[0])
    choices = space.choices(space.named(wins.PUBLISHED))
    assert wins.widest(lambda m: wins.scaled(space, choices, m), macs) is None


def test_widths_in_tuples_are_multiplied_and_their_strides_are_not(wins):
    stem = {"name": "stem", "block": "conv", "kernel": 3, "width+stride": [[8, 2], [16, 1]]}
    stages = [stem, {"name": "p", "block": "pool"}]
    space = wins.from_dict({"divisor": 4, "resolution": 16, "stage": stages}, "s", BLOCKS)
    spec = wins.scaled(space, {"stem.width+stride": (16, 1)}, 1.5).body[0].spec
    assert (spec.width, spec.stride) == (24, 1)


def test_the_default_design_is_that_named_like_its_space_at_the_budget(wins):
    space = wins.load(wins.PUBLISHED, BLOCKS)
    net = wins.default_net(space, 2_000_000)
    assert 1_800_000 <= wins.cost(net.plan).macs <= 2_000_000 and net.name.startswith("mobilenetv2-small x 0.")
    with pytest.raises(SystemExit, match=r"names no default design; add \[arch.mobilenetv2-small\]"):
        wins.default_net(replace(space, archs={}), 2_000_000)
    with pytest.raises(SystemExit, match=r"no width multiplier gives \[arch.mobilenetv2-small\]"):
        wins.default_net(space, 1000)


def finish(wins, cell, **result):
    """A finished cell, with the file of options that it was started with."""
    path = wins.setting.root / cell.name
    path.mkdir()
    RunDir(path).finish(result)
    (wins.setting.root / f"{cell.name}.options").write_text("--space tiny-images\n--set lr=0.2\n--seed 0\n")
    return RunDir(path)


def trained(val, **more):
    return {"val_top1": val, "test_top1": val - 1, "macs": 950_000, "params": 23_000, "epochs": 40, "train_macs": 1e12,
            "seconds": 600.0, **more}  # fmt: skip


def test_the_uniform_net_is_chosen_by_validation_among_the_best_of_a_shorter_training(wins, monkeypatch):
    asked, s = [], wins.setting
    names = list(wins.uniform_nets(s.macs, s.resolutions))
    first = dict(zip(names, (50.0, 40.0, 60.0, 55.0), strict=True))

    def run(root, cells, jobs):
        asked.append([cell.name for cell in cells])
        short = len(asked) == 1
        vals = [first[name] if short else -first[name] for name in names if s.screen(name, 3 if short else 12) in cells]
        return {cell.name: trained(val) for cell, val in zip(cells, vals if short else (70.0, 75.0), strict=True)}

    monkeypatch.setattr(wins, "run", run)
    monkeypatch.setattr(wins, "SCREENS", ((3, None), (12, 2)))
    wins.choose_uniform(s)
    assert asked == [[f"1M-{name}-3" for name in names], [f"1M-{names[2]}-12", f"1M-{names[3]}-12"]]
    chosen = wins.archfile.read(str(s.net("uniform", 0)))
    assert chosen.plan == wins.archfile.read(str(s.root / f"1M-{names[3]}.json")).plan


def test_a_page_says_what_is_missing_and_compares_pairs_of_one_seed(wins):
    s = wins.setting
    wins.page(s)
    text = Path("search_wins_1M.md").read_text()
    assert "No search has been run" in text
    assert "- `search`: no final training of seeds 0, 1; no net of seeds 0, 1\n" in text
    assert text.count("| not run |") == 2 * len(wins.WAYS) - 1

    for part, net in zip(("uniform", "default"), wins.uniform_nets(s.macs, s.resolutions).values(), strict=False):
        net.save(s.net(part, 0))
    space = wins.load("tiny-images", BLOCKS)
    for seed, val in ((0, 72.0), (1, 74.0)):
        run = finish(wins, s.search("search", seed), search_seconds=50.0)
        stages = (("supernet", 4e11, 90.0), ("supernet", 1e12, 200.0), ("finalist 1 of 1", 2e11, 40.0))
        for stage, macs, seconds in stages:
            run.log("epoch", stage=stage, train_macs=macs, seconds=seconds)
        wins.ArchFile(wins.plan(space, space.smallest, 10), "found", space, space.smallest).save(run.found_file)
        finish(wins, s.final("search", seed), **trained(val))
    finish(wins, s.final("uniform", 0), **trained(70.5))
    finish(wins, s.final("uniform", 1), **trained(71.5))
    finish(wins, s.final("default", 1), **trained(73.0))
    wins.page(s)
    text, kept = Path("search_wins_1M.md").read_text(), json.loads(Path("search_wins_1M.json").read_text())
    assert "| (a) best uniform net | 2 | +2.00 |" in text and "| not enough seeds |" in text
    assert "| (d) default design | 1 | +1.00 | not enough seeds |" in text
    assert "- (d) default design: no final training of seed 0\n" in text
    assert "- (b) best of random nets: no final training of seeds 0, 1; no net of seeds 0, 1\n" in text
    assert "- the choice of the uniform net: 4 of 4 nets not yet trained" in text
    (row,) = (line for line in text.splitlines() if line.startswith("| `search` |"))
    assert row.startswith("| `search` | 73.00 ± 12.71 (n = 2) | 72.00 ± ")
    assert row.endswith("| 1.2T | 4 m 10 s | 1T | 10 m |")
    assert "run with `--space tiny-images --set lr=0.2`" in text
    assert kept["differences"]["uniform"]["difference"] == 2 and "halving" not in kept["differences"]


def test_a_page_says_that_halving_in_one_round_is_no_other_rival(wins):
    for part in ("random", "halving"):
        finish(wins, wins.setting.search(part, 1), search_seconds=1.0).recipe_file.write_text("[search]\nrounds = 1\n")
    wins.page(wins.setting)
    assert "(b) and (c) are the same here" in Path("search_wins_1M.md").read_text()
    RunDir(wins.setting.root / "1M-halving-s1").recipe_file.write_text("[search]\nrounds = 4\n")
    wins.page(wins.setting)
    assert "(b) and (c) are the same here" not in Path("search_wins_1M.md").read_text()


def test_one_final_training_stands_for_two_searches_that_found_the_same_net(wins):
    s = replace(wins.setting, seeds=1)
    space = wins.load("tiny-images", BLOCKS)
    for part, arch in (("search", space.smallest), ("halving", space.smallest), ("random", space.largest)):
        run = finish(wins, s.search(part, 0), search_seconds=1.0)
        run.log("epoch", stage="finalist 1 of 1", train_macs=1e12, seconds=9.0)
        wins.ArchFile(wins.plan(space, arch, 10), "found", space, arch).save(run.found_file)
    assert s.final("halving", 0) == s.final("search", 0) != s.final("random", 0)
    assert s.final("search-weights", 0).name == "1M-final-search-weights-s0"  # not from scratch
    assert [cell.name for cell in wins.finals(s, 0, wins.PARTS)] == ["1M-final-search-s0", "1M-final-random-s0"]
    finish(wins, s.final("search", 0), **trained(72.0))
    wins.page(s)
    text = Path("search_wins_1M.md").read_text()
    assert "The same net, so one final training stands for both: (c) successive halving and `search`, seed 0." in text
    assert "| (c) successive halving | 1 | +0.00 | not enough seeds |" in text


def test_a_page_refuses_final_trainings_of_another_length(wins):
    s = wins.setting
    next(iter(wins.uniform_nets(s.macs, s.resolutions).values())).save(s.net("default", 0))
    finish(wins, s.final("default", 0), **trained(70.0, epochs=10))
    with pytest.raises(SystemExit, match="1M-final-default-s0 was trained for 10 epochs, not 40; give --epochs 10"):
        wins.page(s)


def test_an_experiment_of_fewer_ways_runs_and_names_only_them(wins, monkeypatch):
    s, ran = replace(wins.setting, data="fashion-mnist", asked=("search", "uniform")), []
    space = wins.load("tiny-images", BLOCKS)
    found = wins.ArchFile(wins.plan(space, space.smallest, 10), "found", space, space.smallest)

    def run(root, made, jobs):
        ran.append([cell.name for cell in made])
        for cell in made:
            if cell.verb == "search":
                found.save(finish(wins, cell).found_file)
        return {cell.name: trained(70.0) for cell in made}

    monkeypatch.setattr(wins, "run", run)
    monkeypatch.setattr(wins, "RESOLUTIONS", (28, 32))
    wins.carry_out(s, None)
    assert ran[0] and all(name.startswith("1M-uniform-28-") for name in ran[0])  # not larger than the images
    assert ran[2:4] == [["1M-search-s0", "1M-final-uniform-s0"], ["1M-final-search-s0"]]
    for cell in (s.search("search", 0), s.final("search", 0), s.screen("uniform", 3)):
        assert "--data fashion-mnist" in " ".join(cell.options)
    monkeypatch.setattr(wins, "searched", lambda *_: None)
    wins.page(s)
    text = Path("search_wins_1M_fashion-mnist.md").read_text()
    assert "search_wins.py fashion-mnist ROOT --budget 1M --seeds 2 --ways search,uniform`" in text
    assert "\nfashion-mnist, at most 1M MACs" in text
    assert text.count("| not run |") == 2 + 1 and "default" not in text and "halving" not in text
    wins.page(replace(s, asked=("search", *wins.WEIGHTED), name="weights"))
    text = Path("weights.md").read_text()
    assert "--ways search,search-weights,search-netaug --name weights`" in text and "uniform" not in text
    assert text.count("| `search`, NetAug from its weights | ") == 2
    monkeypatch.setattr(sys, "argv", ["search_wins.py", "images", "root", "--budget", "1M", "--ways", "search,best"])
    with pytest.raises(SystemExit, match="--ways search,best: no 'best'; give some of search, "):
        wins.main()


def test_all_parts_run_in_turn_and_a_failed_cell_does_not_hold_up_the_others(wins, cells, monkeypatch):
    s, ran = replace(wins.setting, macs=2_000_000, space=wins.PUBLISHED), []

    def run(root, made, jobs):
        ran.append([cell.name.removeprefix("2M-") for cell in made])
        for cell in made:
            if cell.verb == "search" and not s.result(cell) and not cell.name.endswith("halving-s0"):
                nets = list(wins.uniform_nets(s.macs, s.resolutions).values())
                each = 1 + [part in cell.name for part in wins.SEARCHES].index(True)  # the first is the uniform net
                nets[each].save(finish(wins, cell).found_file)
        if "halving-s0" in ran[-1]:
            raise cells.Failed("halving-s0: out of memory")
        return {cell.name: trained(70.0) for cell in made}

    monkeypatch.setattr(wins, "run", run)
    assert wins.carry_out(s, None) == ["halving-s0: out of memory"]
    assert [len(names) for names in ran[:2]] == [4, 4]
    assert ran[2] == ["search-s0", "halving-s0", "random-s0", "final-uniform-s0", "final-default-s0"]
    assert ran[3] == ["final-search-s0", "final-random-s0"]
    assert len(ran) == 6 and "final-halving-s1" in ran[5]
    wins.carry_out(s, "finals")
    wins.carry_out(s, "random")
    assert [len(names) for names in ran[6:]] == [4 + 5, 2]


def test_a_found_net_is_trained_from_each_of_the_weights_that_it_could_start_from(cells, monkeypatch, wins, tmp_path):
    import start

    options = SimpleNamespace(root=tmp_path, budget="100k", macs=6e10, seeds=2, data="fashion-mnist", common=())
    space = wins.load("tiny-images", BLOCKS)
    net = wins.ArchFile(wins.plan(space, space.smallest, 10), "tiny-images:0123456789", space, space.smallest)
    for seed in range(2):
        found = RunDir(tmp_path / f"search-s{seed}")
        found.front_folder.mkdir(parents=True)
        replace(net, supernet=found.supernet_file, weights=found.start_file).save(found.found_file)
        for way, val in zip(start.WAYS, (80, 81, 83, 70, 71, 72, 73), strict=True):
            run = RunDir(tmp_path / start.cell(*way, seed, options).name)
            run.path.mkdir()
            run.finish({"val_top1": val + seed, "test_top1": val - 1, "macs": 9e4, "epochs": 7, "train_macs": 6e10})
    named = {key: wins.archfile.read(str(tmp_path / f"{key}-s1.json")).start for key in start.STARTS}
    names = {key: str(path.relative_to(tmp_path / "search-s1")) for key, path in named.items()}
    alone = "front/0123456789.safetensors"
    assert names == {
        "scratch": "start.safetensors", "supernet": "supernet.safetensors", "alone": alone, "own": "start.safetensors",
    }  # fmt: skip
    assert "--from-scratch" in start.cell("train", "scratch", 0, options).options
    assert "--from-scratch" not in start.cell("train", "own", 0, options).options
    start.page(options)
    text = Path("start.md").read_text()
    assert "| plain | its own, placed in the supernet | 83.50 ± 6.35 (n = 2) | 82.00 ± 0.00 (n = 2) | +2.00 |" in text
    assert "| NetAug | its own, wider nets fresh | 72.50 ± 6.35 (n = 2) | 71.00 ± 0.00 (n = 2) | +1.00 |" in text
    assert "| plain | its slice of the supernet | 81.50 ± 6.35 (n = 2) | 80.00 ± 0.00 (n = 2) | - |" in text


def test_the_packaged_measurements_of_netaug_are_those_of_the_pages(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import netaug_pays

    assert measured.rows() == netaug_pays.rows()
    assert all((BENCHMARKS.parent / row["page"]).is_file() for row in measured.rows())


def test_macs_saved_at_equal_ap50_are_interpolated_along_both_fronts(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from detection_macs import front, saved

    reference = [(1e6, 40.0), (4e6, 60.0), (5e6, 55.0)]  # the last one costs more and finds less
    assert front(reference) == reference[:2]
    assert saved([(1e6, 50.0), (4e6, 70.0)], reference) == {"50.00": pytest.approx(50), "60.00": pytest.approx(50)}
    assert saved(reference, reference) == {"40.00": 0, "60.00": 0}
    assert saved([(1e6, 80.0)], reference) == {}


def test_ap50_by_network_has_both_methods_and_what_netaug_saves(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from detection_macs import compared

    nets = [("tiny", 64), ("tiny", 96)]
    of = {("tiny", 64, "baseline"): 40, ("tiny", 64, "netaug"): 50, ("tiny", 96, "baseline"): 60}
    found = {
        (*net, method): [
            {"test_ap50": of.get((*net, method), 70) + seed, "macs": 1e6 if net[1] == 64 else 4e6, "epochs": 7}
            for seed in (0, 1)
        ]
        for net in nets for method in ("baseline", "netaug")
    }  # fmt: skip
    table, levels = compared(nets, found)
    assert levels == {"50.50": pytest.approx(50), "60.50": pytest.approx(50)}
    assert table[2].startswith("| tiny, 64 px | 1.00M | 7.0 | 40.50 ± 6.35 (n = 2) | 7.0 | 50.50 ± 6.35 (n = 2) | 10")
    assert "saves at equal AP50, interpolated along both fronts: 50 % at AP50 50.50" in table[-1]


def test_finished_cells_are_kept_and_laid_out_at_another_place(cells, empty_folder, monkeypatch):
    import keep

    old, new, images = empty_folder / "old", empty_folder / "new", empty_folder / "images"
    cells.run(old, [cells.Cell("a", "train", ("--data", str(images), "--arch", str(old / "net.json")))])
    (old / "a" / "model.safetensors").write_bytes(b"weights")
    (old / "begun").mkdir()
    (old / "begun" / "job.json").write_text("{}")
    monkeypatch.setattr(sys, "argv", ["keep.py", "images", "old", "kept/old.tar.xz"])
    keep.main()
    kept = (empty_folder / "kept" / "old.tar.xz").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(kept)) as tar:
        held = {entry.name: tar.extractfile(entry).read() for entry in tar}
    assert held.keys() == {"a.options", "a/job.json", "a/result.json"}  # neither weights nor what is unfinished
    assert str(empty_folder).encode() not in b"".join(held.values())

    (new / "b").mkdir(parents=True)
    monkeypatch.setattr(sys, "argv", ["keep.py", "elsewhere", "new", "kept/old.tar.xz", "--restore"])
    keep.main()
    moved = ("--data", str(empty_folder / "elsewhere"), "--arch", str(new / "net.json"))
    ran = len(cells.ran)
    assert cells.run(new, [cells.Cell("a", "train", moved)]) == {"a": EMPTY} and len(cells.ran) == ran  # not again


def test_a_cell_that_names_another_place_of_this_machine_is_not_kept(cells, empty_folder, monkeypatch):
    import keep

    cells.run(empty_folder / "old", [cells.Cell("a", "train", ("--arch", "/elsewhere/on/net.json"))])
    monkeypatch.setattr(sys, "argv", ["keep.py", "images", "old", "old.tar.xz"])
    with pytest.raises(SystemExit, match="a.options names /elsewhere/on/net.json"):
        keep.main()
    assert not (empty_folder / "old.tar.xz").exists()


def test_transfers_classes_are_parted_by_links(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from transfer import halves

    names = [f"class{i}" for i in range(8)]
    for split in ("train", "test"):
        for name in names:
            (tmp_path / "all" / split / name).mkdir(parents=True)
    for _ in range(2):  # again when a benchmark goes on
        six, four = halves(tmp_path / "all", tmp_path / "root")
    assert sorted(p.name for p in (six / "train").iterdir()) == names[:6]
    assert sorted(p.name for p in (four / "test").iterdir()) == names[6:]
    assert (four / "test" / "class7").resolve() == tmp_path / "all" / "test" / "class7"
