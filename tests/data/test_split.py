import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nasaug.data.split import hold_out
from support.images import contents, memory_split, same, stream_split


@given(
    st.lists(st.integers(1, 30), min_size=2, max_size=8),
    st.floats(0, 1),
    st.integers(0, 5),
)
def test_hold_out_is_disjoint_complete_and_stratified(sizes, share, seed):
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    most = len(labels) - len(sizes)
    count = round(share * most)
    kept, held = hold_out(labels, count, seed)
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(len(labels)))
    assert torch.bincount(labels[kept], minlength=len(sizes)).min() >= 1
    assert len(held) <= count
    for size, part in zip(sizes, torch.bincount(labels[held], minlength=len(sizes)).tolist(), strict=True):
        exact = size * count / len(labels)
        assert part <= math.ceil(exact) and part >= min(math.floor(exact), size - 1)


def test_an_epoch_is_every_image_once_in_an_order_of_seed_and_epoch():
    split = memory_split()
    order = split.order(seed=3, epoch=2)
    assert sorted(order.tolist()) == list(range(70))
    torch.manual_seed(99)
    assert torch.equal(order, split.order(seed=3, epoch=2))
    assert not torch.equal(order, split.order(seed=3, epoch=3))
    assert not torch.equal(order, split.order(seed=2, epoch=2))
    for images, labels, index in split.batches(16, seed=3, epoch=2):
        assert images.shape == (16, 1, 4, 4)
        assert images[:, 0, 0, 0].tolist() == labels.tolist() == index.tolist()
        assert torch.equal(index, order[:16])
        order = order[16:]
    assert len(order) == 70 % 16  # the short batch is dropped


def test_a_split_smaller_than_a_batch_is_one_batch():
    split = memory_split(5)
    assert split.steps(16) == 1
    assert [len(images) for images, _, _ in split.batches(16, seed=0, epoch=0)] == [5]


def test_memory_batches_resume_at_any_batch():
    split = memory_split()
    for start in range(4):
        rest = list(split.batches(16, seed=1, epoch=4))[start:]
        assert same(rest, split.batches(16, seed=1, epoch=4, start=start))
    assert list(split.batches(16, seed=1, epoch=4, start=4)) == []


def test_ordered_serves_every_image_once_at_the_size_asked_for():
    split = memory_split(10)
    assert torch.cat([labels for _, labels in split.ordered(4)]).tolist() == list(range(10))
    images = torch.cat([images for images, _ in split.ordered(4, size=2)])
    assert images.shape == (10, 1, 2, 2) and images.dtype == torch.uint8
    assert images[:, 0, 0, 0].tolist() == list(range(10))


@pytest.mark.parametrize("kind", ["memory", "stream"])
def test_take_draws_without_replacement(kind, tmp_path):
    split = memory_split(50) if kind == "memory" else stream_split(tmp_path)
    taken = split.take(20, seed=7)
    assert len(taken) == len(set(contents(taken))) == 20 and set(contents(taken)) < set(contents(split))
    assert same(taken.ordered(16), split.take(20, seed=7).ordered(16))
    assert not same(taken.ordered(16), split.take(20, seed=8).ordered(16))
    assert len(split.take(1000, seed=7)) == len(split)
