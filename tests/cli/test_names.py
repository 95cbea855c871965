"""Names that are not UTF-8 (classes, data, runs, recipes, spaces and arms), from a search to the report page."""

import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from nasaug.core import tensorfile
from support.commands import QUICK, call, done

ODD, OTHER = os.fsdecode(b"caf\xe9"), os.fsdecode(b"caf\xe8")
FEW = ("--set", "data.train_images=0", "--set", "epochs=1")


@pytest.fixture
def odd(laid_out):
    """An image folder whose name and two class names are not UTF-8, with such names for a recipe, a space and an arm
    too."""
    for i in range(90):
        folder = Path(ODD, (ODD, OTHER, "a")[i % 3])
        folder.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((12, 12), i).save(folder / f"{i}.png")
    shutil.copy("quick.toml", f"{ODD}.toml")
    shutil.copy("tiny.toml", f"tiny{ODD}.toml")
    Path(f"arm{ODD}.toml").write_text("lr = 0.02\n")
    return ("--recipe", f"{ODD}.toml", "--data", ODD, *FEW)


def test_from_the_search_to_the_page(odd):
    done("search", *odd, "--mac-budget", "100k", "--set", f"space=tiny{ODD}.toml", "--trials", "2", "--run", f"s{ODD}")
    shutil.move("found.json", f"found{ODD}.json")
    run = f"t{ODD}"
    for arm, where in (("baseline", run), (f"arm{ODD}.toml", OTHER)):
        done("train", *odd, "--arch", f"found{ODD}.json", "--method", arm, "--run", where)
    result = json.loads(Path(run, "result.json").read_text("utf-8"))
    assert result["classes"] == ["a", OTHER, ODD] and result["data"] == ODD
    assert tensorfile.facts(Path(run, "model.safetensors"))["classes"] == result["classes"]
    assert "is finished already" in done("train", "--resume", "--run", run).out
    target = ("--target-macs", str(result["macs"] * 3 // 4))
    done("prune", "--from", run, *target, "--steps", "1", *FEW[2:], "--run", f"p{ODD}")
    done("report", run, OTHER, "--out", f"{ODD}.html")
    page = Path(f"{ODD}.html").read_text("utf-8")
    assert "armcaf\\udce9.toml" in page and "$&#x27;found" in page or "caf\\udce9" in page
    table = Path(f"{ODD}.csv").read_bytes()
    assert os.fsencode(run) in table and os.fsencode(OTHER) in table
    done("profile", "--arch", f"found{ODD}.json", "--json")


def test_what_is_refused_is_one_line(odd):
    for asked in (("--data", "/no/" + ODD), ("--data", OTHER), ("--recipe", OTHER), ("--arch", f"{OTHER}.json"),
                  ("--set", f"teacher.source={OTHER}"), ("--method", OTHER), ("--run", ODD)):  # fmt: skip
        given = {"--data": ODD, "--recipe": QUICK[1], "--arch": "mobilenetv2-tiny"} | {asked[0]: asked[1]}
        called = call("train", *(word for pair in given.items() for word in pair))
        assert called.code == 2 and called.err.count("\n") == 1, (asked, called.err)
        assert called.err.encode(errors="backslashreplace").count(b"\\udce") > 0
