"""The watching page: what it says of runs, what it refuses, and how a browser shows it."""

import html
import itertools
import json
import re
import shutil
import threading
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from urllib.error import HTTPError

import pytest

from nasaug.core.errors import BadInput
from nasaug.core.files import write_json
from nasaug.reporting import watch, watch_server
from nasaug.reporting.watch import POINTS, Watched
from nasaug.reporting.watch_server import Server
from nasaug.rundirs.folder import RunDir
from support.browser import CHROMIUM, browse
from support.reports import make_run

EVIL = "<img src=x onerror=alert(1)>&amp;"
AT = {
    "format": "nasaug-progress/1", "time": 4e9, "title": "finalist 2 of 3, round 1 of 1", "done": 30, "total": 90,
    "rate": "2,310 images/s", "best": "best top-1 71.22 %", "ended": [{"name": "supernet", "seconds": 117.0}],
    "stage": "finalists", "number": 3, "of": 3, "share": 0.4, "left": 310.0, "whole": 310.0, "known": True,
}  # fmt: skip


def begun(folder, verb):
    """A run that has not ended."""
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text("")
    write_json(folder / "job.json", {"format": "nasaug-job/1", "verb": verb})
    return RunDir(folder)


@pytest.fixture
def runs(tmp_path):
    """A folder with a search that is at its finalists, a finished training, and a comparison of two cells."""
    root = tmp_path / "root"
    search = begun(root / EVIL, "search")
    for epoch in range(1, 1001):
        search.log("epoch", stage="supernet", epoch=epoch, val_top1=60 + epoch / 100, val_loss=1.0)
    for i, (macs, score) in enumerate([(300, 70.0), (100, 65.0), (200, 60.0), (400, 70.0)]):
        search.log("candidate", arch=f"net{i}", macs=macs * 1000, val_top1=score)
    search.log("epoch", stage="finalist 1 of 3", epoch=1, val_top1=71.0, val_loss=0.9)
    rounds = [{"net1": [71.0, 0.9], "net2": [72.0, 0.8], "net3": [0.0, 1e30]}]
    write_json(search.finalists_file, {"format": "nasaug-finalists/2", "candidates": 4, "rounds": rounds})
    write_json(search.path / ".progress.json", AT)
    (make_run(root / "deep" / "train-1", 71.5) / "recipe.toml").write_text("")
    compare = begun(root / "compare-1", "compare")
    (make_run(compare.path / "cells" / "netaug-s0", 70.0) / "recipe.toml").write_text("")
    (compare.path / "comparison.html").write_text("<p>the comparison</p><script>document.title = 'ran'</script>")
    return root


@contextmanager
def serving(root, **options):
    with Server(root, 0, **options) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        server.shutdown()


def ask(server, path, **headers):
    """The status, headers and body of an answer."""
    try:
        with urllib.request.urlopen(urllib.request.Request(server.url.rstrip("/") + path, headers=headers)) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except HTTPError as error:
        return error.code, error.headers, error.read().decode()


def test_a_search_that_runs_is_told_from_its_files(runs):
    watched = Watched(runs)
    found = {row["id"]: row for row in watched.overview()["runs"]}
    assert set(found) == {EVIL, "deep/train-1", "compare-1"}
    assert found[EVIL]["state"] == "stopped" and found[EVIL]["progress"] == AT
    shown = watched.details(EVIL)
    assert shown["label"] == "top-1 (%)" and [curve["name"] for curve in shown["curves"]] == [
        "supernet", "finalist 1 of 3"
    ]  # fmt: skip
    points = shown["curves"][0]["points"]
    assert points[0] == [1, 60.01] and points[-1] == [1000, 70.0] and len(points) <= POINTS + 1
    assert [each["id"] for each in shown["front"]] == ["net1", "net0"]
    assert [(row["id"], row["macs"], row["score"], row["own"]) for row in shown["best"]] == [
        ("net2", "200k", "60.00 %", "72.00 %"), ("net1", "100k", "65.00 %", "71.00 %"),
        ("net3", "400k", "70.00 %", "diverged"), ("net0", "300k", "70.00 %", ""),
    ]  # fmt: skip


def test_a_run_that_is_held_is_running_and_a_finished_one_tells_its_figures(runs):
    with RunDir.hold(runs / EVIL):
        rows = {row["id"]: row for row in Watched(runs).overview()["runs"]}
    assert rows[EVIL]["state"] == "running"
    assert rows["deep/train-1"]["state"] == "finished" and "test top-1 71.50 %" in rows["deep/train-1"]["figures"]
    cells = Watched(runs).details("compare-1")["cells"]
    assert [(cell["id"], cell["state"]) for cell in cells] == [("netaug-s0", "finished")]
    alone = Watched(runs / "deep" / "train-1")
    assert [row["id"] for row in alone.overview()["runs"]] == ["."] and alone.details(".")["state"] == "finished"


def test_damaged_files_are_no_reason_to_stop(runs):
    for name in (".progress.json", "finalists.json", "log.jsonl"):
        (runs / EVIL / name).write_text("{[\n")
    assert Watched(runs).details(EVIL)["candidates"] == [] and Watched(runs / "gone").overview()["runs"] == []


