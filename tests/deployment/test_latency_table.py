"""Latency tables: the fit, the measurement, and figures from elsewhere."""

import json
import re
from pathlib import Path
from random import Random

import numpy as np
import pytest

from nasaug.arch import archfile
from nasaug.arch.blocks import BLOCKS
from nasaug.arch.latency import Table, all_parts, parts, read
from nasaug.arch.plan import plan
from nasaug.arch.spacefile import load
from nasaug.core.errors import BadInput
from nasaug.core.signals import Stopped
from nasaug.deployment import latency, layer_rows, timing
from support.commands import done
from support.searches import SPACE
from support.spaces import made, stage
from support.tables import table_of

SMALL = made({
    "name": "small", "resolution": [8, 12],
    "stage": [
        stage("stem", "conv", width=[8, 16], kernel=3, stride=2, act="relu6"),
        stage("s1", "inverted", width=[8, 16, 24], depth=[1, 2], expand=[2, 3], kernel=[3, 5], act="relu6"),
        stage("pool", "pool"),
    ],
})  # fmt: skip

UNEVEN = made({
    "name": "uneven", "resolution": [8, 12, 16], "divisor": 4,
    "stage": [
        stage("stem", "conv", width=[4, 8, 12, 16], kernel=3, stride=2, act="relu6"),
        stage("s1", "inverted", width=[4, 8, 12, 20], depth=[1, 2], expand=[2, 3], kernel=[3, 5], act="relu6"),
        stage("pool", "pool"),
    ],
})  # fmt: skip


def lots_of(space, count):
    archs = latency.drawn(space, count)
    return [[part for block in plan(space, arch, 10).blocks for part in parts(block)] for arch in archs]


def test_a_fit_finds_what_made_the_times_even_if_a_few_are_wrong():
    truth, lots = table_of(UNEVEN), lots_of(UNEVEN, 120)
    times = [truth.constant + sum(map(truth._of_part, lot)) for lot in lots]
    noisy = [ms * Random(i).uniform(0.99, 1.01) for i, ms in enumerate(times)]
    noisy[7], noisy[70] = 5 * noisy[7], 3 * noisy[70]
    model = latency.fit(lots, noisy, constant=True)
    errors = np.abs(np.array([model.of(lot) for lot in lots]) / times - 1)
    assert model.multiple == 8 and errors.mean() < 0.02
    assert min(min(row) for row in model.columns.values()) >= 0


def test_the_networks_differ_and_have_every_kind_of_layer():
    archs = latency.drawn(SPACE, 40)
    plans = {plan(SPACE, arch, 10) for arch in archs}
    assert len(plans) == len(archs) >= 40 and {SPACE.smallest, SPACE.largest} <= set(archs)
    kinds = latency._kinds(plans)
    wanted = {(part.kind, part.kernel) for part in all_parts(SPACE, 10)}
    assert set(kinds) == wanted and min(kinds.values()) >= latency.EACH


@pytest.fixture
def brief(monkeypatch):
    """A measurement that takes seconds."""
    for name, value in (("SECONDS", 0), ("LEAST_RUNS", 2), ("WARM_UP", 1), ("MORE_VISITS", 0), ("VISITS", 1)):
        monkeypatch.setattr(timing, name, value)
    monkeypatch.setattr(timing, "REFERENCE_SECONDS", 0)
    monkeypatch.setattr(latency, "VISITS", 1)
    monkeypatch.setattr(latency, "CHECKED", 30)
    monkeypatch.setattr(latency, "load", lambda name, blocks: SMALL)


def _full(path, content, out):
    """Writes, but not the table."""
    if path == out:
        raise OSError("no space")
    path.write_text(json.dumps(content))


