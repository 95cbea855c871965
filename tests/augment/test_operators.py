"""Augmentation operators against torchvision's, image by image."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nasaug.augment.ops import GEOMETRIC, OPERATORS, _by_torch, apply
from support.pictures import RANGES, pictures, seeded, share_that_differs, theirs


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 13, 21), (1, 2, 5)])
def test_each_operator_is_torchvisions_image_by_image(name, shape, either):
    n = 80
    images = pictures(n, *shape)
    values = torch.linspace(*RANGES[name], n)
    values[::2] = (values[::2] * 100).round() / 100  # where source positions of a shear fall halfway between pixels
    values[4], values[7] = RANGES[name][1], 0
    differs = share_that_differs(images, [name] * n, values, apply(images, name, values))
    assert differs <= (1e-3 if name in GEOMETRIC else 0)


@settings(max_examples=30, deadline=None)
@given(data=st.data(), channels=st.sampled_from([1, 3]), height=st.integers(1, 20), width=st.integers(1, 20))
def test_a_batch_may_mix_operators_and_values(data, channels, height, width):
    operators = data.draw(st.lists(st.integers(0, len(OPERATORS) - 1), min_size=1, max_size=12))
    names = [OPERATORS[operator] for operator in operators]
    values = torch.tensor([data.draw(st.floats(*RANGES[name], width=32)) for name in names])
    images = pictures(len(names), channels, height, width, seed=height)
    before = images.clone()
    out = apply(images, torch.tensor(operators), values)
    other = _by_torch(images, torch.tensor(operators), values.double())
    assert torch.equal(images, before) and out.dtype == other.dtype == torch.uint8
    for image, name, value, *results in zip(images, names, values, out, other, strict=True):
        for result in results:
            differs = (theirs(image, name, value) != result).float().mean()
            # a line where a tie was rounded the other way
            assert differs <= (1 / min(height, width) if name in GEOMETRIC else 0)


def test_views_of_images_and_threads_are_as_good_as_copies(either, monkeypatch):
    """Every second image, transposed, with channels expanded from one plane, on any number of threads."""
    n = 600  # enough for a second thread
    images = pictures(n, 3, 12, 20)
    operators, values = torch.arange(n) % len(OPERATORS), torch.rand(n, generator=seeded())
    expected = apply(images, operators, values)
    layouts = images.transpose(2, 3).contiguous().transpose(2, 3), images.contiguous(memory_format=torch.channels_last)
    for laid_out in layouts:
        assert not laid_out.is_contiguous() and torch.equal(apply(laid_out, operators, values), expected)
    assert torch.equal(apply(images[::2], operators[::2], values[::2]), expected[::2])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(apply(images, operators, values), expected)


def test_operators_may_be_integers_of_any_size(either):
    images, which = pictures(30, 3, 6, 6), torch.arange(30) % len(OPERATORS)
    assert torch.equal(apply(images, which.to(torch.int32), 0.5), apply(images, which, 0.5))


def test_values_differ_from_image_to_image():
    images = torch.full((5, 1, 4, 4), 100, dtype=torch.uint8)
    out = apply(images, "Brightness", torch.linspace(-0.5, 0.5, 5))
    assert out[:, 0, 0, 0].tolist() == [50, 75, 100, 125, 150]
