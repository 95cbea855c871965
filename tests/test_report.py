"""Reports on made-up run folders, and their page as a browser shows it."""

import csv
import html
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import markupsafe
import numpy as np
import pytest
from safetensors.numpy import save_file

from nasaug.comparison import report
from nasaug.core.errors import BadInput
from nasaug.reporting import page, wording

IMAGES, SEEDS = 2000, range(5)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def make_run(folder, top1=70.0, *, seed=0, arm="baseline", images=IMAGES, correct=True, **changed):
    """A finished run as `train` leaves it, whose test top-1 is the nearest that `images` allow."""
    folder.mkdir(parents=True)
    order = np.random.default_rng(0).permutation(images)  # a better run is right on all that a worse one is, and more
    right = np.zeros(images, np.uint8)
    right[order[: round(top1 * images / 100)]] = 1
    rows = [
        {"epoch": e, "step": 10 * e, "val_top1": top1 - 9 / e, "train_top1": top1 + 5 - 12 / e, "train_macs": e * 1e9,
         "seconds": 9.0 * e, "loss_base": 2 / e, "note": "x"}
        for e in (1, 2, 3)
    ]  # fmt: skip
    result = {
        "format": "nasaug-result/1", "method": "baseline", "arch": "tiny-net", "data": "fashion-mnist",
        "data_key": "0123456789abcdef", "seed": seed, "macs": 23_500_000, "params": 750_000, "val_top1": top1 + 1,
        "val": rows, "test_top1": 100 * right.mean(), "test_images": images, "epochs": 3, "train_macs": 3e12,
        "seconds": 1800.0, "device": "CPU, 2 threads", "arm": arm, "train_top1": top1 + 4, "peak_memory": 300 * 2**20,
    }  # fmt: skip
    result = {key: value for key, value in (result | changed).items() if value is not ...}
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "env.json").write_text(json.dumps({"format": "nasaug-env/1", "command": f"nasaug train --seed {seed}"}))
    if correct:
        save_file({"correct": right}, folder / "test.safetensors")
    return folder


def make_comparison(folder, seeds=SEEDS, **arms):
    """Runs of arms whose top-1 is given, a little different by seed; their folders."""
    noise = np.random.default_rng(1).normal(0, 0.3, (len(arms), 99))
    return [
        make_run(folder / f"{name}-{seed}", top1 + seed / 4 + noise[i, seed], seed=seed, arm=name.replace("_", "+"))
        for i, (name, top1) in enumerate(arms.items()) for seed in seeds
    ]  # fmt: skip


def summary_of(folder, seeds=SEEDS, **arms):
    return report.summarise(report.read_runs(make_comparison(folder, seeds, **arms)))


def versus(summary):
    return {arm["arm"]: arm["versus"] for arm in summary["arms"]}


# --- reading ---


def test_what_a_run_holds(tmp_path):
    (run,) = report.read_runs([make_run(tmp_path / "a", 71.5, seed=3)])
    assert (run.arm, run.seed, run.test_score, run.macs) == ("baseline", 3, 71.5, 23_500_000)
    assert run.on_cpu and run.command == "nasaug train --seed 3" and [row["epoch"] for row in run.history] == [1, 2, 3]
    assert run.judged().sum() == 1430


def test_what_older_runs_do_not_hold(tmp_path):
    folder = make_run(tmp_path / "a", arm=..., train_top1=..., peak_memory=..., val=..., method="netaug", correct=False)
    (folder / "env.json").unlink()
    runs = report.read_runs([folder])
    assert (runs[0].arm, runs[0].train_score, runs[0].judged(), runs[0].history) == ("netaug", None, None, ())
    summary = report.summarise(runs)
    assert summary["arms"][0]["train_top1"] is summary["arms"][0]["peak_memory"] is None and summary["commands"] == []
    assert "train_top1" not in page.page(summary, runs)


