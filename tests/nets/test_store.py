"""Networks in files: they load with their plan, and foreign or altered files are refused."""

import json

import pytest
import torch

from nasaug.arch import archfile
from nasaug.core import tensorfile
from nasaug.core.errors import BadInput
from nasaug.nets.net import Net
from nasaug.nets.store import load_net, save_net

pytestmark = pytest.mark.usefixtures("empty_folder")


@pytest.fixture(scope="module")
def net():
    return Net(archfile.read("mobilenetv2-small", resolution=16).plan, seed=5)


def test_a_network_comes_back_with_its_plan(net):
    save_net("model", net, data="digits")
    again = load_net("model")
    assert again.plan == net.plan and not again.training
    mine = net.state_dict()
    assert all(torch.equal(t, mine[name]) for name, t in again.state_dict().items())


def other_plan(tensors, state):
    state["plan"] = archfile.read("mobilenetv2-tiny").plan.to_dict()


def no_plan(tensors, state):
    del state["plan"]


def junk_plan(tensors, state):
    state["plan"] = ["junk"]


def one_less(tensors, state):
    tensors.popitem()


def one_more(tensors, state):
    tensors["extra"] = torch.zeros(1)


def one_longer(tensors, state):
    tensors["stem.weight"] = torch.zeros(1000, 3, 3, 3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (other_plan, "its tensors do not fit its plan"),
        (no_plan, "holds no plan"),
        (junk_plan, "not a plan"),
        (one_less, "do not fit"),
        (one_more, "do not fit"),
        (one_longer, "do not fit"),
    ],
)
def test_a_foreign_or_altered_network_is_refused(net, change, said):
    tensors, state = dict(net.state_dict()), {"plan": json.loads(json.dumps(net.plan.to_dict()))}
    change(tensors, state)
    tensorfile.write("model", tensors, state)
    with pytest.raises(BadInput, match=f"model.*{said}") as refused:
        load_net("model")
    assert "\n" not in str(refused.value)
