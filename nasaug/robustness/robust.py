"""`robust`: what finished runs can stand. Errors under corruption, accuracies under attack, and their features."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from .. import augment, tasks
from ..arch.archfile import read as read_arch
from ..arch.plan import plan
from ..config.layers import load as load_recipe
from ..core import files, tensorfile
from ..core.errors import BadInput, arg, unknown
from ..core.progress import Listener, Progress, heard_by, say
from ..core.signals import Stopped
from ..core.streams import nasaug_command
from ..data import Data, Record, Split
from ..data.picture import Unreadable, decoded
from ..methods import Draw
from ..methods.gradaug import GradAug
from ..nets.fold import fold
from ..nets.net import Net
from ..nets.store import digest, load_net
from ..reporting import robust_page
from ..rundirs.folder import RunDir
from ..rundirs.result import TRAINED, TrainingResult, finished_training, read_result
from ..training.begin import at_path, begun_record
from ..training.device import Runtime, open_runtime
from ..training.job import base_of, load_data, make_scorer
from ..training.recipe import Recipe
from ..training.scoring import Scorer
from . import attacks, figures
from .constants import COMMON, EXTRA, SEVERITIES
from .corruptions import BLOCK, Frosts, corrupt, frost_at
from .features import cka, effective_rank, penultimate

FORMAT, FILE, PAGE, VERB = "nasaug-robust/1", "robust.json", "robust.html", "robust"
FEATURES = 2000  # images whose features are compared
GROUPS = {"common": COMMON, "extra": EXTRA, "all": (*COMMON, *EXTRA), "none": ()}
EPS = (1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class Settings:
    """What is asked of each run. `eps` is in 1/255 of the pixels' range."""

    corruptions: tuple[str, ...]
    severities: tuple[int, ...]
    eps: tuple[float, ...]
    steps: int
    images: int
    attacked: int
    frost: str
    seed: int


@dataclass
class Figures:
    """What was found out about a run; errors and accuracies in %, on the test images or as many as were asked for.

    errors: by corruption and severity. attacks: accuracy by attack ("fgsm", "pgd") and eps, and without an attack
    under "clean", on the first `attacked` images. cka: of other nets' features with this one's, by the run or thin net.
    seconds: of the plain evaluation, and of each corruption's, at the mean of its severities."""

    run: str
    model: str
    arm: str
    seed: int
    arch: str
    recorded: float
    images: int = 0
    error: float | None = None
    errors: dict[str, dict[int, float]] = field(default_factory=dict)
    mean_error: float | None = None
    mce: float | None = None
    relative_mce: float | None = None
    attacked: int = 0
    attacks: dict[str, dict[str, float]] = field(default_factory=dict)
    effective_rank: float | None = None
    features: int = 0
    thin_cka: dict[str, float] = field(default_factory=dict)
    cka: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Figures:
        whole = {name: {int(s): e for s, e in errors.items()} for name, errors in told["errors"].items()}
        return cls(**{**told, "errors": whole})


@dataclass(frozen=True)
class Robustness:
    """The folder `path` with robust.json and the page, and the figures of each run; `reference` is its run's path."""

    path: Path
    settings: Settings
    runs: tuple[Figures, ...]
    reference: str

    def __getitem__(self, run: str | Path) -> Figures:
        return {told.run: told for told in self.runs}[str(run)]


