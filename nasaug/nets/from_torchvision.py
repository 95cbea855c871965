"""torchvision's pre-trained networks: the weights of those that nasaug has an equal network for, as model files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..arch import spacefile
from ..arch.blocks import BLOCKS, Layer
from ..arch.plan import Plan, plan
from ..core.errors import BadInput, told_by, unknown
from ..core.files import cache_folder
from .layers import Conv, Norm, SqueezeExcite
from .net import Net
from .store import save_net

PREFIX = "torchvision:"
EQUAL = {  # torchvision's name: the named architecture of nasaug that computes the same
    "mobilenet_v2": "mobilenetv2", "mobilenet_v3_large": "mobilenetv3-large",
    "resnet18": "resnet18", "resnet34": "resnet34", "resnet50": "resnet50",
}  # fmt: skip
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the images that these weights were trained on
DATA = "imagenet"


def equal_of(source: str, field: str = "init") -> str:
    """The named architecture that is equal to torchvision:NAME. Raises BadInput if there is none."""
    name = source.removeprefix(PREFIX)
    if name not in EQUAL:
        raise unknown("torchvision network", name, EQUAL, field=field)
    return EQUAL[name]


def plan_of(source: str) -> Plan:
    """The plan of torchvision:NAME, at its own resolution and with ImageNet's classes."""
    space, named = spacefile.find_named(equal_of(source), BLOCKS)
    return plan(space, named.arch, named.classes)


@torch.no_grad()
def converted(model: nn.Module, own: Plan) -> Net:
    """A Net of the plan with the weights of a torchvision model, whose outputs in evaluation mode it gives.

    Both have their layers in the order in which they run, a block's projection last; each pair must agree in size."""
    net = Net(own, None)
    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)
    theirs = [module for module in model.modules() if isinstance(module, kinds)]
    ours = [part for layer in own.layers for part in _parts(net, layer)]
    for there, here in zip(theirs, ours, strict=True):
        if isinstance(here, Norm):
            here.load_state_dict(there.state_dict())
            # a norm adds eps to the variance, and torchvision's MobileNetV3 a larger one
            here.running_var.add_(there.eps - here.eps)
            here.num_batches_tracked.fill_(1)
        else:
            here.weight.copy_(_shaped(there.weight, here.weight))
            if here.bias is not None:
                here.bias.copy_(there.bias)
    return net.eval()


def _parts(net: Net, layer: Layer) -> Iterator[Any]:
    """A layer's modules with weights, in the order in which torchvision has them."""
    module = net.get_submodule(layer.name)
    if isinstance(module, SqueezeExcite):
        yield from (module.reduce, module.expand)
    elif isinstance(module, (Conv, nn.Linear)):
        yield module
        if isinstance(module, Conv) and module.norm is not None:
            yield module.norm


def _shaped(theirs: Tensor, ours: Tensor) -> Tensor:
    """A weight as ours: torchvision has the linear layers of squeeze-excite as 1x1 convolutions."""
    return theirs.flatten(1) if ours.dim() == 2 else theirs


def weight_file(source: str, begun: bool = False) -> Path:
    """The model file of torchvision:NAME in the user's cache folder, made from torchvision's default weights, which
    are downloaded if need be; with `begun` only its path.

    Raises BadInput for a name without an equal network, and if the weights cannot be had."""
    import torchvision

    own, name = plan_of(source), source.removeprefix(PREFIX)
    weights = torchvision.models.get_model_weights(name).DEFAULT
    path = cache_folder() / "torchvision" / f"{Path(weights.url).stem}.safetensors"
    if not begun and not path.is_file():
        def refused(rule: str, remedy: str) -> BadInput:
            return BadInput.of(field="init", value=source, rule=rule, remedy=remedy, apart=True)

        net = converted(pretrained(name, weights, refused), own)
        path.parent.mkdir(parents=True, exist_ok=True)
        facts = {"mean": MEAN, "std": STD, "classes": list(weights.meta["categories"]), "data": DATA}
        save_net(path, net, **facts, val_key=source)
    return path


def pretrained(name: str, weights: Any, refused: Callable[[str, str], BadInput]) -> nn.Module:
    """A torchvision model in evaluation mode, with weights that are downloaded unless they are cached. Raises what
    `refused` makes of a rule and a remedy."""
    import torchvision

    if torch.hub.get_dir().startswith("~"):  # torch would create a folder named "~"
        raise refused(": there is no home folder for its weights", "set TORCH_HOME to a folder")
    try:
        return torchvision.models.get_model(name, weights=weights).eval()
    except MemoryError:
        raise
    except Exception as error:  # no network or a damaged file: torch raises various types
        folder = Path(torch.hub.get_dir(), "checkpoints")
        remedy = f"put {weights.url} into {folder}, or give another"
        raise refused(f": its weights cannot be loaded ({told_by(error)})", remedy) from error
