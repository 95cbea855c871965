"""The cells of a comparison: parsing of arms, and the names of their files."""

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest

import nasaug
from nasaug.arch import archfile
from nasaug.comparison import cells, compare
from nasaug.core.errors import BadInput
from nasaug.data import Record
from nasaug.methods import METHODS, Baseline
from nasaug.training.recipe import Recipe


def test_commas_between_arms_are_told_from_those_within(empty_folder):
    Path("mine.toml").write_text("lr = 0.01")
    lines = {
        "baseline, netaug": ["baseline", "netaug"],
        "netaug:share=0.5,sort=false,mixup": ["netaug:share=0.5,sort=false", "mixup"],
        "netaug:width_factors=[1.0,2.0],share=0.5,baseline": ["netaug:width_factors=[1.0,2.0],share=0.5", "baseline"],
        "mine.toml,mine.toml+mixup": ["mine.toml", "mine.toml+mixup"],
        "netaug:sort=false+mixup:mixup=0.4,ema:ema=0.5": ["netaug:sort=false+mixup:mixup=0.4", "ema:ema=0.5"],
    }
    for line, arms in lines.items():
        assert compare.arms_of(line) == arms
    with pytest.raises(BadInput, match="names 'mixup' twice"):
        compare.arms_of("mixup,baseline,mixup")


def test_arms_with_long_names_or_names_alike_get_file_names_of_their_own():
    """All other names are unchanged, so that existing cells are still found."""
    assert cells.plain_name("netaug:sort=false+distill:source=runs/x") == "netaug_sort=false_distill_source=runs_x"
    assert cells.folder_name("a" * 60, 1, "0123456789abcdef") == f"{'a' * 60}-s1-01234567"
    one, other = f"distill:source={'x' * 60}/1", f"distill:source={'x' * 60}/2"
    assert len({cells.plain_name(arm) for arm in (one, other, one[:60])}) == 3
    assert len(cells.plain_name(one + other)) < 70
    alike = ["netaug+x.toml", "netaug_x.toml"]
    assert len({cells.plain_name(arm, alike) for arm in alike}) == 2
    assert cells.plain_name(alike[0], [alike[0], "baseline"]) == "netaug_x.toml"


def test_a_cells_key_tells_a_pruned_net_from_its_like():
    found = archfile.read("mobilenetv2-tiny")
    pruned = [replace(found, facts={"pruned": share}) for share in (0.0, 0.5, 0.6)]
    data = SimpleNamespace(record=Record("digits", ("0", "1")))
    keys = [cells.key_of(net, "", Recipe(), data) for net in (found, *pruned)]
    assert keys[0] == keys[1] and len(set(keys)) == 3


@pytest.mark.parametrize("module", ["__main__", "mine.methods"])
@pytest.mark.parametrize("function", [nasaug.compare, nasaug.sweep])
def test_a_method_that_the_cells_processes_do_not_know_is_refused(empty_folder, monkeypatch, module, function):
    own = dataclass(frozen=True)(type("Own", (Baseline,), {"__module__": module}))
    monkeypatch.setitem(METHODS, "own", own)
    arch = {} if function is nasaug.sweep else {"arch": "mobilenetv2-tiny"}
    given = {"methods": "own", "seeds": 1, "data": "digits", "device": "cpu", **arch}
    monkeypatch.setenv("NASAUG_IMPORT", "other, another.mine")
    told = "a script.*put it into a module.*=MODULE" if module == "__main__" else "mine.methods.*=mine.methods"
    with pytest.raises(BadInput, match=f"method = own is registered in {told}") as refused:
        function(**given)
    assert refused.value.field == "method" and not Path("runs").exists()
    if module != "__main__":
        monkeypatch.setenv("NASAUG_IMPORT", "other, mine")
        monkeypatch.setattr("nasaug.training.begin.RunDir.create", mock.Mock(side_effect=InterruptedError))
        with pytest.raises(InterruptedError):
            function(**given)