def robust(
    run: str | Path | Sequence[str | Path] | None = None, *, reference: str | Path | None = None,
    corruptions: str | Sequence[str] = "common", severities: Sequence[int] = SEVERITIES, eps: Sequence[float] = EPS,
    steps: int = 10, images: int = 0, attacked: int = 1000, frost: str | Path | None = None, seed: int = 0,
    data: str | Path | None = None, device: str = "auto", out: str | Path | None = None,
    on_event: Listener | None = None,
) -> Robustness:  # fmt: skip
    """Evaluate finished classification runs on corrupted and attacked test images, and compare their features.

    The runs must have the same test images and classes. An image is corrupted in the same way for every run.

    Args:
        run: the folder of a finished run, or several.
        reference: the run whose errors mCE divides by; defaults to the first. It is evaluated too.
        corruptions: names, or common (the 15), extra (the four for validation), all, none; several or by commas.
        eps: the radii of attacks, in 1/255 of the pixels' range.
        steps: of PGD.
        images: how many test images, drawn by `seed`; 0 for all.
        attacked: at most how many of them are attacked.
        frost: a folder of photographs of frost; without one, frost is a drawn stand-in.
        data: where the runs' images are now, if they moved.
        out: the folder for the results; defaults to the next free runs/robust-N. An evaluation with the same arguments
            that was stopped goes on.
        on_event: called with each event (nasaug.core.progress).

    Raises BadInput."""
    with heard_by(on_event):
        asked = [run] if isinstance(run, (str, Path)) else list(run or [])
        if not asked:
            alone = f"{arg.reference} {reference} is nothing to compare alone"
            what = alone if reference else f"robust needs {arg.run}"
            raise BadInput(f"{what}: give {TRAINED}", field="run")
        settings = _settings(corruptions, severities, eps, steps, images, attacked, frost, seed)
        frosts = _photographs(settings.frost)
        runtime = open_runtime(device)
        results = [_finished(each) for each in asked]
        if reference is not None and not any(_same(reference, told.path) for told in results):
            results.append(_finished(reference, "reference"))
        _check_alike(results)
        first = next((told for told in results if reference is not None and _same(reference, told.path)), results[0])
        with _folder(out) as folder:
            return _carry_out(folder, settings, results, str(first.path), frosts, runtime, data)


def _same(one: str | Path, two: Path) -> bool:
    return Path(one).resolve() == two.resolve()


def _settings(
    corruptions: str | Sequence[str], severities: Sequence[int], eps: Sequence[float], steps: int, images: int,
    attacked: int, frost: str | Path | None, seed: int,
) -> Settings:  # fmt: skip
    names = corruptions.split(",") if isinstance(corruptions, str) else corruptions
    chosen: dict[str, None] = {}
    for name in filter(None, (each.strip() for each in names)):
        if name not in (*GROUPS, *GROUPS["all"]):
            raise unknown("corruption", name, (*GROUPS["all"], *GROUPS), field="corruptions")
        chosen |= dict.fromkeys(GROUPS.get(name, (name,)))

    def refused(argument: str, value: object, rule: str, remedy: str) -> BadInput:
        return BadInput.of(argument=argument, value=value, rule=rule, remedy=remedy)

    for severity in severities:
        if severity not in SEVERITIES:
            raise refused("severities", severity, "is no severity", "give some of 1, 2, 3, 4, 5")
    if chosen and not severities:
        raise refused("severities", "''", "names none", "give some of 1, 2, 3, 4, 5")
    for radius in eps:
        if not 0 < radius <= 255:
            raise refused("eps", f"{radius:g}", "is no radius in 1/255 of the pixels' range", "give above 0, to 255")
    counts = (("steps", steps, 1), ("images", images, 0), ("attacked", attacked, 1), ("seed", seed, 0))
    for name, value, least in counts:
        if value < least:
            raise refused(name, value, f"must be at least {least}", f"give {least} or more")
    order = tuple(name for name in GROUPS["all"] if name in chosen)
    levels, radii = tuple(sorted({*severities})), tuple(sorted({float(radius) for radius in eps}))
    return Settings(order, levels, radii, steps, images, attacked, "" if frost is None else str(frost), seed)


def _photographs(folder: str) -> Frosts:
    """The photographs in the folder. Raises BadInput if there are none, or one cannot be read."""
    if not folder:
        return ()
    endings = (".png", ".jpg", ".jpeg")
    try:
        paths = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in endings)
    except OSError:
        paths = []
    if not paths:
        rule, remedy = "is no folder with photographs of frost (.png, .jpg)", "give one, or leave it out"
        raise BadInput.of(argument="frost", value=folder, rule=rule, remedy=remedy, apart=True)
    import numpy as np

    try:
        return tuple(decoded(np.frombuffer(files.read_bytes(path), np.uint8).copy(), "white") for path in paths)
    except Unreadable as error:
        raise BadInput(f"{arg.frost} {folder}: a photograph cannot be read ({error}); remove it") from None


