"""The command line: verbs to functions, imported when they are called. Knows no algorithm."""

from __future__ import annotations

import json
import logging
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Group, Parameter, Token

from .. import __version__
from ..core.errors import BadInput, RunFault
from ..core.files import remedy
from ..core.progress import heard_by
from ..core.signals import Stopped, raised_stop
from ..core.streams import flush, open_streams, tell
from .terminal import Terminal

BAD_INPUT, FAULT = 2, 1

app = App(
    name="nasaug",
    help="Find the most accurate tiny network under a budget, then train it inside wider ones.",
    help_epilogue=(
        "Start here:\n\n"
        "  python -m nasaug search --mac-budget 25M\n\n"
        "  python -m nasaug netaug-train --arch found.json\n"
    ),
    version=__version__,
    help_format="markdown",
    suppress_keyboard_interrupt=False,
)


def _whole(kind: type, tokens: Sequence[Token]) -> int:
    """A whole number; cyclopts alone would round 1.5 to 2."""
    text = tokens[0].value
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number") from None


Whole = Annotated[int | None, Parameter(converter=_whole)]
BUDGETS = Group("Budgets (upper limits)", sort_key=1)
RUN = Group("Run", sort_key=2)


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """Options of every command that runs for long."""

    data: Annotated[str | None, Parameter(group=RUN)] = None
    """fashion-mnist (default), cifar10, cifar100, imagenet, digits, or the path of an image folder."""
    recipe: Annotated[str | None, Parameter(group=RUN)] = None
    """A recipe's name or path; default: the data's own, else `small`."""
    set: Annotated[tuple[str, ...], Parameter(group=RUN, negative="", show_default=False)] = ()
    """Override a recipe key, like `--set epochs=2` or `--set netaug.ladder=factors`; repeatable."""
    seed: Annotated[int | None, Parameter(group=RUN, converter=_whole)] = None
    """Seed of weights, order, views and draws; default 0."""
    device: Annotated[str, Parameter(group=RUN)] = "auto"
    """auto, cpu or cuda."""
    run: Annotated[Path | None, Parameter(group=RUN)] = None
    """The run's folder; default: the next free runs/VERB-N."""
    resume: Annotated[bool, Parameter(group=RUN, negative="", show_default=False)] = False
    """Go on with --run, or with the verb's last unfinished run."""
    profile: Annotated[bool, Parameter(group=RUN, negative="", show_default=False)] = False
    """Time the stages of training, and show the rate of each at its end."""

    def settings(
        self, given: Mapping[str, object], *, arm: str | None = None, data: str | None = None,
        begun: Path | None = None,
    ):  # fmt: skip
        """The resolved recipe under what the command's options give by recipe key (None: not given).

        `arm` is a difference to the recipe, like "netaug+mixup", of plain training where it names no method; `data` is
        what to take where neither --data nor a recipe names it, `begun` the recipe where --recipe is not given."""
        from ..config.layers import arm_says, load
        from ..training.recipe import Recipe, default_recipe

        options = _sets({"data.name": self.data, "seed": self.seed, **given})
        said = {_key(item) for item in self.set}
        for key in (*map(_key, options), *(() if arm is None else ("method",))):
            if key in said:
                raise BadInput(f"--set {key}=… says what the command or an option says too; leave it out")
        for item in self.set:
            if _key(item) == "data.name":  # which would leave the recipe that of other data
                raise BadInput(f"--set {item}: name the data by --data, which takes the recipe that is theirs too")
        default = begun or default_recipe(self.data or data or "fashion-mnist")
        recipe = default if self.recipe is None else self.recipe
        arms = () if arm is None else (arm,) if "method" in arm_says(arm, Recipe) else ("baseline", arm)
        return load(recipe, Recipe, self.set, arms, under=_sets({"data.name": data}), options=options)


def _sets(values: Mapping[str, object]) -> tuple[str, ...]:
    """What is given, as --set takes it: JSON's strings and numbers are TOML's."""
    return tuple(f"{k}={json.dumps(v, ensure_ascii=False)}" for k, v in values.items() if v is not None)


def _key(item: str) -> str:
    return item.partition("=")[0].strip()


