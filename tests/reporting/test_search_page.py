"""The page of a search, from made-up summaries: what it says, what it escapes, and parts that may be missing."""

import html
import re
from html.parser import HTMLParser

import markupsafe
import pytest

from nasaug.core.metric import Metric
from nasaug.reporting.pictures import MACS, Scale
from nasaug.reporting.search_page import search_page
from support.searched import DRAWING, row, summary

EVIL = "<b>&\"'$x$</b>"


class Reader(HTMLParser):
    """Tables by caption, as rows of cells; tags, and what is asked for."""

    def __init__(self, page):
        super().__init__()
        self.tables, self.tags, self.asked, self.text, self.open, self.cell = {}, [], [], "", [], None
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.asked += [v for n, v in attributes if n in ("src", "href", "srcset", "data", "action", "poster")]
        if tag == "table":
            self.rows = []
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th", "caption"):
            self.cell = ""
        if tag not in ("meta", "link", "wbr"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag in ("td", "th"):
            self.rows[-1].append(self.cell)
        if tag == "caption":
            self.caption = self.cell
        if tag == "table":
            self.tables[self.caption] = self.rows

    def handle_data(self, data):
        self.text += data
        if self.cell is not None:
            self.cell += data

    def table(self, start):
        """The rows of the one table whose caption begins so."""
        (found,) = [rows for caption, rows in self.tables.items() if caption.startswith(start)]
        return found


@pytest.fixture(scope="module")
def whole():
    return search_page(summary())


def test_the_page_asks_for_nothing(whole):
    read = Reader(whole)
    assert not {"script", "img", "iframe", "object", "embed", "base"} & set(read.tags) and read.tags.count("svg") == 3
    assert all(asked == "data:," or asked.startswith("#") for asked in read.asked)
    assert not re.search(r"https?:|//|@import|url\((?!#)", whole) and "default-src 'none'" in whole


def test_the_same_summary_gives_the_same_page(whole):
    assert search_page(summary()) == whole


def test_what_the_tables_say(whole):
    read = Reader(whole)
    assert read.table("Its costs")[1:] == [
        ["MACs", "900k", "1M", "90 %"], ["peak SRAM", "3 KB", "4 KB", "75 %"], ["flash", "4 KB", "-", "-"],
    ]  # fmt: skip
    assert read.table("Choices of each stage") == [
        ["stage", "resolution", "width", "expand+kernel"],
        ["network", "28", "-", "-"], ["s1", "-", "8, 16", "0/3, 2.5/5"],
    ]  # fmt: skip
    shapes = read.table("The space's own design")
    assert [line[0] for line in shapes] == ["design", "wide", "deep"] and shapes[2][-2:] == ["24", "2"]
    assert "resolution 28, s1.stride 1 (70.00 % after 2 epochs)" in read.text and "too few steps each: 1 more" in whole
    finalists = read.table("All finalists")
    assert finalists[0][3:6] == ["trained", "supernet", "scored"] and finalists[1][4:6] == ["81.00 %", "80.00 %"]
    assert [line[:4] for line in finalists[1:]] == [
        ["best", "2", "2", "93.00 %"], ["second", "1", "2", "90.00 %"], ["lost", "1", "2", "diverged"],
        ["idle", "-", "-", "-"],
    ]  # fmt: skip
    assert read.table("Time of training")[1:] == [
        ["shapes, trained briefly", "3 trainings", "2G", "1 m"], ["supernet", "1 training", "3G", "1 m 30 s"],
        ["candidates, scored", "30 nets", "-", "12 s"],
        ["finalists, trained on their own", "5 trainings", "1G", "30 s"], ["total", "", "6G", "3 m 12 s"],
    ]  # fmt: skip
    assert "Finalists without rounds were not trained" in read.text
    assert "The net found uses little: why not." in read.text and "tau is −0.50" in read.text
    assert "nasaug search --mac-budget 1M" in read.text
    assert "python -m nasaug train --arch 'a b/found.json'" in read.text and DRAWING in whole


def test_everything_but_the_drawing_is_escaped():
    rows = [row(EVIL, 1000, shape={EVIL: 1}), row("b", 1000, shape={EVIL: 2})]
    panel = summary()["panels"]["scored"][0] | {"points": {EVIL: [(0.1, 2.0)]}, "ylabel": EVIL}
    texts = "name", "data", "images", "space", "command", "budget", "searched", "recipe", "device", "commit"
    page = search_page(summary(
        **dict.fromkeys(texts, EVIL), versions={EVIL: EVIL}, metric=Metric(EVIL, EVIL, False).to_plain(),
        axes=[(EVIL, EVIL, (EVIL,))], shapes=rows, front=rows, finalists=rows, little_used=EVIL, agreed=EVIL,
        commands=[(EVIL, EVIL)], panels={"scored": [panel], "trained": [panel]},
        costs=[{"what": EVIL, "unit": "macs", "used": 1, "budget": 2}],
    ))  # fmt: skip
    Reader(page)
    assert not re.search(r"</?b>", page) and page.replace("<wbr>", "").count(markupsafe.escape(EVIL)) > 30


def test_what_a_search_without_a_supernet_has_not():
    finalists = [row("best", 900_000, scored=None, full=None)]
    panels = summary()["panels"] | {"scored": []}
    page = search_page(summary(
        strategy="halving", candidates=0, front=[], finalists=finalists, panels=panels, agreed="", shapes=[],
        score_images=None,
    ))  # fmt: skip
    read = Reader(page)
    assert "Candidates" not in read.text and "Kendall" not in page and "supernet)" not in page
    assert read.tags.count("svg") == 2 and [line[3:5] for line in read.table("All finalists")] == [
        ["trained", "MACs"], ["90.00 %", "900k"],
    ]  # fmt: skip
    assert "without a supernet" in read.text and "validation top-1 90.00 % after its own training" in read.text


def test_what_a_search_whose_finalists_were_not_trained_has_not():
    finalists = [row(name, 900_000, trained=None, rounds=0) for name in "ab"]
    read = Reader(search_page(summary(
        finalists=finalists, panels=summary()["panels"] | {"trained": []}, stages=summary()["stages"][:1],
        little_used="", command=None, commit=None, versions={},
    )))  # fmt: skip
    assert "They were not trained on their own." in read.text and "better half" not in read.text
    assert "total" not in read.text and "mac-budget" not in read.text and read.tags.count("svg") == 2
    none = {"points": {"trained 2 epochs": []}, "front": (), "found": [], "ylabel": "x"}  # all diverged
    panels = {"scored": [], "trained": [none]}
    assert Reader(search_page(summary(panels=panels, stages=[]))).tags.count("svg") == 1


def test_where_lower_is_better_and_macs_have_no_budget():
    costs = [{"what": "MACs", "unit": "macs", "used": 900_000, "budget": None}]
    page = search_page(summary(metric=Metric("mae", "kg", False).to_plain(), costs=costs, by="score"))
    assert "where lower is better" in page and "93 kg" in page and "MAC budget" not in page.split("</style>")[1]
    assert "ranked by their loss" not in page


def test_shapes_that_all_diverged():
    shapes = [row("a", 1e6, trained=None, rounds=0, shape={"resolution": 28})]
    read = Reader(search_page(summary(shapes=shapes)))
    assert "(1), but all trainings diverged" in read.text and not [c for c in read.tables if "own design" in c]


def test_tables_scroll_by_themselves_and_have_scopes(whole):
    assert whole.count("<table>") == len(re.findall(r'class="scroll" role="region"[^>]*>\n<table>', whole)) == 6
    assert whole.count("<th") - whole.count("<thead") == whole.count('<th scope="') > 30
    assert html.unescape(re.search("<title>(.*?)</title>", whole)[1]) == "Search on photos: space:best"


def test_a_search_of_three_objectives_has_a_plot_of_each_pair_and_the_front_with_the_rules_that_choose_each_net():
    sram = Scale("peak SRAM", "bytes", 1024, "peak SRAM (KB)")
    panel = {"points": {"candidates": [(3.0, 0.2), (9.0, 0.9)]}, "front": [(3.0, 0.2)], "found": [(9.0, 0.9)],
             "ylabel": "MACs (millions)", "x": sram, "y": MACS, "limit": None, "line": False}  # fmt: skip
    scored = [*summary()["panels"]["scored"], panel]
    ended = [row("thrifty", 2e5, trained=70.0, rules=["knee", "min-macs"]), row("best", 9e5, rules=[])]
    page = search_page(summary(
        objectives=("accuracy", "macs", "sram"), pick="knee", ended=ended, panels={"scored": scored, "trained": []},
    ))  # fmt: skip
    read = Reader(page)
    (caption,) = [caption for caption in read.tables if caption.startswith("The front of those trained for longest")]
    assert "validation loss, MACs and peak SRAM" in caption
    front = read.tables[caption]
    assert [(line[0], line[1], line[-1]) for line in front[1:]] == [
        ("thrifty", "70.00 %", "knee, min-macs"), ("best", "90.00 %", "-")
    ]  # fmt: skip
    assert "their Pareto front: score against MACs" in page and "front: MACs against peak SRAM" in page
    assert "3 KB" in page and "the knee of the front" in page and "spread along it" in read.text
    assert "spread along it" not in Reader(search_page(summary())).text


def test_latencies_are_shown_with_whose_they_are(whole):
    rows = [row("best", 9e5, latency=0.0312), row("second", 8e5, latency=2.5)]
    page = search_page(summary(latency_of="a chip, 1 core, onnxruntime 1", finalists=rows, front=rows[:1], ended=[]))
    read = Reader(page)
    head, first, second = read.table("All finalists")
    at = head.index("latency")
    assert (first[at], second[at], head[-1], first[-1]) == ("31.2 us", "2.5 ms", "px", "28")
    assert read.table("No other candidate")[1][-2:] == ["31.2 us", "28"]
    assert "predicted by the table of a chip, 1 core, onnxruntime 1" in read.text
    assert "latency" not in whole.split("</style>")[1]
