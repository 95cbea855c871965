"""nasaug: find the best tiny network under a budget, then train it inside wider ones.

    import nasaug

    found = nasaug.search(mac_budget="25M", data="photos/")
    result = nasaug.train(found, method="netaug")
    nasaug.load(result.path).predict(["mine.jpg"])

Submodules are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .arch.archfile import ArchFile as ArchFile
    from .arch.cost import Budget as Budget
    from .arch.cost import Cost as Cost
    from .arch.measure import cost as cost
    from .arch.plan import Plan as Plan
    from .arch.space import Arch as Arch
    from .arch.space import Space as Space
    from .comparison.compare import Comparison as Comparison
    from .comparison.compare import compare as compare
    from .comparison.sweep import Sweep as Sweep
    from .comparison.sweep import sweep as sweep
    from .core.errors import BadInput as BadInput
    from .core.errors import RunFault as RunFault
    from .core.metric import Metric as Metric
    from .core.signals import Stopped as Stopped
    from .deployment.export import Exported as Exported
    from .deployment.export import export as export
    from .deployment.latency import latency_table as latency_table
    from .deployment.predict import load as load
    from .deployment.predictions import Predicted as Predicted
    from .deployment.predictions import predict as predict
    from .methods import Method as Method
    from .methods import register as register_method  # noqa: F401
    from .nas.search import Found as Found
    from .nas.search import search as search
    from .nets.fold import fold as fold
    from .pruning.prune import prune as prune
    from .robustness.robust import Robustness as Robustness
    from .robustness.robust import robust as robust
    from .rundirs.result import TrainingResult as TrainingResult
    from .tasks import Task as Task
    from .tasks import register as register_task  # noqa: F401
    from .training.recipe import Recipe as Recipe
    from .training.train import train as train
    from .training.transfer import transfer as transfer

__version__ = "0.1.0"

_FROM = {
    "search": "nas.search", "train": "training.train", "transfer": "training.transfer",
    "compare": "comparison.compare", "sweep": "comparison.sweep",
    "prune": "pruning.prune", "cost": "arch.measure", "load": "deployment.predict", "fold": "nets.fold",
    "export": "deployment.export", "Exported": "deployment.export",
    "latency_table": "deployment.latency",
    "robust": "robustness.robust", "Robustness": "robustness.robust",
    "predict": "deployment.predictions", "Predicted": "deployment.predictions",
    "Space": "arch.space", "Arch": "arch.space", "Plan": "arch.plan", "Budget": "arch.cost", "Cost": "arch.cost",
    "ArchFile": "arch.archfile", "Recipe": "training.recipe", "BadInput": "core.errors", "RunFault": "core.errors",
    "Stopped": "core.signals", "Found": "nas.search", "TrainingResult": "rundirs.result",
    "Comparison": "comparison.compare", "Sweep": "comparison.sweep", "Method": "methods", "Task": "tasks",
    "Metric": "core.metric", "register_method": "methods:register", "register_task": "tasks:register",
}  # fmt: skip
__all__ = [*_FROM]


def __getattr__(name: str) -> Any:
    if name not in _FROM:
        raise AttributeError(f"module 'nasaug' has no attribute {name!r}")
    module, _, called = _FROM[name].partition(":")
    value = globals()[name] = getattr(import_module(f".{module}", __name__), called or name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