def test_a_stopped_measurement_goes_on_and_ends_with_a_table(brief, tmp_path, monkeypatch):
    out, real, left = tmp_path / "t.json", timing.Clock._visit, [55]

    def visit(clock, run):
        left[0] -= 1
        if not left[0]:
            raise Stopped(15)
        return real(clock, run)

    monkeypatch.setattr(timing.Clock, "_visit", visit)
    with pytest.raises(Stopped) as stop:
        latency.latency_table("small", out, networks=40)
    assert stop.value.resume.startswith("nasaug latency-table --resume --space small --out")
    kept = json.loads((tmp_path / "t.json.part").read_text())
    assert 50 <= sum(map(len, kept["timings"])) < 55 and not out.exists()
    for given, said in (({}, "unfinished measurement; go on"), ({"resume": True, "threads": 2}, "another threads")):
        with pytest.raises(BadInput, match=said):
            latency.latency_table("small", out, networks=40, **given)
    monkeypatch.setattr(timing.Clock, "_visit", real)
    with monkeypatch.context() as full, pytest.raises(OSError, match="no space"):
        full.setattr(latency.files, "write_json", lambda path, content: _full(path, content, out))
        latency.latency_table("small", out, networks=40, resume=True)
    assert len(json.loads((tmp_path / "t.json.part").read_text())["timings"]) >= 70  # nothing measured is lost
    table = latency.latency_table("small", out, networks=40, resume=True)
    assert not (tmp_path / "t.json.part").exists() and table.content == read(out).content
    measured = table.content["measured"]
    assert sum(row["checks"] for row in measured) == table.checked.number >= 30 and len(measured) >= 70
    p = plan(SMALL, SMALL.largest, 10)
    assert table.predict(p) > 0 and table.space == "small" and table.device == timing.device()
    found = timing.measured(p, table)
    assert 0 < found["median_ms"] <= found["p95_ms"] and found["corrected_ms"] > 0
    reference, ms = table.reference
    with monkeypatch.context() as slow:  # today the reference takes twice as long, and the network 3 ms
        slow.setattr(timing.Clock, "around", lambda clock, run: ([2.0, 3.0, 4.0], 2 * ms))
        assert timing.measured(p, table) == {"median_ms": 3.0, "p95_ms": 4.0, "corrected_ms": 1.5}
    assert [r["milliseconds"] for r in measured if plan(SMALL, SMALL.arch(r["choices"]), 10) == reference]
    other = Table({**table.content, "device": "a phone"}, "t.json")
    with pytest.raises(BadInput, match="device_table = t.json is of a phone, but this is .*; leave out measure"):
        timing.measured(p, other)
    older = Table({**table.content, "backend": {"name": "onnxruntime", "version": "1.0"}}, "t.json")
    with pytest.raises(BadInput, match="is of onnxruntime 1.0, but this is onnxruntime 1"):
        timing.measured(p, older)
    (tmp_path / "old.json").write_text(json.dumps({k: v for k, v in table.content.items() if k != "reference"}))
    archfile.ArchFile(p, "largest").save(tmp_path / "net.json")
    timed = ("profile", "--arch", str(tmp_path / "net.json"), "--measure", "--device-table")
    told = done(*timed, str(tmp_path / "old.json")).out
    assert "measured median" in told and "corrected" not in told.splitlines()[-3]
    assert "old.json was made by an older nasaug and keeps no time of a reference network" in told
    told = done(*timed, str(out)).out
    assert re.search(r"predicted .*, measured median .*, median corrected for drift .*s$", told, re.M)
    assert f"predicted by {out}, made for space small: {timing.device()}, onnxruntime " in told


class Steady:
    """A clock by which the second of two networks is timed differently at first."""

    def __init__(self):
        self.order = []

    def timed(self, net):
        self.order.append(net)
        return (3.0 if net == "b" and self.order.count("b") == 1 else 1.0), 1.0


def test_networks_are_timed_in_sweeps_and_more_often_if_their_timings_differ(monkeypatch):
    clock, seen = Steady(), [[], []]
    timing.swept(clock, ["a", "b"], [3, 6], seen)
    assert clock.order == list("abb" * 3)  # the quartiles of b's agree
    clock, seen = Steady(), [[[1.0, 1.0]] * 3, [[1.0, 1.0], [3.0, 1.0]]]  # resumed
    timing.swept(clock, ["a", "b"], [3, 3], seen)
    assert clock.order == list("bbbbb") and len(seen[1]) == 3 + timing.MORE_VISITS


def test_eager_torch_can_be_timed_too():
    clock = timing.Clock(plan(SMALL, SMALL.smallest, 10), "torch", 1)
    own, reference = clock.timed(plan(SMALL, SMALL.largest, 10))
    assert own > 0 and reference > 0
    with pytest.raises(BadInput, match="unknown backend 'tflite'; .*onnxruntime, torch"):
        timing.version("tflite")


def test_the_speed_of_the_machine_is_divided_out():
    assert timing.figure([(2.0, 1.0), (4.0, 2.0), (3.0, 1.5)], usual=1.0) == 2.0


# --- figures from elsewhere ---------------------------------------------------------------------------------


def filled(path, ms=lambda part: 1.0):
    """The template of SMALL with milliseconds."""
    layer_rows.write_template(path, SMALL)
    head, *lines = path.read_text().splitlines()
    chosen = layer_rows.wanted(SMALL)
    path.write_text("\n".join([head, *(f"{line}{ms(p)}" for line, p in zip(lines, chosen, strict=True))]) + "\n")
    return chosen