@app.command
def search(
    *,
    mac_budget: Annotated[str | None, Parameter(group=BUDGETS)] = None,
    param_budget: Annotated[str | None, Parameter(group=BUDGETS)] = None,
    sram_budget: Annotated[str | None, Parameter(group=BUDGETS)] = None,
    flash_budget: Annotated[str | None, Parameter(group=BUDGETS)] = None,
    space: str | None = None,
    trials: Whole = None,
    sampler: str | None = None,
    headroom: float | None = None,
    timeout: str | None = None,
    storage: str | None = None,
    common: Common = Common(),
):
    """Train a supernet, search it under a budget, and write found.json.

    Examples:

      nasaug search --mac-budget 25M

      nasaug search --mac-budget 1M --sram-budget 64KB --data photos/ --trials 200

      nasaug search --resume

      nasaug search --resume --trials 200

    :param mac_budget: Multiply-accumulates of one image, like 25M or 1.5G.
    :param param_budget: Parameters, like 500k.
    :param sram_budget: Peak activation memory in int8, like 320KB.
    :param flash_budget: Weights in int8, like 1MB.
    :param space: A search space's name or the path of a TOML file; default mobilenetv2-small up to 64 px.
    :param trials: Candidates to evaluate; default 100. With --resume also more than a finished search was begun for.
    :param sampler: tpe (default), nsga2 or random.
    :param headroom: Crop the space until its largest net costs this many MAC budgets (0: never); default 6.
    :param timeout: Stop the search stage after this long, like 10m; with --resume, go on for so long.
    :param storage: Any Optuna storage URL; default: a file in the run's folder.
    """
    from ..arch.cost import Budget

    budget = Budget.parse(macs=mac_budget, params=param_budget, peak=sram_budget, flash=flash_budget)
    from ..nas import stages as app_search  # after the budget: this loads torch, which takes seconds

    given = {
        "space": space, "search.trials": trials, "search.sampler": sampler, "search.headroom": headroom,
    }  # fmt: skip
    app_search.command(common, given, budget, timeout, storage)


@app.command(name="netaug-train")
def netaug_train(
    *,
    arch: str | None = None,
    from_scratch: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    resolution: Whole = None,
    aug_compute: float | None = None,
    common: Common = Common(),
):
    """Train a found, named or pruned network with NetAug: inside wider nets that share its weights.

    Examples:

      nasaug netaug-train --arch found.json

      nasaug netaug-train --arch mobilenetv2-tiny --data cifar10 --set epochs=30

      nasaug netaug-train --arch found.json --aug-compute 0.17

      nasaug netaug-train --resume

    :param arch: An arch file (found.json) or a named architecture.
    :param from_scratch: Fresh weights instead of those that the arch file names.
    :param resolution: Image size in px; default: the arch file's, or the data's for a named architecture.
    :param aug_compute: Cap on the augmented passes: at most this many times the base's own MACs; 0: none.
    """
    from ..training import train as app_train

    app_train.command(app_train.Request("netaug-train", arch, "netaug", from_scratch, resolution, aug_compute), common)


@app.command
def train(
    *,
    arch: str | None = None,
    method: str | None = None,
    from_scratch: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    resolution: Whole = None,
    aug_compute: float | None = None,
    common: Common = Common(),
):
    """Train a network with any method: the general form of netaug-train.

    Examples:

      nasaug train --method baseline --arch found.json

      nasaug train --method netaug:aug_compute=0.17+mixup --arch mobilenetv2-tiny --data cifar10

      nasaug train --arch mcunet --data photos/ --recipe imagenet-mcunet

    :param arch: An arch file (found.json) or a named architecture.
    :param method: baseline, netaug, gradaug or any arm (nasaug compare), several joined by +; default: the recipe's.
    :param from_scratch: Fresh weights instead of those that the arch file names.
    :param resolution: Image size in px; default: the arch file's, or the data's for a named architecture.
    :param aug_compute: Cap on NetAug's augmented passes: at most this many times the base's own MACs; 0: none.
    """
    from ..training import train as app_train

    app_train.command(app_train.Request("train", arch, method, from_scratch, resolution, aug_compute), common)