def test_a_folder_of_runs_stands_for_the_finished_ones_below(tmp_path):
    make_comparison(tmp_path / "cells", range(2), a=70, b=71)
    (tmp_path / "cells" / "b-7").mkdir()
    (tmp_path / "cells" / "b-7" / "recipe.toml").write_text("seed = 7")
    (tmp_path / "search-1").mkdir()
    (tmp_path / "search-1" / "result.json").write_text('{"format": "nasaug-result/1", "found": "x"}')
    runs = report.read_runs([tmp_path, tmp_path / "cells" / "a-0"])  # named twice, read once
    assert [run.path.name for run in runs] == ["a-0", "a-1", "b-0", "b-1"]


@pytest.mark.parametrize(
    "prepare, said",
    [
        (lambda folder: None, "r is not the folder of a run"),
        (lambda folder: folder.mkdir(), "r holds no finished training run"),
        (lambda folder: (folder.mkdir(), (folder / "recipe.toml").touch()), "r is not finished .* --resume"),
        (lambda folder: make_run(folder, test_top1=...), "no test score: no training run"),
        (lambda folder: make_run(folder, macs=...), "macs is None"),
        (lambda folder: make_run(folder, seed=True), "seed is True"),
        (lambda folder: make_run(folder, seconds=float("nan")), "seconds is nan"),
        (lambda folder: make_run(folder, data_key=7), "data_key is 7"),
        (lambda folder: make_run(folder, peak_memory="much"), "peak_memory is 'much'"),
    ],
)
def test_paths_that_hold_no_finished_run(tmp_path, prepare, said):
    prepare(tmp_path / "r")
    with pytest.raises(BadInput, match=said):
        report.read_runs([tmp_path / "r"])


def test_the_same_arm_and_seed_twice_is_refused(tmp_path):
    runs = report.read_runs([make_run(tmp_path / name, seed=4) for name in "ab"])
    with pytest.raises(BadInput, match="a and .*b are both baseline with seed 4"):
        report.summarise(runs)


def test_an_arm_on_several_networks_is_an_arm_for_each(tmp_path):
    paths = [make_run(tmp_path / name, arch=name) for name in ("small", "large")]
    assert [run.arm for run in report.read_runs(paths)] == ["baseline, small", "baseline, large"]


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"data_key": "f" * 16, "data": "cifar10"}, r"a and .*b .*fashion-mnist \(0123456789abcdef\) and cifar10"),
        ({"images": 1000}, "a and .*b .*tested on 2000 and 1000 images"),
    ],
)
def test_runs_that_cannot_be_compared(tmp_path, changed, said):
    runs = report.read_runs([make_run(tmp_path / "a"), make_run(tmp_path / "b", arm="netaug", **changed)])
    with pytest.raises(BadInput, match=said):
        report.summarise(runs)
    with pytest.raises(BadInput, match="no finished run"):
        report.summarise([])


@pytest.mark.parametrize("broken", ["other", "short", "wrong", "torn"])
def test_per_image_results_that_are_not_of_the_run(tmp_path, broken):
    folder = make_run(tmp_path / "a", correct=False)
    right = np.ones(3 if broken == "short" else IMAGES, np.uint8)  # all of them, not the 70 % of the result
    save_file({"other" if broken == "other" else "correct": right}, folder / "test.safetensors")
    if broken == "torn":
        (folder / "test.safetensors").write_bytes(b"\xff" * 20)
    (run,) = report.read_runs([folder])
    with pytest.raises(BadInput, match="test.safetensors"):
        run.judged()


# --- figures ---


def test_figures_of_an_arm(tmp_path):
    top1 = [70, 71, 72]
    paths = [make_run(tmp_path / str(i), t, seed=i, seconds=3600 * (i + 1)) for i, t in enumerate(top1)]
    (arm,) = report.summarise(report.read_runs(paths))["arms"]
    assert arm["n"] == 3 and arm["seeds"] == [0, 1, 2] and arm["versus"] is None
    assert arm["test_top1"]["mean"] == pytest.approx(71)
    assert arm["test_top1"]["half"] == pytest.approx(4.302653 / 3**0.5, rel=1e-5)  # t table: 2 degrees, 95 %
    assert arm["val_top1"]["mean"] == pytest.approx(72) and arm["train_top1"]["mean"] == pytest.approx(75)
    assert arm["seconds"] == 7200 and arm["train_macs"] == 3e12
    assert arm["cost"] == {"runs": 3, "cpu_hours": 6, "gpu_hours": 0, "hours": 6, "train_macs": 9e12}