def test_a_filled_template_makes_a_table(tmp_path, monkeypatch):
    monkeypatch.setattr(latency, "load", lambda name, blocks: SMALL)
    truth, path = table_of(SMALL), tmp_path / "layers.csv"
    chosen = filled(path, truth._of_part)
    assert [part for part, _ in layer_rows.read(path)] == chosen
    table = latency.latency_table("small", tmp_path / "t.json", from_csv=path, device_name="Pixel 9")
    assert str(table) == "Pixel 9, figures from layers.csv, 1 thread" and not table.checked.doubt
    p = plan(SMALL, SMALL.largest, 10)
    assert table.predict(p) == pytest.approx(truth.predict(p) - truth.constant, rel=0.05)
    assert table.checked.of == "layers" and table.checked.mean_error < 0.1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("conv,3,1,relu6,4,8,8,8,0,", "line 2: no milliseconds; fill"),
        ("cnv,3,1,relu6,4,8,8,8,0,1", "layer = 'cnv' is unknown; choices: conv, depthwise"),
        ("conv,3,1,gelu,4,8,8,8,0,1", "activation = 'gelu' is unknown; choices: relu"),
        ("conv,3,1,relu6,4,0,8,8,0,1", "outputs = '0' must be a whole number of at least 1"),
        ("conv,3,1,relu6,4,8,8,8,x,1", "middle = 'x' must be"),
        ("conv,3,1,relu6,4,8,8,8,0,fast", "milliseconds = 'fast' must be a number above 0"),
        ("conv,3,1,relu6,4,8,8,8,0,-1", "above 0"), ("conv,3,1", "no milliseconds"),
        ("conv,3,1,relu6,4,8,8,8,0,1", "has 1 layers; give at least 12"),
    ],
)  # fmt: skip
def test_bad_figures_are_refused_by_line(tmp_path, line, said):
    path = tmp_path / "layers.csv"
    path.write_text(",".join(layer_rows.COLUMNS) + "\n" + line + "\n")
    with pytest.raises(BadInput, match=said):
        latency._imported(SMALL, path, "a phone", 1)


def printed(*line):
    """The JSON value that a command prints, and what it says on stderr."""
    ended = done(*line, "--json")
    return json.loads(ended.out), ended.err


def test_json_from_the_template_to_the_profiles_of_two_networks(laid_out):
    make = ("latency-table", "--space", "tiny.toml", "--out")
    shown, said = printed(*make, "layers.csv", "--csv-template")
    assert shown == {"path": "layers.csv"} and "fill in the milliseconds" in said
    head, *lines = Path("layers.csv").read_text().splitlines()
    assert head == ",".join(layer_rows.COLUMNS)
    Path("layers.csv").write_text("\n".join([head, *(line + "0.5" for line in lines)]) + "\n")
    shown, said = printed(*make, "t.json", "--from-csv", "layers.csv", "--device-name", "Pixel 9")
    assert shown == {"path": "t.json", **json.loads(Path("t.json").read_text())} and shown["device"] == "Pixel 9"
    assert shown["checked"]["number"] == len(lines) and "t.json: Pixel 9" in said
    space = load("tiny.toml", BLOCKS)
    for end in ("smallest", "largest"):
        archfile.ArchFile(plan(space, getattr(space, end), 10), end).save(Path(f"{end}.json"))
    both, _ = printed("profile", "--arch", "smallest.json,largest.json", "--device-table", "t.json")
    assert [each["arch"] for each in both] == ["smallest", "largest"] and both[0]["latency"] < both[1]["latency"]
    assert {each["latency_of"] for each in both} == {"Pixel 9, figures from layers.csv, 1 thread"}
    table = done("profile", "--arch", "smallest.json,largest.json", "--device-table", "t.json").out.splitlines()
    assert table[-2].startswith("latency, predicted  ") and table[-1].startswith("predicted by t.json, made for spa")


def test_json_of_a_measurement_is_the_table(brief, tmp_path):
    shown, said = printed("latency-table", "--space", "small", "--out", str(tmp_path / "t.json"), "--networks", "40")
    assert shown == {"path": str(tmp_path / "t.json"), **json.loads((tmp_path / "t.json").read_text())}
    assert (shown["threads"], shown["how"]["warm_up"], shown["how"]["runs"]) == (1, 1, [2, 500])
    assert shown["checked"]["of"] == "networks" and shown["device"] == timing.device() and "timing " in said


def test_figures_that_lack_a_kind_of_layer_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(latency, "load", lambda name, blocks: SMALL)
    path = tmp_path / "layers.csv"
    filled(path)
    kept = [line for line in path.read_text().splitlines() if not line.startswith("pool")]
    path.write_text("\n".join(kept))
    with pytest.raises(BadInput, match="layers.csv has no layers like pool"):
        latency.latency_table("small", tmp_path / "t.json", from_csv=path, device_name="Pixel 9")
    assert not (tmp_path / "t.json").exists()


def test_the_shipped_space_has_a_template(tmp_path):
    count = layer_rows.write_template(tmp_path / "layers.csv", load("tiny-images", BLOCKS))
    assert 100 < count < 200