@app.command
def compare(
    *,
    arch: str | None = None,
    methods: str | None = None,
    seeds: Whole = None,
    match: str | None = None,
    jobs: Whole = None,
    cells: Path | None = None,
    from_scratch: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    resolution: Whole = None,
    common: Common = Common(),
):
    """Train one network in several ways with the same seeds, and tell which of them helps: table, figures, a page.

    Examples:

      nasaug compare --arch found.json

      nasaug compare --arch mcunet --methods baseline,netaug:aug_compute=0.17

      nasaug compare --arch found.json --methods netaug+mixup,longer --seeds 3

      nasaug compare --arch found.json --match compute --set train_macs=1e12

      nasaug compare --resume

    Arms: baseline, netaug, gradaug, distill, dropout, spatial-dropout, dropblock, stochastic-depth, label-smoothing,
    mixup, cutmix, random-erasing, autoaugment, randaugment, trivialaugment, augmix, ema, longer, scratch, aug-constant,
    aug-rising, aug-falling, strong-wide, shrink, difficulty-keep, difficulty-weight, difficulty-drive, or a TOML file
    of recipe keys; with values (netaug:sort=false), joined by +.

    :param arch: An arch file (found.json) or a named architecture.
    :param methods: The arms, separated by commas; default: baseline,netaug,gradaug,aug-constant,aug-rising,aug-falling.
    :param seeds: How many seeds each arm has; default 5, under which there is no verdict.
    :param match: epochs (default), compute (forward MACs, train_macs each) or seconds (max_seconds each).
    :param jobs: Trainings at a time; default: one a core, each with one thread.
    :param cells: Where the trainings lie; a finished one of the same settings is used again. Default: in the run.
    :param from_scratch: Fresh weights instead of those that the arch file names.
    :param resolution: Image size in px; default: the arch file's, or the data's for a named architecture.
    """
    from ..comparison import compare as app_compare

    asked = app_compare.Asked(arch, methods, seeds, match, jobs, cells, resolution, from_scratch)
    app_compare.command(asked, common)


@app.command
def sweep(
    *,
    arch: str | None = None,
    sizes: str | None = None,
    policies: str | None = None,
    methods: str | None = None,
    seeds: Whole = None,
    jobs: Whole = None,
    cells: Path | None = None,
    resolution: Whole = None,
    pruner: str | None = None,
    common: Common = Common(),
):
    """Which magnitude of augmentation a network wants, by its size: a grid of trainings, a heat map, a fitted curve.

    Examples:

      nasaug sweep --data photos/

      nasaug sweep --sizes 0.1M,1M --policies 0,4,9,14,0:9,9:0 --seeds 3

      nasaug sweep --methods baseline,netaug --set data.train_images=4000

      nasaug sweep --policies 0,2,4,6,9,12,15 --pruner median

      nasaug sweep --resume

    :param arch: The network whose widths are scaled to the sizes; default mobilenetv2.
    :param sizes: MACs, or arch files; default 0.1M,0.25M,0.6M,1.5M,3M.
    :param policies: Magnitudes (0 to 30), from:to over training, or a curve's file; default 0,4,9,14.
    :param methods: Arms as in compare; default baseline.
    :param seeds: Seeds of each; default 3.
    :param jobs: Trainings at a time; default: one a core, each with one thread.
    :param cells: Where the trainings lie; finished ones are used again. Default: in the run.
    :param resolution: Image size in px; default: the data's.
    :param pruner: End policies early that look hopeless: median, wilcoxon, halving; they might recover. Default none.
    """
    from ..comparison import sweep as app_sweep

    asked = app_sweep.Asked(arch, sizes, policies, methods, seeds, jobs, cells, resolution, pruner)
    app_sweep.command(asked, common)


@app.command
def report(*runs: Path, out: Path | None = None):
    """Put finished runs, or folders of them, side by side: a table, JSON, CSV and one page that opens offline.

    Examples:

      nasaug report runs/train-1 runs/netaug-train-2

      nasaug report runs/compare-1 --out page.html

    :param runs: Run folders, or folders that hold some.
    :param out: The page; default: report.html, with report.json and report.csv beside it.
    """
    from ..comparison import report as app_report

    app_report.command(list(runs), out)