def test_better_worse_and_no_difference(tmp_path):
    found = versus(summary_of(tmp_path, baseline=70, up=73, down=67, same=70))
    assert {arm: v and v["verdict"] for arm, v in found.items()} == {
        "baseline": None, "up": "better", "down": "worse", "same": "no difference shown",
    }  # fmt: skip
    for v in (found["up"], found["down"], found["same"]):
        assert v["low"] < v["difference"] < v["high"] and (v["p"] < v["p_holm"] or v["p_holm"] in (v["p"], 1))


def test_under_five_seeds_there_is_no_verdict(tmp_path):
    found = versus(summary_of(tmp_path, range(4), baseline=50, up=90))
    assert found["up"]["p_holm"] < 0.001 and found["up"]["verdict"] == "not enough seeds"
    assert wording.p_value(found["up"]) == "-"


def test_more_comparisons_widen_the_intervals(tmp_path):
    one = summary_of(tmp_path / "1", baseline=70, up=70.6)
    many = summary_of(tmp_path / "2", baseline=70, up=70.6, b=70, c=70, d=70)
    assert (one["comparisons"], many["comparisons"]) == (1, 4)
    one, many = versus(one)["up"], versus(many)["up"]
    assert many["p"] == one["p"] == one["p_holm"] < many["p_holm"]
    assert many["high"] - many["low"] > 1.3 * (one["high"] - one["low"])


def test_only_seeds_in_common_are_compared(tmp_path):
    runs = report.read_runs([*make_comparison(tmp_path / "a", range(6), base=70),
                             *make_comparison(tmp_path / "b", range(2, 9), other=71),
                             make_run(tmp_path / "c", seed=99, arm="alone")])  # fmt: skip
    summary = report.summarise(runs)
    found = versus(summary)
    assert summary["reference"] == "base" and summary["seeds"] == [*range(9), 99]
    assert found["other"]["seeds"] == [2, 3, 4, 5] == [b["seed"] for b in found["other"]["bootstrap"]]
    top1 = {(run.arm, run.seed): run.test_score for run in runs}
    by_hand = np.mean([top1["other", seed] - top1["base", seed] for seed in (2, 3, 4, 5)])
    assert found["other"]["difference"] == pytest.approx(by_hand) and found["other"]["verdict"] == "not enough seeds"
    assert found["alone"]["n"] == 0 and found["alone"]["difference"] is None and summary["comparisons"] == 1
    assert "alone" in wording.table(summary) and "alone" in page.page(summary, runs)


def test_the_reference(tmp_path):
    runs = report.read_runs(make_comparison(tmp_path, range(2), a=70, baseline=70, b=71))
    assert report.summarise(runs)["reference"] == "baseline"
    assert report.summarise(runs[:2])["reference"] == "a"
    assert report.summarise(runs, "b")["arms"][0]["versus"]["difference"] < 0
    with pytest.raises(BadInput, match="unknown reference arm 'basline'; did you mean baseline"):
        report.summarise(runs, "basline")


def test_the_bootstrap_of_each_seed(tmp_path):
    paths = [make_run(tmp_path / "a", 70), make_run(tmp_path / "b", 73, arm="up"),
             make_run(tmp_path / "c", 73, arm="unkept", correct=False)]  # fmt: skip
    found = versus(report.summarise(report.read_runs(paths)))
    (seed,) = found["up"]["bootstrap"]
    assert seed["difference"] == pytest.approx(3) and 2 < seed["low"] < 3 < seed["high"] < 4
    assert found["unkept"]["bootstrap"] == []


def test_effect_per_percent_of_compute(tmp_path):
    arms = {"baseline": (70, 1e12), "more": (72, 1.5e12), "less": (69, 0.8e12), "equal": (71, 1.004e12)}
    paths = [make_run(tmp_path / arm, top1, arm=arm, train_macs=macs) for arm, (top1, macs) in arms.items()]
    found = versus(report.summarise(report.read_runs(paths)))
    assert found["more"]["per_percent"] == pytest.approx(2 / 50)
    assert found["less"]["per_percent"] == pytest.approx(1 / 20)  # points lost for each 1 % saved
    assert found["equal"]["per_percent"] is None and found["equal"]["compute"] == pytest.approx(1.004)
    matched = report.summarise(report.read_runs(paths), match="compute")["arms"]
    assert all(arm["versus"]["per_percent"] is None for arm in matched if arm["versus"])


