"""The page of a report, as text and as a browser shows it."""

import html
import json
import re
from html.parser import HTMLParser

import markupsafe
import pytest

from nasaug.comparison import report
from nasaug.reporting import page, wording
from support.browser import CHROMIUM, browse
from support.reports import SEEDS, make_comparison, make_run

EVIL = "<b>&\"'$x$</b>"


class Outline(HTMLParser):
    """The resources that a page requests, and its unclosed tags."""

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
    """A page with every part that a page can have: (page, summary)."""
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


# Writes measurements of the layout into the page; for a copy of the page whose policy allows scripts.
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
    dom, told = browse((tmp_path / "page.html").as_uri(), tmp_path / "profile", "--dump-dom")
    assert "CONSOLE" not in told
    outline = Outline()
    outline.feed(dom)
    assert outline.tags.count("table") == 6 and outline.tags.count("svg") == 4 and "script" not in outline.tags

    opened = shown.replace("default-src 'none';", "default-src 'none'; script-src 'unsafe-inline';")
    (tmp_path / "open.html").write_text(opened.replace("</body>", MEASURE))
    dom, told = browse((tmp_path / "open.html").as_uri(), tmp_path / "profile", "--dump-dom", "--window-size=500,900")
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
    assert ledger[-1][:5] == ["total", "25", "12 h 30 m", "-", "12 h 30 m"]
    assert failed == [[EVIL, "5", "loss <i>is</i> nan at step 12"]]


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: make browser")
def test_a_browser_complains_of_what_is_asked_for(whole, tmp_path):
    """Checks that the silence above is meaningful."""
    (tmp_path / "page.html").write_text(whole[0].replace("</body>", '<img src="https://example.org/x.png"></body>'))
    _, told = browse((tmp_path / "page.html").as_uri(), tmp_path / "profile", "--dump-dom")
    assert "CONSOLE" in told and "Content Security Policy" in told


@pytest.mark.parametrize(("seeds", "said"), [(2, False), (3, True)])
def test_captions_speak_of_an_interval_where_there_is_one(tmp_path, seeds, said):
    runs = report.read_runs(make_comparison(tmp_path, range(seeds), baseline=70, netaug=72))
    shown = page.page(report.summarise(runs), runs)
    assert ("interval over seeds" in shown) == ("Mean over seeds ±" in shown) == said
    assert ("Each seed's score" in html.unescape(shown)) == ("mean over seeds, and each" in shown) == (not said)