def test_what_cannot_be_listed_or_read_hides_no_other_run(runs, monkeypatch):
    (runs / "gone").mkdir()
    (runs / "compare-1" / "log.jsonl").mkdir()
    iterdir = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: iterdir(path / "and gone" if path.name == "gone" else path))
    found = {row["id"]: row for row in Watched(runs).overview()["runs"]}
    assert found["compare-1"]["state"] == "damaged" and "Is a directory" in found["compare-1"]["figures"]
    assert {found[name]["state"] for name in (EVIL, "deep/train-1")} == {"stopped", "finished"}


def test_only_this_machine_is_answered_and_only_what_is_shown(runs, tmp_path):
    (tmp_path / "secret.html").write_text("secret")
    (runs / "compare-1" / "report.html").symlink_to(tmp_path / "secret.html")
    (runs / "compare-1" / "other.html").write_text("other")
    with serving(runs) as server:
        assert server.server_address[0] == "127.0.0.1"
        for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example:1", "localhost@evil", ""):
            assert ask(server, "/runs.json", Host=host)[0] == 403
        for host in ("localhost", "localhost:9000", "127.0.0.1:1"):
            assert ask(server, "/runs.json", Host=host)[0] == 200
        for path in (
            "/../secret.html", "/pages/../../secret.html?run=compare-1", "/pages/report.html?run=compare-1",
            "/pages/other.html?run=compare-1", "/pages/comparison.html?run=..", "/pages/comparison.html", "/run.json",
            "/run.json?run=../root", "/pages/secret.html?run=../..", "/watch.py", "/log.jsonl?run=compare-1",
        ):  # fmt: skip
            assert ask(server, path)[0] == 404, path
        status, heads, body = ask(server, "/pages/comparison.html?run=compare-1")
        assert status == 200 and "the comparison" in body and "sandbox" in heads["Content-Security-Policy"]
        _, heads, page = ask(server, "/")
        assert "script-src 'self'" in heads["Content-Security-Policy"] and heads["X-Content-Type-Options"] == "nosniff"
        assert not re.search(r"https?://", page + ask(server, "/watch.css")[2])
        assert json.loads(ask(server, "/runs.json")[2])["folder"] == str(runs)


def test_a_port_that_is_taken_is_refused_and_a_free_one_is_found(tmp_path, monkeypatch):
    with serving(tmp_path) as server:
        port = server.server_address[1]
        with pytest.raises(BadInput, match=f"port = {port} is in use"):
            Server(tmp_path, port)
        monkeypatch.setattr(watch_server, "PORT", port)
        with Server(tmp_path) as other:
            assert other.server_address[1] != port
    for wrong in (70000, -1):
        with pytest.raises(BadInput, match="must be 0 to 65535"):
            Server(tmp_path, wrong)
    with pytest.raises(BadInput, match="is not a folder"):
        Server(tmp_path / "none")


MEASURE = """
setTimeout(() => {
  document.body.style.maxWidth = "390px";  // headless windows are at least 500 px wide
  const out = document.createElement("output");
  out.id = "measured";
  const boxes = [...document.querySelectorAll("svg")].map(s => s.getBoundingClientRect().width);
  const wide = document.body.scrollWidth - document.body.clientWidth;
  const dark = getComputedStyle(document.body).backgroundColor;
  out.textContent = JSON.stringify({ boxes, wide, dark, width: document.body.clientWidth });
  document.body.append(out);
}, 1500);
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: make browser")
@pytest.mark.parametrize("look", [(), ("--blink-settings=preferredColorScheme=0",)], ids=["light", "dark"])
def test_a_browser_shows_a_run_on_a_narrow_screen(runs, tmp_path, monkeypatch, look):
    own = tmp_path / "own"
    shutil.copytree(Path(watch_server.__file__).parent, own)
    with open(own / "watch.js", "a") as script:
        script.write(MEASURE)
    monkeypatch.setattr(watch_server, "_HERE", own)
    clock = itertools.count(AT["time"], 50.0)  # the second time that the page asks, nothing has been told for minutes
    monkeypatch.setattr(watch, "time", SimpleNamespace(time=lambda: next(clock), monotonic=time.monotonic))
    with serving(runs) as server, RunDir.hold(runs / EVIL):
        (runs / EVIL / ".progress.json").touch()  # after the lock
        options = ("--dump-dom", "--window-size=390,900", "--virtual-time-budget=3000", *look)
        dom, told = browse(server.url + "#%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E%26amp%3B", tmp_path / "p", *options)
        assert "CONSOLE" not in told
        assert "stage 3 of 3: finalists · about 5 m 10 s left in all" in dom and "supernet took 1 m 57 s" in dom
        assert "<img" not in dom and html.escape(EVIL, quote=False) in dom and "nothing heard for 2 m 30 s" in dom
        measured = json.loads(html.unescape(re.search(r'<output id="measured">(.*?)</output>', dom)[1]))
        assert measured["wide"] <= 0 and measured["width"] == 390 and len(measured["boxes"]) == 2
        assert all(width > 250 for width in measured["boxes"])
        marks = [re.findall(r"<text[^>]*>([^<]+)</text>", drawn) for drawn in re.findall(r"<svg.*?</svg>", dom, re.S)]
        assert marks[1] == ["60", "65", "70", "100k", "200k", "300k", "400k", "MACs"]
        assert measured["dark"] == ("rgb(21, 25, 29)" if look else "rgb(255, 255, 255)")
        if not look:
            dom, told = browse(server.url, tmp_path / "p", *options)
            assert "CONSOLE" not in told and dom.count('class="card"') == 3 and "<img" not in dom