def _finished(run: str | Path, argument: str = "run") -> TrainingResult:
    """The result of a finished classification. Raises BadInput for any other folder."""
    found = finished_training(run, argument)
    result, facts = read_result(found.path), tensorfile.facts(found.model_file)

    def refused(rule: str, remedy: str) -> BadInput:
        return BadInput.of(argument=argument, value=run, rule=rule, remedy=remedy, apart=True)

    if (task := tasks.of_facts(facts)).targets != "classes":
        rule = f"was trained for {task.name}, but robust measures classifiers"
        raise refused(rule, "give a run that was trained for classification")
    for key in ("mean", "std", "classes"):
        if key not in facts:
            rule = f"was trained by a version of nasaug that did not store the {key} of its images"
            raise refused(rule, "train it again")
    return result


def _check_alike(results: Sequence[TrainingResult]) -> None:
    """Raises BadInput if a run was trained on other classes or has other test images than the first."""

    def whose(told: TrainingResult) -> tuple[object, object]:
        record = Record.of_run(told.path)
        images = told.data_key if record is None else record.key("test")
        return tensorfile.facts(RunDir(told.path).model_file)["classes"], images

    first = whose(results[0])
    for told in results[1:]:
        for what, mine, theirs in zip(("classes", "test images"), whose(told), first, strict=True):
            if mine != theirs:
                rule = f"has other {what} than {results[0].path}"
                remedy = "give runs on the same data"
                raise BadInput.of(argument="run", value=told.path, rule=rule, remedy=remedy, apart=True)


@contextlib.contextmanager
def _folder(out: str | Path | None) -> Iterator[RunDir]:
    """The folder for the results, locked. Raises BadInput if it holds something else."""
    if out is None:
        number = 1
        while (path := Path("runs") / f"{VERB}-{number}").exists():
            number += 1
    else:
        path = Path(out)
        there = path.is_dir() and any(not item.name.startswith(".") for item in path.iterdir())
        if (path.exists() and not path.is_dir()) or (there and not (path / FILE).is_file()):
            rule = "exists and is no evaluation of robust"
            raise BadInput.of(argument="out", value=out, rule=rule, remedy="give another folder", apart=True)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.write_error(path, error) from error
    with RunDir.hold(path) as folder:
        yield folder


def _carry_out(
    folder: RunDir, settings: Settings, results: Sequence[TrainingResult], reference: str, frosts: Frosts,
    runtime: Runtime, data: str | Path | None,
) -> Robustness:  # fmt: skip
    told = [
        Figures(str(r.path), digest(RunDir(r.path).model_file), r.arm, r.seed, r.arch, r.test_score) for r in results
    ]
    path = folder.path / FILE
    kept = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(settings).items()}
    asked = {"settings": kept, "reference": reference, "runs": [[each.run, each.model] for each in told]}
    if path.is_file():
        told = _before(path, asked)

    def save() -> None:
        files.write_json(path, {
            "format": FORMAT, "settings": kept, "reference": reference,
            "frost": "photographs" if frosts else "drawn, not the published photographs",
            "runs": [asdict(each) for each in told],
        })  # fmt: skip

    save()
    left = [_left(each, settings) for each in told]
    total = len(told) * len(settings.corruptions)
    features: dict[str, Tensor] = {}
    try:
        done = total - sum(map(len, left))
        with Progress(VERB, total, begun=done, unit="corruptions", quiet=total == 0) as bar:
            for each, result, names in zip(told, results, left, strict=True):
                say(f"{each.run}: {each.arm}, seed {each.seed}, test {result.metric.show(each.recorded)}")
                subject = Subject.of(result, settings, runtime, data)
                subject.plain(each)
                for name in names:
                    subject.corrupted(each, name, frosts)
                    save()
                    done += 1
                    bar.update(done)
                if settings.eps and "pgd" not in each.attacks:
                    subject.attack(each)
                    save()
                features[each.run] = subject.diversity(each)
                save()
    except Stopped as stop:
        stop.resume = nasaug_command(*_command(asked["runs"], reference, settings, folder.path, data, runtime))
        raise
    by_run = {each.run: each for each in told}
    for each in told:
        base = by_run[reference]
        assert each.error is not None and base.error is not None
        each.mean_error = figures.mean_error(each.errors)
        each.mce = figures.mce(each.errors, base.errors)
        each.relative_mce = figures.relative_mce(each.errors, each.error, base.errors, base.error)
        each.cka = {other: cka(features[each.run], features[other]) for other in features if other != each.run}
    save()
    robustness = Robustness(folder.path, settings, tuple(told), reference)
    files.write_whole(folder.path / PAGE, robust_page.page(files.read_json(path, FORMAT)))
    return robustness


