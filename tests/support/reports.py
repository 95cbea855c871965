"""Synthetic folders of finished trainings."""

import json

import numpy as np
from safetensors.numpy import save_file

from nasaug.comparison import report

IMAGES, SEEDS = 2000, range(5)


def make_run(folder, top1=70.0, *, seed=0, arm="baseline", images=IMAGES, correct=True, **changed):
    """A finished run as `train` leaves it, with the closest test top-1 that `images` allow."""
    folder.mkdir(parents=True)
    order = np.random.default_rng(0).permutation(images)  # a better run is right wherever a worse one is
    right = np.zeros(images, np.uint8)
    right[order[: round(top1 * images / 100)]] = 1
    rows = [
        {"epoch": e, "step": 10 * e, "val_top1": top1 - 9 / e, "train_top1": top1 + 5 - 12 / e, "train_macs": e * 1e9,
         "seconds": 9.0 * e, "loss_base": 2 / e, "note": "x"}
        for e in (1, 2, 3)
    ]  # fmt: skip
    result = {
        "format": "nasaug-result/1", "method": "baseline", "arch": "tiny-net", "data": "fashion-mnist",
        "data_key": "0123456789abcdef", "seed": seed, "macs": 23_500_000, "params": 750_000, "val_top1": top1 + 1,
        "val": rows, "test_top1": 100 * right.mean(), "test_images": images, "epochs": 3, "train_macs": 3e12,
        "seconds": 1800.0, "device": "CPU, 2 threads", "arm": arm, "train_top1": top1 + 4, "peak_memory": 300 * 2**20,
    }  # fmt: skip
    result = {key: value for key, value in (result | changed).items() if value is not ...}
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "env.json").write_text(json.dumps({"format": "nasaug-env/1", "command": f"nasaug train --seed {seed}"}))
    if correct:
        save_file({"correct": right}, folder / "test.safetensors")
    return folder


def make_comparison(folder, seeds=SEEDS, **arms):
    """Runs of arms with the given top-1, varied slightly by seed; returns their folders."""
    noise = np.random.default_rng(1).normal(0, 0.3, (len(arms), 99))
    return [
        make_run(folder / f"{name}-{seed}", top1 + seed / 4 + noise[i, seed], seed=seed, arm=name.replace("_", "+"))
        for i, (name, top1) in enumerate(arms.items()) for seed in seeds
    ]  # fmt: skip


def summary_of(folder, seeds=SEEDS, **arms):
    """The summary of a comparison made by `make_comparison`."""
    return report.summarise(report.read_runs(make_comparison(folder, seeds, **arms)))
