"""A class whose name is a script, in every page that the commands write: a browser shows it and runs nothing."""

from pathlib import Path

from support.browser import IMAGE, SCRIPT, assert_escaped, needs_browser
from support.commands import QUICK, SEARCH, done, lay_out
from support.images import write_folder

pytestmark = needs_browser
SET = ("--set", "data.train_images=0", "--set", "data.workers=0")


def test_a_class_that_is_a_script_is_text_in_every_page(empty_folder):
    lay_out(empty_folder)
    data = Path(f"photos {IMAGE}")
    write_folder(data, classes=(SCRIPT, IMAGE, "cat"), each=40, size=(12, 12))
    where = ("--data", str(data), *SET)
    done(*SEARCH, *where, "--run", "s")
    net = ("--arch", "found.json")
    done("compare", *QUICK, *where, *net, "--methods", "baseline,netaug", "--seeds", "1", "--run", f"c {IMAGE}")
    done("train", *QUICK, *where, *net, "--method", "baseline", "--run", f"t {IMAGE}")
    done("report", f"t {IMAGE}")
    done("robust", "--run", f"t {IMAGE}", "--corruptions", "fog", "--severities", "1", "--images", "10", "--eps", "2",
         "--attacked", "4", "--steps", "1", "--out", "r")  # fmt: skip
    pages = sorted(path for path in Path().rglob("*.html"))
    assert {page.name for page in pages} == {"search.html", "comparison.html", "report.html", "robust.html"}
    for number, page in enumerate(pages):
        folder = Path(f"browser-{number}").absolute()
        folder.mkdir()
        assert_escaped(page.read_text(), folder)