@app.command
def profile(
    *,
    arch: str,
    resolution: Whole = None,
    classes: Whole = None,
    check: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
):
    """Show MACs, parameters, peak SRAM and flash of a network, per layer and in all.

    Examples:

      nasaug profile --arch mobilenetv2-tiny

      nasaug profile --arch found.json --json

      nasaug profile --arch found.json --check

    :param arch: An arch file or a named architecture.
    :param resolution: Image size in px; default: the architecture's own.
    :param classes: Outputs; default: the architecture's own.
    :param check: Build the network and count its MACs with thop and with torch too; tells where these differ from the
      cost model and why, and exits with 1 where they do not agree on a convolution or a linear layer.
    :param json: Print JSON, with the integer keys `macs` and `params`; with --check also `thop`, `torch` and `agrees`.
    """
    from . import profile as app_profile

    app_profile.command(arch, resolution, classes, json, check)


@app.command
def prune(
    *,
    source: Annotated[Path | None, Parameter(name="--from")] = None,
    target_macs: str | None = None,
    steps: Whole = None,
    magnitude: str | None = None,
    criterion: str | None = None,
    unstructured: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    target_sparsity: float | None = None,
    lr_scale: float | None = None,
    method: str | None = None,
    round: Whole = None,
    common: Common = Common(),
):
    """Prune a trained network in steps, each followed by fine-tuning under an augmentation of its own strength.

    Examples:

      nasaug prune --from runs/train-1 --target-macs 1M

      nasaug prune --from runs/train-1 --target-macs 1M --steps 5 --magnitude 9:2 --round 8

      nasaug prune --from runs/train-1 --unstructured --target-sparsity 0.9

      nasaug prune --resume

    The recipe is that of the run, its length split over the steps; its method is plain training unless --method says
    else, while a teacher, regularisers and mixing of the run's stay.

    :param source: A finished run of train or netaug-train.
    :param target_macs: MACs of the result, like 1M; the steps' lie in geometric progression.
    :param steps: How often to prune and fine-tune; default 5.
    :param magnitude: RandAugment's in each step: 9 (constant), 9:2 (falling), 2:9 (rising), at 0 none; default:
      the recipe's view.
    :param criterion: What ranks channels: l1 (default: the weights that read them) or bn (their norms' scales); what
      ranks weights: lamp (default: magnitudes within their layer) or l1 (over the whole net, which can empty layers).
    :param unstructured: Zero single weights, those of least magnitude, instead of removing channels.
    :param target_sparsity: Share of zeros among the weights of convolutions (not depthwise) and linear layers.
    :param lr_scale: Times the recipe's learning rate; default 0.5.
    :param method: Fine-tune by any arm (nasaug compare); default: baseline.
    :param round: Where channels go, keep a multiple of so many, like 8, which hardware is fast with; default 1.
    """
    from ..pruning import steps as app_prune

    asked = app_prune.Asked(
        source, target_macs, target_sparsity, unstructured, steps, magnitude, criterion, lr_scale, method, round
    )
    app_prune.command(asked, common)


def main() -> None:
    """Run the command line; bad input exits with 2, a fault with 1, a signal with 128 + its number."""
    open_streams()
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells at length of a home that it cannot write into
    try:
        try:
            with raised_stop(), heard_by(Terminal()):
                app(sys.argv[1:], exit_on_error=False, print_error=False)
        finally:
            flush()  # here, where a reader that went away is handled, not at the interpreter's end
    except CycloptsError as error:
        _fail(" ".join(str(error).split()).rstrip(".") + "; see nasaug --help", BAD_INPUT)
    except BadInput as error:
        _fail(error.told(_option), BAD_INPUT)
    except RunFault as error:
        _fail(str(error), FAULT)
    except MemoryError:
        _fail("out of memory; lower the batch: --set batch=64", FAULT)
    except (KeyboardInterrupt, Stopped) as stop:
        _fail("stopped before anything was to be saved", 128 + getattr(stop, "signum", signal.SIGINT))
    except BrokenPipeError:
        sys.exit(141)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}; {remedy(error)}", FAULT)


def _option(argument: str) -> str:
    """The option that gives a function's argument."""
    return {"source": "--from"}.get(argument, "--" + argument.replace("_", "-"))


def _fail(message: str, code: int) -> None:
    """Exit with `code` and one line, whatever line breaks the user's own words have."""
    tell(f"nasaug: {' '.join(message.splitlines())}", sys.stderr)
    sys.exit(code)