def test_hours_on_processors_and_accelerators(tmp_path):
    devices = [("a", "CPU, 1 thread", 1800), ("b", "NVIDIA H100 80GB HBM3", 5400)]
    paths = [make_run(tmp_path / arm, arm=arm, device=device, seconds=s) for arm, device, s in devices]
    cost = report.summarise(report.read_runs(paths))["cost"]
    assert cost == {"runs": 2, "cpu_hours": 0.5, "gpu_hours": 1.5, "hours": 2, "train_macs": 6e12}


@pytest.mark.parametrize("value, text", [(0.518, "+0.52"), (-0.104, "-0.10"), (-0.004, "+0.00"), (None, "-")])
def test_signed(value, text):
    assert wording.signed(value) == text


# --- what is written ---


def test_the_table(tmp_path):
    summary = summary_of(tmp_path, baseline=70, up=73)
    head, first, second = wording.table(summary).splitlines()
    assert len({len(head), len(first), len(second)}) == 1 and "reference" in first
    points = r"\+\d\.\d\d"
    figures = rf"up +5 +\d\d\.\d\d ± \d\.\d\d % +{points} \[{points}, {points}\] +(< )?0\.\d{{3}} +better"
    assert re.search(figures, second)
    assert "23.5M" in second and "3T" in second and "30 m" in second and "300 MB" in second
    summary["failed"] = [{"arm": "up", "seed": 7, "error": "out of memory"}]
    assert wording.table(summary).splitlines()[3:] == ["failed: up, seed 7: out of memory"]


def test_what_no_run_recorded_has_no_column(tmp_path):
    runs = report.read_runs([make_run(tmp_path / "a", peak_memory=...)])
    summary = report.summarise(runs)
    assert wording.cells(summary)[0] == ["arm", "n", "test top-1", "verdict", "net MACs", "training MACs", "time a run"]
    assert "peak memory" not in wording.table(summary) and "peak memory" not in page.page(summary, runs)


def test_written_files(tmp_path):
    runs = report.read_runs(make_comparison(tmp_path / "cells", range(2), baseline=70, up=71))
    failed = [{"arm": "up", "seed": 5, "error": "diverged"}]
    facts = {"failed": failed, "commands": ["nasaug compare x"], "epochs": 3}
    summary = report.summarise(runs, match="epochs", facts=facts)
    assert report.write(tmp_path, summary, runs) == tmp_path / "comparison.html"
    again = json.loads((tmp_path / "comparison.json").read_text())
    assert again == summary and again["format"] == "nasaug-comparison/1" and again["facts"] == {"epochs": 3}
    assert (again["failed"], again["commands"], again["match"]) == (failed, ["nasaug compare x"], "epochs")
    rows = list(csv.DictReader((tmp_path / "comparison.csv").open()))
    assert [row["arm"] + row["seed"] for row in rows] == ["baseline0", "baseline1", "up0", "up1"]
    assert [float(row["test_top1"]) for row in rows] == [run.test_score for run in runs]
    report.write(tmp_path / "cells", summary, runs)
    name = "comparison.html"
    assert (tmp_path / name).read_bytes() == (tmp_path / "cells" / name).read_bytes()


def test_the_command(empty_folder, capsys):
    make_comparison(empty_folder / "cells", range(2), a=70, b=71)
    summary = report.command([Path("cells")])
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == "page: report.html" and out[:-1] == wording.table(summary).splitlines()
    assert sorted(path.name for path in empty_folder.glob("report.*")) == ["report.csv", "report.html", "report.json"]


@pytest.mark.parametrize("finished", [True, False])
def test_a_comparison_is_a_run_with_its_cells_below(tmp_path, finished):
    make_comparison(tmp_path / "cells", range(2), a=70, b=71)
    (tmp_path / "recipe.toml").touch()
    if finished:
        (tmp_path / "result.json").write_text('{"format": "nasaug-result/1", "cells": 4}')
    assert len(report.read_runs([tmp_path])) == 4


