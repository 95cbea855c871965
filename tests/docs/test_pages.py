"""The documentation says what there is: its commands run, and names of verbs, options, files and keys exist."""

import html
import json
import re
import tomllib
from pathlib import Path

import pytest

from support.browser import browse, needs_browser
from support.commands import done
from support.pages import NOT_HERE, ROOT, SMALLER, blocks, run_page, smaller

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
FOLLOWED = [ROOT / "README.md", DOCS / "tutorial.md", *sorted((DOCS / "howto").glob("*.md"))]
QUICK = "README.md", "docs/tutorial.md", "docs/howto/own-space.md"  # tests/full runs the other pages
VERB = re.compile(
    r"^(?:\$ )?(?:[A-Z_]+=\S+ )*(?:(?:srun |torchrun .*|python3? )(?:-m )?)?nasaug (?:-- )?"
    r"([a-z][a-z-]+)((?:(?!&&|;)[^\n|])*)", re.M,
)  # fmt: skip
FILE = re.compile(
    r"(?<![\w/.])(?:nasaug|tests|docs|benchmarks|recipes|search_spaces|tools)/[\w./-]*\w"
    r"\.(?:py|md|toml|[ch]|json|sh|svg|png|css)\b"
)


def name(page):
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def options():
    """The options of each verb."""
    verbs = re.findall(r"^│ ([a-z][a-z-]+) ", done("--help").out, re.M)
    return {verb: set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", done(verb, "--help").out)) for verb in verbs}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_verbs_and_options_exist(page, options):
    text = re.sub(r"\\\n\s*", "", page.read_text("utf-8"))
    code = "\n".join([*(block.text for block in blocks(page)), *re.findall(r"`([^`\n]+)`", text)])
    for verb, rest in VERB.findall(code):
        assert verb in options, f"nasaug {verb}"
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", rest))
        assert named <= options[verb], f"nasaug {verb} has no {named - options[verb]}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_exist(page):
    named = FILE.findall(page.read_text("utf-8"))
    assert [file for file in named if not (ROOT / file).exists() and "NAME" not in file] == []


MADE = {"commands.md", "recipe.md", "names.md", "changelog.md"}  # by docs/site/hooks.py


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_linked_files_exist(page):
    text = re.sub(r"^[ ]*```.*?^[ ]*```", "", page.read_text("utf-8"), flags=re.M | re.S)
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text)
    assert [link for link in links if not (page.parent / link).exists() and Path(link).name not in MADE] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_lists_and_tables_have_an_empty_line_above(page):
    """Without it the repository shows a list, and the site a paragraph."""
    text = re.sub(r"^[ ]*```.*?^[ ]*```", "", page.read_text("utf-8"), flags=re.M | re.S)
    assert re.findall(r"^(?![ ]|[-*] |\d+\. |\||#).+\n((?:[-*] |\d+\. |\|).+)", text, re.M) == []


@pytest.mark.parametrize("page", FOLLOWED, ids=name)
def test_commands_are_run_or_a_comment_says_why_not(page):
    for block in blocks(page):
        if block.commands and block.kind != "console":
            assert block.not_run, f"line {block.line}: make it a console block, or say <!-- not run: WHY --> above it"


def test_the_table_of_smaller_commands_has_no_line_without_use():
    said = [command for page in FOLLOWED for block in blocks(page) for command in block.commands]
    unused = [pattern for pattern, _ in SMALLER if not any(re.search(pattern, command) for command in said)]
    assert unused == [] and all(any(c.split()[0] == tool for c in said) for tool in NOT_HERE[:1])
    assert smaller("nasaug search --mac-budget 25M").endswith("--mac-budget 100k")


@pytest.mark.parametrize("page", [ROOT / file for file in QUICK], ids=name)
def test_a_newcomer_can_follow(page, newcomer):
    assert run_page(page) >= 2


def test_the_readme_is_short_and_names_the_test_command():
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 150 and "`make test`" in text


def test_the_readmes_figures_name_their_page():
    table = (ROOT / "README.md").read_text("utf-8").partition("## What was measured")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][2:]
    assert len(rows) >= 5 and all("](docs/" in row or "the same" in row for row in rows)


def test_every_recipe_key_is_explained(monkeypatch):
    """Beside its default, or by name in the text above its table."""
    pytest.importorskip("mkdocs")
    monkeypatch.syspath_prepend(DOCS / "site")
    import hooks

    for section in re.split(r"^## ", hooks.recipe_keys(), flags=re.M)[1:]:
        about = section.partition("\n| key")[0]
        keys = re.findall(r"^\| `[\w.]*?(\w+)` \| .* \|  \|$", section, re.M)
        assert [key for key in keys if not re.search(rf"\b{key}\b", about)] == [], section.splitlines()[0]


def test_the_citation_and_the_package_agree():
    import nasaug

    text = (ROOT / "CITATION.cff").read_text("utf-8")
    keys = dict(re.findall(r"^([a-z-]+): *(.*)$", text, re.M))
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= keys.keys()
    assert keys["version"].strip("\"'") == nasaug.__version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert "version" not in project and keys["license"] == project["license"]
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert re.search(rf"^## (Unreleased \(|){re.escape(nasaug.__version__)}", changes, re.M)


@needs_browser
def test_what_is_copied_of_a_console_block_can_be_pasted(tmp_path):
    """Material copies `innerText` while the code has the attribute data-md-copying."""
    pygments = pytest.importorskip("pygments")
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_by_name

    def shown(kind, text):
        return pygments.highlight(text, get_lexer_by_name(kind), HtmlFormatter(nowrap=True))

    texts = {"console": "$ nasaug runs\nrun  verb\n$ nasaug list\n", "bash": "nasaug runs\n"}
    code = "".join(f'<div class="highlight"><pre><code>{shown(*item)}</code></pre></div>' for item in texts.items())
    each = "(c.setAttribute('data-md-copying', ''), c.innerText.trimEnd())"
    copy = f"[...document.querySelectorAll('code')].map(c => {each})"
    css = (DOCS / "site/extra.css").read_text("utf-8")
    (page := tmp_path / "page.html").write_text(
        f"<style>{css}</style>{code}<p></p><script>document.querySelector('p').title = JSON.stringify({copy})</script>"
    )
    dom, _ = browse(page.as_uri(), tmp_path / "profile", "--dump-dom")
    console, bash = json.loads(html.unescape(re.search(r'<p title="([^"]*)"', dom)[1]))
    assert [line for line in console.splitlines() if line] == ["nasaug runs", "nasaug list"] and bash == "nasaug runs"
