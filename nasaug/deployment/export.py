"""`export`: a finished run's net as files that other programs run, each compared with the net before it is written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..arch.plan import Head
from ..core import files
from ..core.errors import BadInput, MissingExtra, arg, unknown
from ..core.progress import Listener, heard_by, say
from ..core.units import format_quantity
from ..int8 import onnxfile
from ..nets.store import digest, load_plan
from ..rundirs.folder import RunDir
from ..rundirs.result import TRAINED, finished_training
from . import built
from .card import card
from .formats import MAKE, Artefact, names
from .source import Source

DEFAULT = ("onnx", "int8-onnx")
INT8 = ("int8-onnx", "c")  # those that are calibrated, on training images
FORMAT, FACTS, CARD = "nasaug-export/1", "export.json", "model-card.md"


@dataclass(frozen=True)
class Exported:
    """The folder `path` with the files, and what is known about each.

    facts: what the files' metadata say: preprocessing, classes, plan, costs. `exported["onnx"]` is one artefact."""

    path: Path
    artefacts: tuple[Artefact, ...]
    facts: Mapping[str, Any]

    def __getitem__(self, format: str) -> Artefact:
        return {made.format: made for made in self.artefacts}[format]


def export(
    run: str | Path | None = None, *, format: str | Sequence[str] = DEFAULT, out: str | Path | None = None,
    data: str | Path | None = None, name: str = "model", on_event: Listener | None = None,
) -> Exported:  # fmt: skip
    """Write the net of a finished training in formats that run without nasaug, with a model card beside them.

    Each file's outputs are compared with the net's on validation images before it is written. int8 is quantised with
    images of the training split; its score on the test images is reported beside the run's own.

    Args:
        run: the folder of a finished run of `train`, `netaug-train` or `prune`.
        format: some of onnx, int8-onnx, torch-export, c, executorch; a list, or separated by commas.
        out: the folder for the files; defaults to `export` in the run's. A format that was exported from the same run
            before is replaced, the others stay.
        data: where the run's images are now, if they moved.
        name: what the files and the C functions are called.
        on_event: called with each event (nasaug.core.progress).

    Raises BadInput, or RunFault if a file's outputs are not those of the net.
    """
    with heard_by(on_event):
        formats = _formats(format)
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", name):
            rule = "must be lower-case letters, digits and _, starting with a letter"
            raise BadInput.of(argument="name", value=repr(name), rule=rule, remedy="give one like doorbell", apart=True)
        found = finished(run)
        folder = found.path / "export" if out is None else Path(out)
        made = {artefact.format: artefact for artefact in _before(folder, found, formats, name)}
        source = Source.of(found, None if data is None else str(data), any(each in INT8 for each in formats))
        for each in formats:
            contents, artefact = MAKE[each](source, name)
            made[each] = artefact
            exported = Exported(folder, tuple(made[f] for f in MAKE if f in made), source.facts)
            _write(exported, dict(zip(artefact.files, contents, strict=True)), source)
            say(_told(artefact, source))
        say(f"{', '.join(formats)} in {folder}, with {CARD}")
        return exported


def _formats(given: str | Sequence[str]) -> list[str]:
    """The formats asked for, each once. Raises BadInput for an unknown one, or one whose packages are missing."""
    asked = given.split(",") if isinstance(given, str) else given
    asked = [name.strip() for name in asked if name.strip()]
    if not asked:
        raise BadInput(f"{arg.format} {given!r} names no format; choices: {', '.join(MAKE)}")
    for name in asked:
        if name not in MAKE:
            raise unknown("format", name, MAKE, field="format")
        if name in ("onnx", *INT8):
            onnxfile.need_onnx(f"{arg.format} {name}", "onnxruntime")
        if name == "executorch" and not built.installed("executorch"):
            raise MissingExtra("executorch", "executorch", f"{arg.format} {name}")
    return [name for name in MAKE if name in asked]


def finished(run: str | Path | None) -> RunDir:
    """The finished training. Raises BadInput if the folder is not one."""
    if run is None:
        raise BadInput(f"export needs {arg.run}: {TRAINED}", field="run", rule="is missing", remedy=f"give {TRAINED}")
    found = finished_training(run)
    head = load_plan(found.model_file).classes
    if isinstance(head, Head) and head.beside:
        rule = "holds a two-stage net, whose proposals no format of export has"
        remedy = "use it through nasaug.load, whose backbone and lateral convolutions nasaug.fold converts"
        raise BadInput.of(argument="run", value=run, rule=rule, remedy=remedy, apart=True)
    return found


def _before(folder: Path, run: RunDir, formats: Sequence[str], name: str) -> list[Artefact]:
    """What was exported from this run's net into this folder before and is still there. Raises BadInput if a file of
    something else would be overwritten."""

    def refused(rule: str) -> BadInput:
        return BadInput.of(argument="out", value=folder, rule=rule, remedy="give another folder", apart=True)

    if folder.exists() and not folder.is_dir():
        raise refused("is not a folder")
    if (folder / FACTS).is_file():
        told = files.read_json(folder / FACTS, FORMAT)
        if told["model"] != digest(run.model_file):
            raise refused(f"holds the export of another net, that of {told['run']}")
        artefacts = map(Artefact.from_json, told["artefacts"])
        return [made for made in artefacts if all((folder / file).is_file() for file in made.files)]
    for file in (*(file for each in formats for file in names(each, name)), CARD):
        if (folder / file).exists():
            raise refused(f"has a file {file} already, which is not known to be an export of {run.path}")
    return []


def _write(exported: Exported, contents: Mapping[str, bytes], source: Source) -> None:
    """Write a format's files, the card and export.json, which says whose files these are and so comes first."""
    folder, run = exported.path, source.run
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.write_error(folder, error) from error
    rows = [asdict(made) for made in exported.artefacts]
    whose = {"format": FORMAT, "run": str(run.path), "model": digest(run.model_file)}
    files.write_json(folder / FACTS, whose | {"facts": exported.facts, "artefacts": rows})
    for file, content in contents.items():
        files.write_whole(folder / file, content)
    files.write_whole(folder / CARD, card(exported.artefacts, exported.facts, source.result))


def _told(made: Artefact, source: Source) -> str:
    """A line about a file that was written, and one more for each note."""
    metric = source.task.metric
    size = format_quantity(made.bytes, "bytes") + (" of constants" if made.format == "c" else "")
    parts = [f"{made.format}: {size}", f"{made.told} on {made.compared}"]
    if made.agreement is not None:
        parts.append(f"{100 * made.agreement:.2f} % the same class")
    if made.score is not None:
        parts.append(f"test {metric.label} {metric.show(made.score)} (trained {metric.show(source.result.test_score)})")
    if made.latency is not None:
        parts.append(f"{made.latency.median_ms:.3g} ms an image (p95 {made.latency.p95_ms:.3g}, one thread)")
    return "\n  ".join([", ".join(parts), *made.notes])
