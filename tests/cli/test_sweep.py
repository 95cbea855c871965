"""`sweep`: a grid of sizes and magnitudes, its table, curve and pictures; what it refuses; how it goes on."""

import json
from pathlib import Path

import pytest
from test_compare import FORKING
from tiny import QUICK, done, refused

from nasaug import archfile
from nasaug.apps import cells, sweep
from nasaug.cost import cost
from nasaug.schedule import Constant, Curve, Linear, Schedule

RUN = Path("runs/sweep-1")
SWEEP = ("sweep", *QUICK, "--arch", "mobilenetv2", "--sizes", "0.02M,0.1M", "--set", "epochs=1", "--jobs", "2")


@pytest.fixture
def swept(laid_out, monkeypatch):
    monkeypatch.setattr(cells, "subprocess", FORKING)
    return done(*SWEEP, "--policies", "0,9,0:9", "--seeds", "2").out


def test_a_sweep_shows_the_grid_and_keeps_its_figures_curve_and_pictures(swept):
    assert "2 sizes x 3 policies x 1 methods x 2 seeds: 12 cells, 0 there already" in swept
    told = json.loads((RUN / "sweep.json").read_text())
    assert [row["size"] for row in told["rows"]] == ["mobilenetv2-0.02M", "mobilenetv2-0.1M"]
    for row in told["rows"]:
        assert list(row["policies"]) == ["0", "9", "0:9"]
        best = max(row["policies"].values(), key=lambda cell: cell["val_top1"]["mean"])
        assert row["policies"][row["best"]["policy"]]["val_top1"]["mean"] == best["val_top1"]["mean"]
        net = archfile.read(str(RUN / "sizes" / f"{row['size']}.json"))
        asked = float(row["size"].rpartition("-")[2].rstrip("M")) * 1e6
        assert row["macs"] == cost(net.plan).macs and abs(row["macs"] - asked) <= 0.1 * asked
    assert (RUN / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert len((RUN / "sweep.csv").read_text().splitlines()) == 13
    curve = Schedule.parse(str(RUN / "curve-baseline.json"))
    assert isinstance(curve, Curve) and curve.data_key == told["data_key"]
    again = done("sweep", "--resume", "--run", str(RUN))
    assert "is finished" in again.out or "12 there already" in again.out


def test_a_cell_is_trained_at_its_magnitude_and_at_0_without_a_policy(laid_out, monkeypatch):
    caught = []
    monkeypatch.setattr(sweep, "_finish", lambda *given: caught.append(given[:3]))
    line = {"intercept": -7.0, "slope": 3.0, "low": 0.0, "high": 30.0, "data": "d", "data_key": "k"}
    Path("by-size.json").write_text(json.dumps({"format": "nasaug-curve/1", **line}))
    done(*SWEEP, "--policies", "0,9,0:9,by-size.json", "--methods", "baseline,netaug", "--seeds", "1")
    (nets, setting, common), = caught
    made = sweep.make_cells(nets, setting, common, Path("."), {})
    views = {(cell.arch.stem, cell.arm): cell.recipe.views["train"] for cell in made}
    assert len(views) == len(made) == 2 * 2 * 4
    assert views["mobilenetv2-0.1M", "netaug@0"].policy == "none"
    assert views["mobilenetv2-0.1M", "netaug@9"].magnitude == Constant(9.0)
    assert views["mobilenetv2-0.1M", "baseline@0:9"].magnitude == Linear(0.0, 9.0)
    small, large = (views[f"mobilenetv2-{size}M", "baseline@by-size.json"].magnitude.value for size in ("0.02", "0.1"))
    assert 5 < small < large < 9
    assert {cell.recipe.method for cell in made} == {"baseline", "netaug"}


def test_a_curve_that_is_there_is_found_and_told_from_a_constant():
    def row(macs, best):
        policies = {}
        for magnitude in (0, 4, 9, 14):
            values = [50.0 - abs(magnitude - best), 51.0 - abs(magnitude - best)]
            policies[str(magnitude)] = {"seeds": [0, 1], "val_top1": {"values": values}}
        return {"macs": macs, "policies": policies}

    curve = sweep.fit([row(1e5, 0), row(3e5, 4), row(1e6, 9), row(3e6, 14)])
    assert curve["distinct"] and 8 < curve["slope"] < 11 and curve["p"] < 1e-3
    flat = sweep.fit([row(1e5, 4), row(3e5, 9), row(1e6, 9), row(3e6, 4)])
    assert not flat["distinct"] and abs(flat["slope"]) < 1
    assert sweep.fit([row(1e5, 4)]) is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--policies 31", "0 to 30"), ("--policies strong", "0 to 30"), ("--policies 4,4", "each once"),
        ("--policies 1:2:3", "0 to 30"), ("--policies none.json", "cannot read"), ("--seeds 0", "--seeds 0"),
        ("--sizes 900M", "the nearest are"), ("--sizes 1", "the nearest are"), ("--sizes x", "'x'"),
        ("--sizes 0.1M,0.1M", "each once"), ("--methods nothing", "unknown arm"), ("--jobs 0", "--jobs 0"),
        ("--seed 3", "say how many with --seeds"),
    ],
)  # fmt: skip
def test_what_no_sweep_can_be_is_refused_before_anything_is_written(laid_out, words, said):
    assert said in refused("sweep", *QUICK, "--arch", "mobilenetv2", *words.split())