def _command(
    runs: Sequence[Sequence[str]], reference: str, settings: Settings, out: Path, data: str | Path | None,
    runtime: Runtime,
) -> Iterator[object]:  # fmt: skip
    """The words of the command that goes on with an evaluation."""
    yield VERB
    for run, _ in runs:
        yield from ("--run", run)
    yield from ("--reference", reference, "--out", out, "--corruptions", ",".join(settings.corruptions) or "none")
    yield from ("--severities", ",".join(map(str, settings.severities)))
    yield from ("--eps", ",".join(f"{radius:g}" for radius in settings.eps) or "none")
    for name in ("steps", "images", "attacked", "seed"):
        yield from (f"--{name}", getattr(settings, name))
    yield from ("--frost", settings.frost) if settings.frost else ()
    yield from ("--data", data) if data is not None else ()
    yield from ("--device", "cpu") if not runtime.accelerated else ()


def _before(path: Path, asked: dict[str, Any]) -> list[Figures]:
    """What an evaluation with the same arguments has found out so far. Raises BadInput if they differ."""
    told = files.read_json(path, FORMAT)
    try:
        runs = [Figures.from_json(each) for each in told["runs"]]
        same = told["settings"] == asked["settings"] and told["reference"] == asked["reference"]
        same = same and [[each.run, each.model] for each in runs] == asked["runs"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"{path} is damaged ({error!r}); give another {arg.out}") from None
    if not same:
        rule = "holds an evaluation with other arguments, or of runs that were trained again"
        raise BadInput.of(argument="out", value=path.parent, rule=rule, remedy="give another folder", apart=True)
    return runs


def _left(told: Figures, settings: Settings) -> list[str]:
    return [name for name in settings.corruptions if {*told.errors.get(name, ())} != {*settings.severities}]


