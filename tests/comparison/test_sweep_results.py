"""The analysis of a sweep's figures, and its output files."""

from pathlib import Path

from nasaug.comparison import sweep_results as swept
from nasaug.rundirs.folder import RunDir
from nasaug.tasks import Classify

METRIC = Classify.metric


def test_a_pruned_policy_is_neither_best_nor_on_the_curve_but_shown(empty_folder):
    def row(macs, best):
        policies = {}
        for magnitude in (0, 9):
            values = [50.0 - abs(magnitude - best), 51.0 - abs(magnitude - best)]
            spread = {"values": values, "mean": values[0], "half": 1.0}
            policies[str(magnitude)] = {"seeds": [0, 1], "val_top1": spread, "test_top1": spread}
        policies["14"] = {"seeds": [], "pruned": {"val_top1": 99.25, "epoch": 6}}
        found = {"method": "baseline", "size": f"{macs:g}", "macs": macs, "policies": policies}
        return found | {"best": swept._best(swept._running(policies), METRIC)}

    rows = [row(1e5, 0), row(1e6, 9), row(3e6, 9)]
    assert [row["best"]["policy"] for row in rows] == ["0", "9", "9"]
    assert len(swept.fit(rows, METRIC)["points"]) == 6
    alone = {"9": rows[0]["policies"]["9"], "14": rows[0]["policies"]["14"]}
    assert swept.fit([rows[1], rows[0] | {"policies": alone}], METRIC)["points"] == [(6.0, 9.0)] * 2 + [(5.0, 9.0)] * 2
    pruned = {"pruner": "median", "policies": 3, "cells": 6, "of": 18, "seconds": 90.0}
    curves = {"baseline": swept.fit(rows, METRIC)}
    summary = {"rows": rows, "policies": ["0", "9", "14"], "curves": curves, "pruned": pruned}
    told = swept.table(summary, METRIC)
    assert told.count("99.25 pruned") == 3 and "6 of 18 trainings were left out or cut short" in told
    swept.plot(Path("sweep.png"), summary, METRIC)


def test_a_method_of_which_nothing_is_there_and_one_with_a_slash_in_its_name_can_be_written(tmp_path):
    odd, rows = "distill:source=runs/x", []
    for macs, best in ((1e5, 0), (3e5, 4), (1e6, 9)):
        tops = {m: [50.0 - abs(m - best), 51.0 - abs(m - best)] for m in (0, 4, 9)}
        cells = {str(m): {"seeds": [0, 1], "val_top1": {"values": v, "mean": v[0]}} for m, v in tops.items()}
        line = {"method": odd, "size": f"net-{macs:g}", "macs": macs, "policies": cells}
        rows.append(line | {"best": {"policy": str(best)}})
    curves = {"baseline": None, odd: swept.fit(rows, METRIC)}
    summary = {"rows": rows, "curves": curves, "policies": ["0", "4", "9"], "data": "d", "data_key": "k"}
    swept.write(RunDir(tmp_path), summary, [], METRIC)
    there = {"curve-distill_source=runs_x.json", "sweep.json", "sweep.png", "sweep.csv"}
    assert {path.name for path in tmp_path.iterdir()} == there
    swept.write(RunDir(tmp_path), summary | {"curves": curves | {"distill_source=runs:x": curves[odd]}}, [], METRIC)
    assert len(set(tmp_path.glob("curve-distill_source=runs_x-*.json"))) == 2
