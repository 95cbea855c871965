"""Plans in one line of code."""

from nasaug.arch.blocks import Spec
from nasaug.arch.plan import from_specs

CLASSIFIER = Spec("classifier", "linear", 10)


def inverted(name, width, hidden, *, kernel=3, stride=1, se=0, shortcut="none"):
    """An inverted residual block with ReLU6, `hidden` channels wide inside."""
    return Spec(name, "inverted", width, hidden, kernel, stride, "relu6", se, shortcut)


def plan_of(*specs, resolution=16, stem=16):
    """The plan of these blocks between a stem of stride 2 and a classifier of ten classes."""
    head = (Spec("pool", "pool"), CLASSIFIER)
    return from_specs((Spec("stem", "conv", stem, 0, 3, 2, "relu6"), *specs, *head), resolution, 10)