@dataclass
class Subject:
    """A run's net with its test images, which are read for this evaluation alone: the run is finished, and nothing is
    selected by them."""

    result: TrainingResult
    settings: Settings
    runtime: Runtime
    net: Net
    folded: GraphModule
    facts: dict[str, Any]
    data: Data
    scorer: Scorer
    test: Split
    px: int | None
    """The size at which streamed images are served; None for images in memory, which have their own."""

    @classmethod
    def of(cls, result: TrainingResult, settings: Settings, runtime: Runtime, data: str | Path | None) -> Subject:
        run = RunDir(result.path)
        recipe = at_path(load_recipe(run.recipe_file, Recipe), None if data is None else str(data))
        net = load_net(run.model_file).to(runtime.device)
        facts = tensorfile.facts(run.model_file)
        images = load_data(recipe, net.plan.resolution, begun_record(run, recipe))
        if list(images.classes) != list(facts["classes"]):
            rule = f"was trained on other classes than those of {images.name}"
            remedy = f"give {arg.data} with its own"
            raise BadInput.of(argument="run", value=run.path, rule=rule, remedy=remedy, apart=True)
        test = images.finish()
        if settings.images and settings.images < len(test):
            test = test.take(settings.images, settings.seed)
        scorer = make_scorer(recipe, images, runtime)
        px = net.plan.resolution if images.streamed else None
        return cls(result, settings, runtime, net, fold(net), facts, images, scorer, test, px)

    def input(self, images: Tensor, px: int | None = None) -> Tensor:
        """What the net reads for uint8 images, as in every evaluation."""
        x = augment.evaluation(images.to(self.runtime.device), self.facts["mean"], self.facts["std"])
        return augment.resize(x, px or self.net.plan.resolution)

    def logits(self, pixels: Tensor) -> Tensor:
        """The folded net's, of pixels in [0, 1]: plain torch layers, so that gradients reach the pixels."""
        mean, std = (torch.tensor(self.facts[key], device=pixels.device).view(1, 3, 1, 1) for key in ("mean", "std"))
        return self.folded(augment.resize((pixels - mean) / std, self.net.plan.resolution))

    @torch.inference_mode()
    def _error(self, changed: Any = None) -> float:
        """The error in % on the test images, each batch `changed(images, number)` first."""
        right = 0
        for number, (images, labels) in enumerate(self.test.ordered(BLOCK, self.px)):
            images = images if changed is None else changed(images, number)
            right += int((self.net(self.input(images)).argmax(1).cpu() == labels).sum())
        return 100 * (1 - right / len(self.test))

    def plain(self, told: Figures) -> None:
        """The error on the images as they are, and the seconds that it takes. Says so if the run recorded another."""
        begun = time.perf_counter()
        told.error, told.images = self._error(), len(self.test)
        told.seconds["plain"] = time.perf_counter() - begun
        if not self.settings.images and abs(100 - told.error - told.recorded) > 0.1:
            found = f"{100 - told.error:.2f} % of the test images right, and its result says {told.recorded:.2f} %"
            qat = "; it was trained for int8, and is evaluated in float" if "before_qat" in self.result.more else ""
            say(f"warning: {told.run} has {found}{qat}")

    def corrupted(self, told: Figures, name: str, frosts: Frosts) -> None:
        """The errors under a corruption at each severity."""
        s, begun, errors = self.settings, time.perf_counter(), {}
        at_size = frost_at(frosts, self.px or self.test.size) if name == "frost" else ()
        for severity in s.severities:
            errors[severity] = self._error(
                lambda images, block, level=severity: corrupt(
                    images, name, level, block=block, seed=s.seed, frosts=at_size
                )
            )
        told.errors[name] = errors
        told.seconds[name] = (time.perf_counter() - begun) / len(s.severities)

    def attack(self, told: Figures) -> None:
        """The accuracies under both attacks at each eps, on the first `attacked` images."""
        s = self.settings
        chosen = self.test.subset(torch.arange(min(s.attacked, len(self.test))))
        kinds = ["clean", *(f"{kind} {radius:g}" for kind in ("fgsm", "pgd") for radius in s.eps)]
        right = dict.fromkeys(kinds, 0)
        for p in self.folded.parameters():
            p.requires_grad_(False)
        with Progress(f"attacks on {told.arm}", len(chosen), unit="images") as bar:
            seen = 0
            for number, (images, labels) in enumerate(chosen.ordered(BLOCK, self.px)):
                x, y = images.to(self.runtime.device).float() / 255, labels.to(self.runtime.device)
                for kind in kinds:
                    name, _, radius = kind.partition(" ")
                    attacked, eps = x, float(radius or 0) / 255
                    if name == "fgsm":
                        attacked = attacks.fgsm(self.logits, x, y, eps)
                    if name == "pgd":
                        start = torch.Generator().manual_seed(s.seed * 1_000_003 + number)
                        attacked = attacks.pgd(self.logits, x, y, eps, steps=s.steps, generator=start)
                    with torch.no_grad():
                        right[kind] += int((self.logits(attacked).argmax(1) == y).sum())
                seen += len(images)
                bar.update(seen)
        accuracy = {kind: 100 * count / len(chosen) for kind, count in right.items()}
        told.attacked = len(chosen)
        told.attacks = {
            "clean": {"0": accuracy["clean"]},
            **{name: {f"{r:g}": accuracy[f"{name} {r:g}"] for r in s.eps} for name in ("fgsm", "pgd")},
        }

    def diversity(self, told: Figures) -> Tensor:
        """The penultimate features of the first test images, for which no label is read, and what they say; with thin
        nets, if the run's method trained some."""
        seen = self.test.subset(torch.arange(min(FEATURES, len(self.test))))
        images = [batch for batch, _ in seen.ordered(BLOCK, self.px)]
        own = penultimate(self.folded, map(self.input, images))
        told.effective_rank, told.features = effective_rank(own), own.shape[1]
        recipe = load_recipe(RunDir(self.result.path).recipe_file, Recipe)
        method = recipe.chosen_method()
        if isinstance(method, GradAug) and not told.thin_cka:
            base = base_of(read_arch(RunDir(self.result.path).arch_file))
            space, arch = method.space(base)
            drawn = method.passes(Draw(space, arch, self.net.plan.classes, 0, 1.0, Random(self.settings.seed)))
            archs = dict.fromkeys([space.smallest, *(each.arch for each in drawn[1:])])
            for number, thin in enumerate(archs):
                small = self.scorer.calibrated(self.net, plan(space, thin, self.net.plan.classes))
                theirs = penultimate(fold(small), (self.input(batch, small.plan.resolution) for batch in images))
                width = "thinnest" if number == 0 else f"thin net {number}"
                name = f"{width}, {theirs.shape[1]} features, {small.plan.resolution} px"
                told.thin_cka[name] = cka(own, theirs)
        return own

