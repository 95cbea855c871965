"""Transforms of single images: rotation and crop."""

import torch

from nasaug.augment.transform import Transform, transform


def test_a_transform_of_nothing_is_the_images_and_each_image_has_its_own():
    x, g = torch.randn(6, 3, 9, 9), torch.Generator()
    assert transform(Transform(), x, g) is x
    same_image = x[:1].expand(6, -1, -1, -1)
    turned = transform(Transform(rotate=30.0, crop=0.3), same_image, g.manual_seed(0))
    assert len({t.sum().item() for t in turned}) == 6
    assert torch.equal(turned, transform(Transform(rotate=30.0, crop=0.3), same_image, g.manual_seed(0)))


def test_a_quarter_turn_is_one():
    x = torch.randn(1, 1, 8, 8)
    for seed in range(50):
        turned = transform(Transform(rotate=180.0), x, torch.Generator().manual_seed(seed))
        assert turned.abs().max() <= x.abs().max() + 1e-5
    assert torch.allclose(transform(Transform(rotate=1e-9), x, torch.Generator()), x, atol=1e-5)
