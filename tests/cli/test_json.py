"""--json: stdout is one JSON value, whatever else the command says."""

import json
from pathlib import Path

from support.commands import QUICK, call, done


def printed(*line):
    """The JSON value that a command prints, and what it says on stderr."""
    ended = done(*line, "--json")
    return json.loads(ended.out), ended.err


def test_a_verb_that_makes_a_run_prints_it_with_its_result(here):
    shown, said = printed("train", *QUICK, "--arch", "found.json", "--method", "baseline", "--set", "epochs=1")
    written = json.loads(Path("runs/train-1/result.json").read_text())
    assert shown == {"run": str(here / "runs/train-1"), **written} and shown["test_top1"] > 0
    assert "1 epoch of 3 steps" in said and "model, arch and figures in runs/train-1" in said
    again, said = printed("search", "--resume", "--run", "runs/search-1")
    assert again["run"] == str(here / "runs/search-1") and again["found"] and "what was found is in" in said


def test_a_report_and_a_verification_are_one_object(here):
    shown, said = printed("report", "runs/netaug-train-1", "--out", "page.html")
    assert shown["page"] == "page.html" and [arm["arm"] for arm in shown["arms"]] == ["netaug"]
    assert "page: page.html" in said


def test_errors_stay_a_line_and_stdout_empty(here):
    ended = call("train", "--arch", "none.json", "--json")
    assert ended.code == 2 and ended.out == "" and ended.err.startswith("nasaug: ")
