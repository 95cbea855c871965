"""The summary of a made-up search, for its page."""

from nasaug.core.metric import Metric
from nasaug.reporting.pictures import MACS

AXES = {"x": MACS, "y": None, "limit": 1.0, "line": True}
DRAWING = '<svg class="net" viewBox="0 0 9 9"><title>net</title></svg>'


def row(name, macs, *, scored=80.0, full=81.0, trained=90.0, rounds=1, epochs=2.0, **more):
    costs = {"macs": macs, "params": 2000, "peak": 3072, "flash": 4096, "resolution": 28}
    scores = {"scored": scored, "full": full, "trained": trained, "rounds": rounds, "epochs": epochs}
    return {"id": name, **scores, **costs, **more}


def summary(**other):
    """A search with every part that it can have."""
    finalists = [row("best", 900_000, trained=93.0, rounds=2), row("second", 800_000),
                 row("lost", 700_000, trained=None), row("idle", 600_000, trained=None, rounds=0)]  # fmt: skip
    shapes = [row("wide", 1e6, trained=70.0, shape={"resolution": 28, "s1.stride": 1}),
              row("deep", 1e6, trained=60.0, shape={"resolution": 24, "s1.stride": 2}),
              row("none", 1e6, trained=None, rounds=0, shape={"resolution": 20, "s1.stride": 1})]  # fmt: skip
    scored = {"points": {"candidates": [(0.2, 70.0), (0.9, 80.0)]}, "front": [(0.2, 70.0), (0.9, 80.0)], **AXES,
              "found": [(0.9, 80.0)], "ylabel": "validation top-1 (%), weights of the supernet"}  # fmt: skip
    trained = {"points": {"trained 2 epochs (round 1)": [(0.8, 90.0)], "trained 4 epochs (round 2)": [(0.9, 93.0)]},
               "front": (), "found": [(0.9, 93.0)], "ylabel": "validation top-1 (%), after own training", **AXES,
               }  # fmt: skip
    return {
        "name": "space:best", "data": "photos", "images": "3 classes; 9 training images", "space": "space",
        "drawing": DRAWING, "command": "nasaug search --mac-budget 1M", "budget": "MACs <= 1M", "searched": "",
        "strategy": "supernet", "seed": 3, "recipe": 'lr = 0.1\nspace = "space"\n', "device": "CPU", "commit": "abc",
        "latency_of": "",
        "versions": {"nasaug": "1", "torch": None}, "metric": Metric("top1", "%").to_plain(), "by": "loss",
        "objectives": ("accuracy",), "pick": "best", "score_images": 1000, "val_images": 5000,
        "axes": [("resolution", "resolution", (28,)), ("s1.width", "width", (8, 16)),
                 ("s1.b1.expand+kernel", "expand+kernel", ((0, 3), (2.5, 5))),
                 ("s1.b2.expand+kernel", "expand+kernel", ((0, 3), (2.5, 5)))],
        "shapes": shapes, "candidates": 30, "front": [row("small", 200_000)], "finalists": finalists,
        "ended": [row("best", 900_000, rules=["best"])], "panels": {"scored": [scored], "trained": [trained]},
        "stages": [{"stage": "shape", "nets": 3, "train_macs": 2e9, "seconds": 60.0},
                   {"stage": "supernet", "nets": 1, "train_macs": 3e9, "seconds": 90.0},
                   {"stage": "candidate", "nets": 30, "train_macs": None, "seconds": 12.0},
                   {"stage": "finalist", "nets": 5, "train_macs": 1e9, "seconds": 30.0}],
        "costs": [{"what": "MACs", "unit": "macs", "used": 900_000, "budget": 1_000_000},
                  {"what": "peak SRAM", "unit": "bytes", "used": 3072, "budget": 4096},
                  {"what": "flash", "unit": "bytes", "used": 4096, "budget": None}],
        "little_used": "the net found uses little: why not", "agreed": "Kendall's tau is -0.50 (p = 0.4)",
        "commands": [("Train it", "python -m nasaug train --arch 'a b/found.json'")],
    } | other  # fmt: skip
