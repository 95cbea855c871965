"""torchvision's networks as nasaug's: the same outputs, and a file of them that a training starts from."""

import pytest
import torch
import torchvision
from torch import nn

from nasaug.core import tensorfile
from nasaug.core.errors import BadInput
from nasaug.nets.from_torchvision import EQUAL, converted, plan_of, weight_file
from nasaug.nets.store import load_net

torch.set_num_threads(1)


def random_model(name):
    """torchvision's network with random weights; its norms have statistics of images, which its outputs tell apart."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a mean over the batches, here one
            nn.init.uniform_(module.weight, 0.5, 1.5), nn.init.uniform_(module.bias, -0.2, 0.2)
    with torch.no_grad():
        model(torch.randn(4, 3, 64, 64))
    return model.eval()


@pytest.mark.parametrize("name", EQUAL)
@torch.inference_mode()
def test_outputs_are_torchvisions_on_the_same_images(name):
    """In float64, since random networks amplify rounding. That of an eps, in MobileNetV3's variances, remains."""
    model, images = random_model(name), torch.randn(2, 3, 64, 64).double()
    own, theirs = converted(model, plan_of(name).at(64)).double()(images), model.double()(images)
    within = 1e-4 if name == "mobilenet_v3_large" else 1e-10
    torch.testing.assert_close(own, theirs, rtol=0, atol=within * float(theirs.abs().max()))
    assert float((theirs[0] - theirs[1]).abs().max() / theirs.abs().max()) > 0.1  # images are told apart


@pytest.fixture
def weights(monkeypatch, tmp_path):
    """Random weights in place of the pre-trained ones, and a cache of the test's own."""
    asked, made = [], torchvision.models.get_model

    def get_model(name, weights):
        if weights is None:
            return made(name, weights=None)
        asked.append(name)
        return random_model(name)

    monkeypatch.setattr(torchvision.models, "get_model", get_model)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return asked


def test_the_file_is_made_once_and_says_what_it_was_trained_on(weights):
    path = weight_file("torchvision:mobilenet_v2")
    assert path == weight_file("torchvision:mobilenet_v2") and len(weights) == 1
    facts = tensorfile.facts(path)
    assert facts["data"] == "imagenet" and len(facts["classes"]) == 1000 and facts["mean"] == [0.485, 0.456, 0.406]
    assert load_net(path).plan == plan_of("torchvision:mobilenet_v2")
    assert not weight_file("torchvision:resnet18", begun=True).exists()  # a run that has begun needs none


def test_an_unknown_network_is_refused_with_those_that_there_are(weights):
    with pytest.raises(BadInput, match=r"unknown torchvision network 'mobilenet_v1'; did you mean .*resnet50"):
        weight_file("torchvision:mobilenet_v1")
    assert not weights


def test_weights_that_cannot_be_downloaded_are_told_with_where_to_put_them(monkeypatch, tmp_path):
    def fails(name, weights):
        raise OSError("no network")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torchvision.models, "get_model", fails)
    with pytest.raises(BadInput, match=r"init = torchvision:resnet18: its weights .*\(no network\); put https.* into"):
        weight_file("torchvision:resnet18")
    assert not list(tmp_path.rglob("*.safetensors"))
