"""The names that options take, as types: each completes in a shell (`nasaug completion`)."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any

from cyclopts import Parameter

Offer = Callable[[str], Iterable[str]]  # candidates for what is typed so far


def _completed(*offers: Offer, several: str = "") -> Parameter:
    """A parameter that completes to what all `offers` give together. `several` are the characters between values of a
    list: only the last value is completed."""

    def complete(context: Any) -> list[str]:
        typed = context.incomplete
        last = re.split(f"[{re.escape(several)}]", typed)[-1] if several else typed
        before = typed[: len(typed) - len(last)]
        found = dict.fromkeys(each for offer in offers for each in offer(last))
        return [before + each for each in found if each.startswith(last)]

    return Parameter(completer=complete)


def _these(*names: str) -> Offer:
    return lambda typed: names


def _files(*endings: str) -> Offer:
    """Files with one of the endings, and folders, whose names start as typed."""

    def offer(typed: str) -> list[str]:
        found = glob.glob(glob.escape(typed) + "*")
        return [p + os.sep if os.path.isdir(p) else p for p in sorted(found) if os.path.isdir(p) or p.endswith(endings)]

    return offer


def _shipped(pattern: str, kind: str = "recipes") -> Offer:
    def offer(typed: str) -> list[str]:
        from ..core.files import bundled

        return sorted(path.stem for path in bundled(kind).glob(pattern))

    return offer


def _archs(typed: str) -> list[str]:
    from ..core.files import bundled

    # by the tables' heads, because reading all the spaces takes longer than a key should
    texts = (path.read_text("utf-8") for path in sorted(bundled("search_spaces").glob("*.toml")))
    return sorted({name for text in texts for name in re.findall(r'^\[arch\."?([\w.-]+?)"?\]', text, re.M)})


def _data(typed: str) -> Iterable[str]:
    from ..core.files import DATA_SETS

    return DATA_SETS


STRATEGIES, SAMPLERS, BACKENDS = ("supernet", "halving"), ("tpe", "nsga2", "random"), ("onnxruntime", "torch")
OBJECTIVES = ("accuracy", "macs", "params", "sram", "flash", "latency")
PICKS = ("best", "knee", *(f"min-{name}" for name in OBJECTIVES[1:]))
MATCHES, PRUNERS = ("epochs", "compute", "seconds"), ("median", "wilcoxon", "halving")
FORMATS = ("onnx", "int8-onnx", "torch-export", "c", "executorch")
DEVICES, CRITERIA = ("auto", "cpu", "cuda"), ("l1", "bn", "lamp")

ArchName = Annotated[str | None, _completed(_archs, _files(".json"))]
ArchNames = Annotated[str, _completed(_archs, _files(".json"), several=",")]
SpaceName = Annotated[str | None, _completed(_shipped("*.toml", "search_spaces"), _files(".toml"))]
SpaceGiven = Annotated[str, _completed(_shipped("*.toml", "search_spaces"), _files(".toml"))]
RecipeName = Annotated[str | None, _completed(_shipped("*.toml"), _files(".toml"))]
MethodName = Annotated[str | None, _completed(_shipped("arms/*.toml"), _files(".toml"), several="+")]
MethodNames = Annotated[str | None, _completed(_shipped("arms/*.toml"), _files(".toml"), several=",+")]
DataName = Annotated[str | None, _completed(_data, _files())]
Strategy = Annotated[str | None, _completed(_these(*STRATEGIES))]
Sampler = Annotated[str | None, _completed(_these(*SAMPLERS))]
Objectives = Annotated[str | None, _completed(_these(*OBJECTIVES), several=",")]
Pick = Annotated[str | None, _completed(_these(*PICKS))]
Match = Annotated[str | None, _completed(_these(*MATCHES))]
Pruner = Annotated[str | None, _completed(_these(*PRUNERS))]
Criterion = Annotated[str | None, _completed(_these(*CRITERIA))]
Formats = Annotated[str, _completed(_these(*FORMATS), several=",")]
Backend = Annotated[str, _completed(_these(*BACKENDS))]
Device = Annotated[str, _completed(_these(*DEVICES))]
KINDS = ("spaces", "archs", "recipes", "methods", "arms", "data")
Kind = Annotated[str | None, _completed(_these(*KINDS))]
SHELLS = ("bash", "zsh", "fish")
Shell = Annotated[str, _completed(_these(*SHELLS))]
