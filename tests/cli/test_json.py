"""--json: stdout is one JSON value, whatever else the command says."""

import json
from pathlib import Path

import pytest

from nasaug.cli import names
from nasaug.core.errors import nearest
from nasaug.core.files import DATA_SETS
from nasaug.deployment.formats import MAKE
from nasaug.kernels.choice import KINDS as _  # noqa: F401  loads torch once
from nasaug.training.device import DEVICES
from nasaug.training.recipe import OBJECTIVES
from support.commands import QUICK, call, done, refused


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


def test_names_that_complete_are_those_that_are_accepted():
    assert names.DEVICES == DEVICES and set(names.FORMATS) == set(MAKE) and set(names.OBJECTIVES) == set(OBJECTIVES)
    for line in (
        "search --mac-budget 1M --data digits --strategy", "search --mac-budget 1M --data digits --sampler",
        "search --mac-budget 1M --data digits --pick", "compare --arch mcunet --data digits --match",
        "sweep --data digits --pruner", "latency-table --space tiny-images --out x.json --backend",
        "list", "completion",
        "train --method baseline --arch mobilenetv2-tiny --data digits --device",
    ):  # fmt: skip
        said = call(*line.split(), "nonesuch").err
        kind = line.split()[-1].removeprefix("--")
        offered = {
            "strategy": names.STRATEGIES, "sampler": names.SAMPLERS, "pick": names.PICKS, "match": names.MATCHES,
            "pruner": names.PRUNERS, "backend": names.BACKENDS, "list": names.KINDS, "completion": names.SHELLS,
            "device": names.DEVICES,
        }[kind]  # fmt: skip
        assert [name for name in offered if name not in said] == [], said


@pytest.mark.parametrize(
    "line, meant",
    {
        "serch": "search", "search --mac-budgt 1M": "--mac-budget", "list arch": "archs", "completion bsh": "bash",
        "search --mac-budget 1M --space tinyimages": "tiny-images", "profile --arch mcunt": "mcunet",
        "search --mac-budget 1M --data digits --objectives accuracy,mac": "macs",
        "search --mac-budget 1M --data digits --strategy haling": "halving",
        "train --arch mobilenetv2-tiny --method netag --data digits": "netaug",
        "train --arch mobilenetv2-tiny --method baseline --recipe smal": "small",
        "train --arch mobilenetv2-tiny --method baseline --data fashionmnist": "fashion-mnist",
        "train --arch mobilenetv2-tiny --method baseline --data digits --set epoch=2": "epochs",
        "train --arch mobilenetv2-tiny --method baseline --data digits --set task=clasify": "classify",
        "export --run x --format onn": "onnx", "robust --run x --corruptions fgo": "fog",
        "compare --arch mobilenetv2-tiny --match epoch": "epochs", "sweep --pruner medan --data digits": "median",
    }.items(),
)  # fmt: skip
def test_what_was_meant_is_asked_for_every_kind_of_name(empty_folder, line, meant):
    assert f"did you mean {meant}" in refused(*line.split())


def test_nothing_far_away_is_suggested():
    assert nearest("zzz", DATA_SETS) is None and nearest("cifr10", DATA_SETS, 1) == "did you mean cifar10?"
