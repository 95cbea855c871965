"""Attacks, mCE, effective rank and CKA, each against an independent computation."""

import importlib.util

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nasaug.nets.fold import fold
from nasaug.nets.net import Net
from nasaug.robustness.attacks import fgsm, pgd
from nasaug.robustness.features import cka, effective_rank, penultimate
from nasaug.robustness.figures import mce, mean_error, relative_mce
from support.trainers import base_of

EPS = 8 / 255


@pytest.fixture(scope="module")
def attacked():
    """(logits of pixels, images in [0, 1], labels that a small convolution net gives most of them)."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 49, 4)).eval()
    x = torch.rand(60, 3, 16, 16)
    labels = net(x).argmax(1)
    labels[::5] = (labels[::5] + 1) % 4
    return net, x, labels


def test_attacks_stay_in_the_ball_and_in_the_range_and_raise_the_loss(attacked):
    net, x, labels = attacked
    loss = {"clean": F.cross_entropy(net(x), labels).item()}
    start = torch.Generator().manual_seed(0)
    for name, seen in (("fgsm", fgsm(net, x, labels, EPS)), ("pgd", pgd(net, x, labels, EPS, generator=start))):
        assert (seen - x).abs().max() <= EPS + 1e-6 and seen.min() >= 0 and seen.max() <= 1
        loss[name] = F.cross_entropy(net(seen), labels).item()
    assert loss["clean"] < loss["fgsm"] <= loss["pgd"] + 1e-3


def test_fgsm_is_one_step_along_the_sign_of_the_gradient(attacked):
    net, x, labels = attacked
    pixels = x.clone().requires_grad_()
    F.cross_entropy(net(pixels), labels).backward()
    torch.testing.assert_close(fgsm(net, x, labels, EPS), (x + EPS * pixels.grad.sign()).clamp(0, 1))
    assert torch.equal(pgd(net, x, labels, EPS, steps=1, step=EPS), fgsm(net, x, labels, EPS))


@pytest.mark.skipif(importlib.util.find_spec("art") is None, reason="ART is not installed (extra robust)")
def test_accuracies_are_those_of_the_adversarial_robustness_toolbox(attacked):
    from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    net, x, labels = attacked
    known = PyTorchClassifier(net, nn.CrossEntropyLoss(), (3, 16, 16), 4, clip_values=(0, 1), device_type="cpu")
    for eps in (1 / 255, 4 / 255, EPS):
        theirs = torch.from_numpy(FastGradientMethod(known, eps=eps).generate(x.numpy(), labels.numpy()))
        ours = fgsm(net, x, labels, eps)
        assert (net(ours).argmax(1) == labels).sum() == (net(theirs).argmax(1) == labels).sum()
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
        art = ProjectedGradientDescent(known, eps=eps, eps_step=eps / 4, max_iter=10, verbose=False)
        theirs = torch.from_numpy(art.generate(x.numpy(), labels.numpy()))
        ours = pgd(net, x, labels, eps, steps=10, step=eps / 4)
        assert (net(ours).argmax(1) == labels).sum() == (net(theirs).argmax(1) == labels).sum()


def test_gradients_reach_the_pixels_of_a_folded_net():
    """As a finite difference in float64 says."""
    net = Net(base_of().plan).double()
    side = net.plan.resolution
    net.calibrate([torch.rand(16, 3, side, side, dtype=torch.float64)]).eval()
    folded, x = fold(net), torch.rand(1, 3, side, side, dtype=torch.float64)
    pixels = x.clone().requires_grad_()
    folded(pixels)[0, 1].backward()
    moved = torch.zeros_like(x)
    moved[0, 2, 3, 4] = 1e-6
    slope = (net(x + moved) - net(x - moved))[0, 1] / 2e-6
    assert pixels.grad[0, 2, 3, 4].item() == pytest.approx(slope.item(), rel=1e-4, abs=1e-9)


def test_penultimate_features_are_what_the_classifier_reads():
    net = Net(base_of().plan)
    side = net.plan.resolution
    net.calibrate([torch.rand(16, 3, side, side)]).eval()
    folded, x = fold(net), torch.rand(5, 3, side, side)
    features = penultimate(folded, [x[:3], x[3:]])
    last = [m for m in folded.modules() if isinstance(m, nn.Linear)][-1]
    torch.testing.assert_close(last(features.float()), folded(x), atol=1e-5, rtol=1e-4)


def test_effective_rank_of_what_is_known():
    torch.manual_seed(0)
    turned = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64))[0]
    equal = torch.cat([torch.eye(8, dtype=torch.float64), -torch.eye(8, dtype=torch.float64)])
    assert effective_rank(equal @ turned) == pytest.approx(8)
    assert effective_rank(torch.randn(50, 1) @ torch.randn(1, 8)) == pytest.approx(1, abs=1e-3)
    assert effective_rank(torch.ones(9, 4)) == 0


def test_cka_is_that_of_the_gram_matrices_and_knows_no_rotation():
    torch.manual_seed(0)
    x, y = torch.randn(40, 6, dtype=torch.float64), torch.randn(40, 3, dtype=torch.float64)
    centre = torch.eye(40, dtype=torch.float64) - 1 / 40
    k, m = centre @ x @ x.T @ centre, centre @ y @ y.T @ centre
    assert cka(x, y) == pytest.approx(((k * m).sum() / (k.norm() * m.norm())).item())
    turned = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0]
    assert cka(x, 3 * x @ turned + 5) == pytest.approx(1)
    assert cka(x, torch.ones(40, 2)) == 0


def test_mce_by_hand():
    reference = {"fog": {1: 20.0, 2: 40.0}, "jpeg": {1: 10.0, 2: 30.0}, "spatter": {1: 1.0, 2: 1.0}}
    errors = {"fog": {1: 15.0, 2: 15.0}, "jpeg": {1: 20.0, 2: 40.0}, "spatter": {1: 90.0, 2: 90.0}}
    assert mean_error(errors) == pytest.approx(22.5)
    assert mce(errors, reference) == pytest.approx((50 + 150) / 2)
    assert relative_mce(errors, 10.0, reference, 5.0) == pytest.approx(100 * (10 / 50 + 40 / 30) / 2)
    assert mce(reference, reference) == pytest.approx(100)
    assert mce({"spatter": {1: 3.0}}, reference) is None
    assert relative_mce(errors, 10.0, reference, 20.0) is None
