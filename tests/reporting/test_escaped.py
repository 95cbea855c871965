"""A browser runs no script that a name is: neither of a comparison's page nor of a search's, whatever the policy."""

import pytest

from nasaug.comparison import report
from nasaug.reporting import page
from nasaug.reporting.search_page import search_page
from support.browser import IMAGE, SCRIPT, assert_escaped, needs_browser
from support.reports import make_run
from support.searched import row, summary

pytestmark = needs_browser


def comparison(folder):
    """Every name that its page shows is a script or an image."""
    named = {"arch": SCRIPT, "data": IMAGE, "device": SCRIPT}
    paths = [make_run(folder / f"{IMAGE[:8]}{i}", 70 + i, arm=(IMAGE, SCRIPT)[i], **named) for i in range(2)]
    runs = report.read_runs(paths)
    facts = {"failed": [{"arm": SCRIPT, "seed": 1, "error": IMAGE}], "commands": [SCRIPT, IMAGE]}
    return page.page(report.summarise(runs, match=IMAGE, facts=facts), runs)


def search():
    names = dict.fromkeys(("name", "data", "space", "command", "device", "commit", "recipe"), IMAGE)
    images = f"3 classes ({SCRIPT}, {IMAGE}); 9 training images"
    nets = [row(SCRIPT, 900_000, rounds=2), row(IMAGE, 800_000)]
    return search_page(summary(**names, images=images, finalists=nets, front=nets[:1], commands=[(SCRIPT, IMAGE)]))


@pytest.mark.parametrize("kind", ["comparison", "search"])
def test_names_are_text(kind, tmp_path):
    (tmp_path / "runs").mkdir()
    assert_escaped(comparison(tmp_path / "runs") if kind == "comparison" else search(), tmp_path)


def test_the_check_finds_a_name_that_is_not_escaped(tmp_path):
    with pytest.raises(AssertionError):
        assert_escaped(search().replace("</body>", f"{IMAGE}</body>"), tmp_path)