def test_the_command_keeps_what_a_comparison_told_of_itself(empty_folder, capsys):
    runs = report.read_runs(make_comparison(empty_folder / "c" / "cells", range(2), a=70, b=71))
    told = {"failed": [{"arm": "b", "seed": 2, "error": "no memory"}], "commands": ["nasaug compare"], "note": "x"}
    summary = report.summarise(runs[::-1], "b", "compute", told)
    report.write(empty_folder / "c", summary, runs)
    assert report.command([Path("c")], Path("again.html")) == summary
    assert "failed: b, seed 2: no memory" in capsys.readouterr().out


@pytest.mark.parametrize(
    "paths, out, said",
    [
        (["a"], "report.json", "--out report.json: give the path of a page"),
        ([], None, "report needs run folders"),
        (["a"], "none/report.html", "make its folder first"),
        (["a", "b"], None, "different data"),
    ],
)
def test_the_command_refuses(empty_folder, paths, out, said):
    make_run(empty_folder / "a")
    make_run(empty_folder / "b", data_key="other")
    with pytest.raises(BadInput, match=said):
        report.command([Path(path) for path in paths], out and Path(out))
    assert not list(empty_folder.glob("report.*"))


def test_reading_reports_loads_nothing_slow():
    slow = ["torch", "scipy", "matplotlib", "pydantic", "jinja2", "rich"]
    modules = "nasaug.comparison.report, nasaug.reporting.page"
    code = f"import {modules}, sys; print(*(m for m in {slow} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# --- the page ---

EVIL = "<b>&\"'$x$</b>"


