"""A search under a latency budget, from the table to the profile of what it found."""

import json
from pathlib import Path

import pytest

from nasaug.arch import archfile, latency
from nasaug.arch.blocks import BLOCKS
from nasaug.arch.cost import cost_of
from nasaug.arch.spacefile import load
from support.commands import QUICK, done, refused
from support.tables import content_of


@pytest.fixture
def table(laid_out):
    """A table of the tiny space; milliseconds within which a part of its networks are."""
    space = load("tiny.toml", BLOCKS)
    content = content_of(space)
    Path("table.json").write_text(json.dumps(content))
    device = latency.Table(content)
    times = [device.predict(archfile.plans.plan(space, end, 10)) for end in (space.smallest, space.largest)]
    return space, content, f"{(times[0] * times[1]) ** 0.5:.4f}ms"


def test_what_is_found_obeys_it_and_a_resumed_run_keeps_the_table(table):
    space, content, budget = table
    told = done("search", *QUICK, "--latency-budget", budget, "--device-table", "table.json", "--run", "r").out
    assert "latency: table.json, a chip, 1 core, onnxruntime 1" in told
    assert f"are within: latency <= {float(budget[:-2]) * 1000:.3g} us" in told
    found = json.loads(Path("found.json").read_text())
    assert 0 < found["latency"] <= float(budget[:-2]) and found["latency_of"].startswith("a chip, 1 core, onnxruntime")
    net = archfile.read("found.json")
    assert found["latency"] == latency.read("r/latency.json").predict(net.plan)
    assert "latency" not in found["cost"] and cost_of(space, net.arch, 10).latency is None
    result = json.loads(Path("r/result.json").read_text())
    assert all(c["latency"] <= float(budget[:-2]) for c in result["finalists"])
    assert result["latency"] == found["latency"]
    Path("table.json").unlink()
    more = str(result["candidates"] + 2)
    done("search", "--resume", "--run", "r", "--trials", more)
    Path("other.json").write_text(json.dumps(content | {"device": "another"}))
    said = refused("search", "--resume", "--run", "r", "--device-table", "other.json")
    assert "--device-table other.json is not the table that r was begun with; leave it out" in said
    page = Path("r/search.html").read_text()
    assert "predicted by the table of a chip, 1 core, onnxruntime 1, 1 thread" in page and ">latency</th>" in page
    told = done("profile", "--arch", "found.json", "--device-table", "r/latency.json").out
    whose = "predicted by r/latency.json, made for space tiny: a chip, 1 core, onnxruntime 1, 1 thread\n"
    assert "one image: predicted " in told and told.endswith(whose)
    shown = json.loads(done("profile", "--arch", "found.json", "--device-table", "r/latency.json", "--json").out)
    assert shown["latency"] == latency.read("r/latency.json").predict(archfile.read("found.json").plan)
    assert shown["latency_of"] == "a chip, 1 core, onnxruntime 1, 1 thread"
    assert "is of a chip, 1 core" in refused(
        "profile", "--arch", "found.json", "--device-table", "r/latency.json", "--measure"
    )


def test_tables_that_should_not_decide_are_refused(table):
    _, content, budget = table
    search = ("search", *QUICK, "--latency-budget", budget, "--device-table", "t.json")

    def told(**changes):
        Path("t.json").write_text(json.dumps(content | changes))
        return refused(*search)

    bad = content["checked"] | {"mean_error": 0.3}
    assert "--device-table t.json predicts badly: its mean error is 30.0 %, of 10 % allowed; " in told(checked=bad)
    assert "--trust-table" in told(checked=bad)
    other = {"name": "tiny", "hash": "0000000000"}
    assert "t.json is of another version of space tiny" in told(space=other)
    less = content["model"] | {"rows": content["model"]["rows"][1:]}
    assert "t.json has no layers like" in told(model=less)
    Path("t.json").write_text(json.dumps(content))
    impossible = refused("search", *QUICK, "--latency-budget", "1us", "--device-table", "t.json")
    assert "--latency-budget 1 us is impossible in space tiny: its smallest" in impossible
    assert not Path("runs").exists()
    assert "--trust-table has no table to trust; give" in refused(*search[:-4], "--mac-budget", "100k", "--trust-table")
    Path("layers.csv").touch()
    said = refused(*search[:-1], "layers.csv")
    assert "layers.csv holds layers, and is no table; make one of it with nasaug latency-table --from-csv" in said
    Path("t.json").write_text(json.dumps(content | {"checked": bad, "space": other}))
    done(*search, "--trust-table", "--trials", "2")
    told = done("profile", "--arch", "found.json", "--device-table", "t.json").out
    assert told.endswith("; it predicts badly: its mean error is 30.0 %, of 10 % allowed\n")
