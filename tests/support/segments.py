"""Segmentation sets that tests make: shapes on canvases, by benchmarks/segmentation.py."""

import importlib.util
from functools import cache
from pathlib import Path

_FILE = Path(__file__).parents[2] / "benchmarks" / "segmentation.py"
TINY = {"sides": (64, 64), "sizes": (20, 32), "objects": (1, 2)}


@cache
def segmentation():
    """The module benchmarks/segmentation.py."""
    spec = importlib.util.spec_from_file_location("segmentation", _FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def written(folder, train=12, test=4):
    """A set of tiny canvases in COCO's layout, with masks as polygons and as runs."""
    drawn = segmentation().canvases
    segmentation().write(folder, {"train": drawn(train, 1, **TINY), "test": drawn(test, 2, **TINY)})
    return folder
