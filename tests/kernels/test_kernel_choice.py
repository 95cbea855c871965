"""A compiled kernel is used if it is correct and no slower, and a run resumes with the same choice."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import nasaug.augment.ops  # noqa: F401 (which adds its work to what is tested)
from nasaug.core.errors import BadInput
from nasaug.kernels import build, choice
from support.kernels import needs_compiler


@pytest.mark.parametrize(
    ("results", "ratios", "chosen"),
    [
        ("alike", [2.0, 2.1, 1.9], True), ("alike", [0.8, 0.85, 0.82], False), ("other", [2.0, 2.1, 1.9], False),
        ("alike", [2.0, 1.0, 3.0] * 3, None), ("alike", [2.0, 1.0, 3.0, 1.5, 1.6, 1.5], True),
    ],
)  # fmt: skip
def test_a_kernel_is_used_where_it_is_right_and_no_slower(results, ratios, chosen, monkeypatch):
    """If rounds disagree, nothing is decided."""
    out = iter([torch.ones(3), torch.ones(3) + (results == "other")])
    monkeypatch.setitem(choice.SAMPLES, "norm and activation", lambda generator: lambda: [next(out)])
    left = iter(ratios)
    monkeypatch.setattr(choice, "_ratio", lambda torchs, ours: next(left))
    assert choice._tested("norm and activation") is chosen


@needs_compiler
def test_what_was_chosen_is_kept_beside_the_library_and_what_was_not_is_tested_again(tmp_path, monkeypatch):
    monkeypatch.delenv(choice.CHOSEN)
    source = build.library()
    library = source._replace(notes=Path(shutil.copy(source.notes, tmp_path)))
    monkeypatch.setattr(build, "library", lambda: library)
    asked = []

    def test(threads, kinds):
        asked.append((threads, kinds))
        return {kind: kind.startswith("block") for kind in kinds if kind != "norm and activation"}

    monkeypatch.setattr(choice, "self_test", test)
    fresh = choice.table.__wrapped__
    first = fresh(7)
    assert first["norm and activation"] and not first["depthwise gradient, larger"]
    assert fresh(7) == first and fresh(8) == first
    assert asked == [(7, list(choice.KINDS)), (7, ["norm and activation"]), (8, list(choice.KINDS))]


@needs_compiler
@pytest.mark.parametrize("within", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_the_self_test_finds_these_kernels_right(within, monkeypatch):
    """Every kind is correct; their speed is a matter for the benchmarks."""
    monkeypatch.setattr(choice, "_ratio", lambda torchs, ours: 1.5)
    monkeypatch.setattr(choice, "ENOUGH_S", 100.0)
    with within():
        assert choice.self_test(1, list(choice.KINDS)) == dict.fromkeys(choice.KINDS, True)


@needs_compiler
def test_a_kernel_may_be_asked_for_first_in_a_forward_pass():
    """In a separate process, in which no choice has been made yet."""
    program = """
import torch
from nasaug.kernels import choice
choice._kept = lambda *given: {}
from nasaug.kernels.fused import conv_norm_act
from nasaug.arch.blocks import Layer
x, w, one, zero = torch.randn(4, 6, 5, 5), torch.randn(6, 1, 3, 3), torch.ones(6), torch.zeros(6)
for t in (w, one, zero):
    t.requires_grad_().grad = torch.zeros_like(t)
layer = Layer("it", "conv", 6, 6, 5, 5, 3, 1, 6, act="relu6")
conv_norm_act(x, layer, w, one, zero, (None, None, 0.0), 1e-5).sum().backward()
print(len(choice.table(1)))
"""
    free = {name: value for name, value in os.environ.items() if name != choice.CHOSEN}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=free)
    assert done.stdout == f"{len(choice.KINDS)}\n", done.stderr


@needs_compiler
def test_a_run_goes_on_with_what_it_chose(monkeypatch):
    monkeypatch.setattr(choice, "_adopted", None)
    recorded = choice.record() | {"compiled": ["norm and activation"]}
    monkeypatch.setattr(choice, "self_test", lambda *given: pytest.fail("what was recorded is not tested"))
    assert choice.adopt(recorded) == ""
    assert choice._table() == {kind: kind == "norm and activation" for kind in choice.KINDS}
    assert "threads 99 then" in choice.adopt(recorded | {"threads": 99})
    assert choice._adopted is not None
    assert "kernels for NEON then" in choice.adopt(recorded | {"unit": "NEON"}) and choice._adopted is None
    choice.adopt(recorded)
    assert choice.adopt({}) == "" and choice._adopted is None  # a new run in the same process


def test_what_a_command_chose_for_its_cells_holds_whatever_would_be_found(monkeypatch):
    chosen = dict.fromkeys(choice.KINDS, False) | {"augmentation": True}
    monkeypatch.setattr(choice, "table", lambda threads: chosen)
    for name, value in choice.for_cells(1).items():
        monkeypatch.setenv(name, value)
    assert choice._chosen_for_cells() == chosen


@pytest.mark.parametrize("text", ["much", "[1]", "{"])
def test_a_table_that_is_none_is_refused(text, monkeypatch):
    monkeypatch.setenv(choice.CHOSEN, text)
    with pytest.raises(BadInput, match=f"{choice.CHOSEN}=.* unset it"):
        choice.table.__wrapped__(1)