class Outline(HTMLParser):
    """What a page asks for, and what must be closed."""

    void = {"meta", "link", "wbr"}

    def __init__(self):
        super().__init__()
        self.open, self.asked, self.tags, self.ids = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.ids += [value for name, value in attributes if name == "id"]
        self.asked += [v for n, v in attributes if n in ("src", "href", "srcset", "data", "action", "poster")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.void:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A page with all that a page can have: (page, summary)."""
    folder = tmp_path_factory.mktemp("whole")
    paths = make_comparison(folder, SEEDS, baseline=70, netaug=71.5, netaug_mixup=67, same=70.1)
    for seed in SEEDS:
        paths.append(make_run(folder / f"evil-{seed}", 71 + seed / 3, seed=seed, arm=EVIL, train_macs=15e12))
    runs = report.read_runs(paths)
    failed = [{"arm": EVIL, "seed": 5, "error": "loss <i>is</i> nan at step 12"}]
    facts = {"failed": failed, "commands": ["nasaug compare --arm '<b>'"]}
    summary = report.summarise(runs, match="epochs <u>", facts=facts)
    return page.page(summary, runs), summary


def test_the_page_asks_for_nothing(whole):
    outline = Outline()
    outline.feed(whole[0])
    assert outline.open == [] and not {"script", "img", "iframe", "object", "embed", "base"} & set(outline.tags)
    assert all(asked == "data:," or asked.startswith("#") for asked in outline.asked)
    assert not re.search(r"https?:|//|@import|url\((?!#)", whole[0])
    assert "default-src 'none'" in whole[0]


def test_drawings_share_no_ids_and_refer_to_their_own(whole):
    outline = Outline()
    outline.feed(whole[0])
    assert len(outline.ids) == len(set(outline.ids)) > 20
    referred = re.findall(r'(?:href="|url\()#([^")]+)', whole[0])
    assert referred and set(referred) <= set(outline.ids)


def test_everything_is_escaped(whole):
    assert not re.search(r"</?[biu]>", whole[0])
    page = whole[0].replace("<wbr>", "")
    assert page.count(markupsafe.escape(EVIL)) >= 5 and "loss &lt;i&gt;is" in page and "epochs &lt;u&gt;" in page


def test_drawings_are_in_the_colours_of_the_page(whole):
    drawings = re.findall(r"<svg.*?</svg>", whole[0], re.DOTALL)
    assert len(drawings) == 4
    for drawing in drawings:
        assert not re.search(r"#[0-9a-f]{6}(?![0-9a-f])", drawing) and "var(--ink)" in drawing
        assert re.search(r'role="img" aria-label="([^"]+)">\n<title>\1</title>', drawing)


def test_headers_have_a_scope(whole):
    assert whole[0].count("<th") - whole[0].count("<thead") == whole[0].count('<th scope="') > 30


def browse(page_path, folder, *options):
    """What headless Chromium says of a page: (stdout, stderr)."""
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
         f"--user-data-dir={folder}", "--enable-logging=stderr", "--v=0", *options, page_path.as_uri()],
        capture_output=True, text=True, timeout=60, env=os.environ | {"HOME": str(folder)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, done.stderr


# Writes, into the page, what a script in it can measure; for a copy of the page whose policy allows scripts.
MEASURE = """<script>addEventListener("load", () => {
  const boxes = [...document.querySelectorAll("svg")].map(s => s.getBoundingClientRect());
  const tables = [...document.querySelectorAll("table")].map(
    t => [...t.rows].map(r => [...r.cells].map(c => c.innerText)));
  const wide = document.documentElement.scrollWidth - innerWidth;
  const out = document.createElement("output");
  out.id = "measured"; out.hidden = true;
  out.textContent = JSON.stringify({boxes: boxes.map(b => [b.width, b.height]), tables, wide});
  document.body.append(out);
});</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: make browser")
def test_a_browser_shows_the_page(whole, tmp_path):
    shown, summary = whole
    (tmp_path / "page.html").write_text(shown)
    dom, told = browse(tmp_path / "page.html", tmp_path / "profile", "--dump-dom")
    assert "CONSOLE" not in told
    outline = Outline()
    outline.feed(dom)
    assert outline.tags.count("table") == 6 and outline.tags.count("svg") == 4 and "script" not in outline.tags

    opened = shown.replace("default-src 'none';", "default-src 'none'; script-src 'unsafe-inline';")
    (tmp_path / "open.html").write_text(opened.replace("</body>", MEASURE))
    dom, told = browse(tmp_path / "open.html", tmp_path / "profile", "--dump-dom", "--window-size=500,900")
    assert "CONSOLE" not in told
    measured = json.loads(html.unescape(re.search(r'<output id="measured"[^>]*>(.*?)</output>', dom)[1]))
    assert len(measured["boxes"]) == 4 and all(width > 200 and height > 100 for width, height in measured["boxes"])
    assert measured["wide"] <= 0  # only tables scroll sideways, in their own containers
    (_, *main), (_, *more), (_, *resampled), (_, *effects), (_, *ledger), (_, *failed) = measured["tables"]
    for row, arm in zip(main, summary["arms"], strict=True):
        assert row[:3] == [arm["arm"], "5", wording.percent(arm["test_top1"])] and row[6] == "23.5M"
        assert row[3].replace("−", "-") == wording.difference(arm["versus"])
        assert row[5] == wording.verdict(arm["versus"])
    assert [row[5] for row in main[:3]] == ["reference", "better", "worse"] and main[4][0] == EVIL
    assert more[1][1:] == [wording.percent(summary["arms"][1][f"{split}_top1"]) for split in ("val", "train")] + [
        "3", "750k", "0, 1, 2, 3, 4"
    ]  # fmt: skip
    assert [row[0] for row in resampled] == ["netaug", "netaug+mixup", "same", EVIL] and len(resampled[0]) == 6
    assert [row[3] for row in effects[:3]] == 3 * ["equal compute"]
    assert ledger[-1][:5] == ["total", "25", "12.5", "0", "12.5"]
    assert failed == [[EVIL, "5", "loss <i>is</i> nan at step 12"]]


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: make browser")
def test_a_browser_complains_of_what_is_asked_for(whole, tmp_path):
    """That the silence above means something."""
    (tmp_path / "page.html").write_text(whole[0].replace("</body>", '<img src="https://example.org/x.png"></body>'))
    _, told = browse(tmp_path / "page.html", tmp_path / "profile", "--dump-dom")
    assert "CONSOLE" in told and "Content Security Policy" in told
