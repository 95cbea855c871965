"""Re-running a finished run from its own files, to see whether it gives the same result, and if not, why."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..arch import archfile
from ..core import files, tensorfile
from ..core.errors import BadInput, RunFault
from ..core.progress import say
from ..core.units import format_duration
from ..kernels import choice
from ..rundirs.folder import ENV, JOB, RECIPE, RECORD, RunDir, describe_environment
from ..rundirs.job import read_job, verb_of, where_begun
from .begin import Verb

BEGUN = (RECIPE, JOB, ENV, RECORD, "latency.json")  # what a run's folder holds before its work begins, as it is
TENSORS = ("model.safetensors", "supernet.safetensors", "start.safetensors", "test.safetensors")
FIGURES = ("result.json", "candidates.json", "pareto.json", "finalists.json", "shapes.json")
ARCHS = ("arch.json", "found.json")
MEASURED = ("time", "seconds", "peak_memory", "latency")  # keys of figures that no two runs share


@dataclass(frozen=True)
class Verified:
    """`compared`: the files that both runs have; `differing`: those of them whose content is not the same, bit for bit;
    `environment`: how the two runs' environments differ, one text each."""

    run: Path
    compared: tuple[str, ...]
    differing: tuple[str, ...]
    environment: tuple[str, ...]
    seconds: float

    @property
    def same(self) -> bool:
        return not self.differing


def verify(run: str | Path, jobs: Mapping[str, Callable[[str, Path], Verb[Any]]]) -> Verified:
    """Run a finished run again in a temporary folder, with its recipe, splits and kernels, and compare all results.

    `jobs` makes, by verb, the job that goes on with the run in a folder. Raises BadInput for a run that cannot be
    verified: one that is not finished, of another verb, or whose length or search was limited by a clock."""
    found = RunDir(run)
    verb = verb_of(found.path)
    if verb is None or not found.finished:
        raise BadInput.of(argument="run", value=run, rule="holds no finished run", remedy="give the folder of one")
    if verb not in jobs:
        rule = f"is a run of {verb}, which is not run again as a whole"
        remedy = f"give one of {', '.join(jobs)}, like a cell of it"
        raise BadInput.of(argument="run", value=run, rule=rule, remedy=remedy)
    for reason in _not_repeatable(found, verb):
        remedy = "give a run of one process that ends by epochs, MACs or trials, with its study in its own folder"
        raise BadInput.of(argument="run", value=run, rule=reason, remedy=remedy, apart=True)
    environment = tuple(_differences(found))
    for line in environment:
        say(f"  now other than when {run} ran: {line}")
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="nasaug-verify-") as place:
        again = Path(place) / "again"
        _lay_out(found, again)
        with RunDir.resume(again) as redone:
            kept = read_job(redone, verb)
            choice.adopt(redone.environment().get("kernels", {}))
            with where_begun(redone, kept):
                job = jobs[verb](verb, redone.path)
                job.carry_out(redone, job.restore(redone, kept))
            compared = [name for name in (*TENSORS, *FIGURES, *ARCHS) if (found.path / name).is_file()]
            differing = [name for name in compared if not _same(found.path / name, redone.path / name)]
    return Verified(found.path, tuple(compared), tuple(differing), environment, time.monotonic() - begun)


def report(result: Verified) -> str:
    """What was found, in a line. Raises RunFault if the results differ."""
    took = format_duration(result.seconds)
    if result.same:
        return f"{result.run} gives the same result again, bit for bit ({took}): {', '.join(result.compared)}"
    why = "; ".join(result.environment) or "no difference of the environment is recorded: the data or files changed"
    raise RunFault(f"{result.run} gives another result now, in {', '.join(result.differing)}; {why}")


def _not_repeatable(run: RunDir, verb: str) -> Iterator[str]:
    recipe, job = files.read_toml(run.recipe_file), read_job(run, verb)
    if recipe.get("stop") == "seconds":
        yield "was limited by seconds (stop = seconds), so no two runs of it have as many steps"
    if job.get("timeout") is not None:
        yield "was limited by a timeout, so no two runs of it judge as many candidates"
    if job.get("storage"):
        yield "keeps its study in a storage of its own, which another run cannot use again"
    if run.environment().get("ranks", 1) != 1:
        yield "was run by several processes, and this would be one"
    if run.environment().get("joined"):
        yield "was judged by other processes too, so its candidates depend on which of them was faster"


def _lay_out(run: RunDir, again: Path) -> None:
    """The folder as it was when the run's work began."""
    again.mkdir()
    for name in BEGUN:
        if (run.path / name).is_file():
            shutil.copyfile(run.path / name, again / name)
    if run.base_file.is_file():
        archfile.read(str(run.base_file)).save(again / run.base_file.name)  # its paths are relative to its folder


def _differences(run: RunDir) -> Iterator[str]:
    """How this environment differs from the run's."""
    then, now = run.environment(), describe_environment()
    flat = [(key, then.get(key), now[key]) for key in ("python", "platform", "processor", "cores", "commit")]
    versions = then.get("versions") if isinstance(then.get("versions"), dict) else {}
    flat += [(name, versions.get(name), version) for name, version in now["versions"].items()]
    kernels = then.get("kernels") if isinstance(then.get("kernels"), dict) else {}
    flat += [(f"kernels' {key}", kernels.get(key), value) for key, value in choice.record().items()]
    differing = (each for each in flat if each[1] is not None and each[1] != each[2])
    yield from (f"{name} {before}, now {after}" for name, before, after in differing)


def _same(one: Path, two: Path) -> bool:
    if not two.is_file():
        return False
    if one.name in ARCHS:
        return _net(one) == _net(two)
    if one.suffix == ".json":
        return _timeless(json.loads(one.read_text())) == _timeless(json.loads(two.read_text()))
    (ours, _), (theirs, _) = tensorfile.read(one), tensorfile.read(two)
    return ours.keys() == theirs.keys() and all(_bits(t) == _bits(theirs[name]) for name, t in ours.items())


def _bits(t: Any) -> tuple[Any, Any, bytes]:
    return t.dtype, t.shape, t.contiguous().view(-1).numpy().tobytes()


def _net(path: Path) -> tuple[Any, Any]:
    found = archfile.read(str(path))
    return found.plan, None if found.arch is None else found.arch.values


def _timeless(value: Any) -> Any:
    """Without figures that are measured, which differ from run to run."""
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k not in MEASURED and not k.endswith("seconds")}
    return [_timeless(each) for each in value] if isinstance(value, list) else value
