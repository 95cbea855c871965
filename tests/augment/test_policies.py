"""Policies, erasing and mixing against torchvision's."""

import math
from dataclasses import replace

import pytest
import torch
from torchvision.transforms import v2

from nasaug import augment
from nasaug.augment import View, at_magnitude, evaluation, make_view, mix
from nasaug.augment.erasing import erase
from nasaug.augment.ops import OPERATORS, SIGNED, apply
from nasaug.augment.policies import augmix, autoaugment, randaugment, trivialaugment
from nasaug.config import layers
from nasaug.config.schedule import Constant, Linear
from nasaug.core.errors import BadInput
from support.pictures import RANGES, RAW, REFERENCE, pictures, seeded, share_that_differs

POLICIES = {
    "randaugment": (randaugment, v2.RandAugment()),
    "trivialaugment": (trivialaugment, v2.TrivialAugmentWide()),
    "autoaugment": (autoaugment, v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)),
    "augmix": (augmix, v2.AugMix(interpolation=v2.InterpolationMode.NEAREST)),
}


def test_big_images_and_an_empty_batch(either):
    images = pictures(2, 3, 224, 224)
    for name in OPERATORS:
        value = RANGES[name][1] / 3
        assert share_that_differs(images, [name] * 2, [value] * 2, apply(images, name, value)) < 1e-3
    empty = images[:0]
    assert apply(empty, "Rotate", 3.0).shape == empty.shape
    for policy, _ in POLICIES.values():
        assert policy(empty, seeded()).shape == empty.shape


def replay(monkeypatch, draw, images, **options):
    """The operators and values that a policy passes to `apply`, per round."""
    from nasaug.augment import policies

    rounds = []

    def record(images, operators, values):
        rounds.append(([OPERATORS[operator] for operator in operators], values))
        return images

    monkeypatch.setattr(policies, "apply", record)
    draw(images, seeded(), **options)
    return rounds


def table_of(transform, name, bins, size):
    magnitudes, signed = transform._AUGMENTATION_SPACE[name]
    values = magnitudes(bins, *size)
    return ([0.0] if values is None else values.tolist()), signed


@pytest.mark.parametrize("magnitude", range(31))
def test_whole_magnitudes_of_randaugment_are_torchvisions_bins(magnitude, monkeypatch):
    rounds = replay(monkeypatch, randaugment, pictures(200, 3, 28, 20), magnitude=magnitude, num_ops=3)
    assert len(rounds) == 3
    seen = {}
    for names, values in rounds:
        for name, value in zip(names, values.tolist(), strict=True):
            bins, signed = table_of(REFERENCE, name, 31, (28, 20))
            expected = bins[magnitude] if len(bins) > 1 else 0.0
            assert value == expected or (signed and value == -expected)
            seen.setdefault(name, set()).add(value)
    assert set(seen) == set(REFERENCE._AUGMENTATION_SPACE)
    assert all(len(seen[name]) == 2 for name in seen if magnitude and SIGNED[OPERATORS.index(name)])


def test_between_whole_magnitudes_values_are_interpolated(monkeypatch):
    images = pictures(300, 1, 32, 32)
    rounds = {m: replay(monkeypatch, randaugment, images, magnitude=m)[0] for m in (9, 9.25, 10)}
    names = rounds[9][0]
    low, middle, high = (values for _, values in rounds.values())
    bits = torch.tensor([name == "Posterize" for name in names])
    torch.testing.assert_close(middle[~bits], (0.75 * low + 0.25 * high)[~bits])
    assert (middle[bits] == round(8 - 9.25 / 7.5)).all()


def test_each_image_may_have_a_magnitude_of_its_own():
    images = pictures(120, 3, 24, 24)
    own = torch.arange(120) % 31
    mixed = randaugment(images, seeded(), own, 2)
    for magnitude in range(31):
        alike = randaugment(images, seeded(), magnitude, 2)  # whose operators and signs are the same
        assert torch.equal(mixed[own == magnitude], alike[own == magnitude])
    assert not torch.equal(mixed, randaugment(images, seeded(), 15, 2))


def test_magnitudes_are_spread_around_the_views_and_cut_at_the_ends(monkeypatch):
    images, seen = pictures(4000, 1, 4, 4), []

    def noting(images, generator, magnitude, num_ops):
        seen.append(magnitude)
        return images

    monkeypatch.setattr(augment, "randaugment", noting)
    for magnitude, std in ((9, 0.0), (9, 2.0), (29, 2.0)):
        view = View(policy="randaugment", magnitude=magnitude, magnitude_std=std)
        make_view(view, images, seeded(), **RAW)
    alike, spread, cut = seen
    assert alike == 9 and spread.shape == (4000,)
    assert spread.mean().item() == pytest.approx(9, abs=0.15) and spread.std().item() == pytest.approx(2, abs=0.1)
    assert cut.max() == 30 and (cut == 30).double().mean().item() == pytest.approx(0.31, abs=0.04)


def test_a_magnitude_of_0_throughout_is_no_policy():
    view = View(crop=0.2)
    assert at_magnitude(view, Constant(0.0)) == replace(view, magnitude=Constant(0.0))
    spread = View(policy="randaugment", magnitude_std=2.0)
    assert at_magnitude(spread, Constant(0.0)) == View(magnitude=Constant(0.0))
    with pytest.raises(BadInput, match="policy augmix"):
        at_magnitude(View(policy="augmix"), Constant(4.0))
    assert at_magnitude(view, Constant(9.0)).policy == at_magnitude(view, Linear(9.0, 0.0)).policy == "randaugment"


def test_trivialaugment_draws_from_torchvisions_wide_bins(monkeypatch):
    reference = POLICIES["trivialaugment"][1]
    ((names, values),) = replay(monkeypatch, trivialaugment, pictures(4000, 1, 6, 6))
    seen = {}
    for name, value in zip(names, values.tolist(), strict=True):
        seen.setdefault(name, set()).add(value)
    assert set(seen) == set(reference._AUGMENTATION_SPACE)
    for name, drawn in seen.items():
        bins, signed = table_of(reference, name, 31, (6, 6))
        allowed = {sign * value for value in bins for sign in ((-1, 1) if signed else (1,))}
        assert drawn <= allowed and len(drawn) > 0.8 * len(allowed)


@pytest.mark.parametrize(("size", "policy"), [(64, "CIFAR10"), (65, "IMAGENET")])
def test_autoaugment_draws_torchvisions_pairs(size, policy, monkeypatch):
    reference = v2.AutoAugment(v2.AutoAugmentPolicy[policy])
    allowed = set()
    for pair in reference._policies:
        steps = []
        for name, _, magnitude in pair:
            bins, _ = table_of(reference, name, 10, (size, size))
            steps.append((name, bins[magnitude or 0]))
        allowed |= {(a, b) for a in (steps[0], ("Identity", 0.0)) for b in (steps[1], ("Identity", 0.0))}
    images = torch.zeros(3000, 1, size, size, dtype=torch.uint8)
    first, second = replay(monkeypatch, autoaugment, images)
    steps = (zip(names, values.abs().tolist(), strict=True) for names, values in (first, second))
    drawn = set(zip(*steps, strict=True))
    assert drawn <= allowed and len(drawn) > 0.6 * len(allowed)


@pytest.mark.parametrize("severity", [1, 3, 10])
def test_augmix_chains_draw_torchvisions_magnitudes_up_to_the_severity(severity, monkeypatch):
    reference = POLICIES["augmix"][1]
    rounds = replay(monkeypatch, augmix, pictures(500, 1, 30, 24), severity=severity)
    active = [sum(name != "Identity" for name in names) / 1500 for names, _ in rounds]
    assert active == pytest.approx([1, 2 / 3, 1 / 3], abs=0.05)
    for names, values in rounds:
        for name, value in zip(names, values.tolist(), strict=True):
            if name != "Identity":
                assert abs(value) in table_of(reference, name, 10, (30, 24))[0][:severity]


def test_augmix_without_chains_keeps_the_image_but_for_its_cut(monkeypatch):
    from nasaug.augment import policies

    monkeypatch.setattr(policies, "apply", lambda images, *_: images)
    images = pictures(50, 3, 8, 8)
    loss = images.int() - augmix(images, seeded())
    assert 0 <= loss.min() and loss.max() <= 1  # torchvision cuts 99.99 to 99


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("channels", [1, 3])
def test_policies_change_images_about_as_much_as_torchvisions(name, channels):
    ours, reference = POLICIES[name]
    images = pictures(600, channels, 12, 12)
    torch.manual_seed(0)
    theirs = torch.stack([reference(image) for image in images])
    out = ours(images, seeded())

    def figures(changed):
        """Brightness, mean change and share of changed pixels of each image, [3, n]."""
        change = (changed.float() - images.float()).abs()
        return torch.stack([changed.float(), change, (change > 0).float()]).mean((2, 3, 4))

    found, expected = figures(out), figures(theirs)
    error = (found.var(1) + expected.var(1)).sqrt() / len(images) ** 0.5
    assert ((found.mean(1) - expected.mean(1)).abs() < 4 * error).all()


@pytest.mark.parametrize("options", [{"policy": name} for name in POLICIES] + [{"erase": 0.7}])
@pytest.mark.parametrize("channels", [1, 3])
def test_views_are_reproducible_and_advance_the_generator_alike(options, channels):
    view, generators = View(brightness=0.2, **options), [seeded(3), seeded(3), seeded(3)]
    images = pictures(20, channels, 16, 16)
    before, state = images.clone(), torch.get_rng_state()
    first, again, blank = (
        make_view(view, batch, generator, **RAW)
        for batch, generator in zip((images, images, torch.zeros_like(images)), generators, strict=True)
    )
    assert torch.equal(first, again) and torch.equal(images, before)
    assert first.shape == (20, 3, 16, 16) and first.is_contiguous(memory_format=torch.channels_last)
    assert len({tuple(generator.get_state().tolist()) for generator in generators}) == 1
    assert blank.shape == first.shape
    assert torch.equal(torch.get_rng_state(), state)  # the global generator was not touched
    assert not torch.equal(make_view(view, images, seeded(4), **RAW), first)


def test_the_policy_comes_after_the_crop_and_before_the_jitter():
    images, view = pictures(12, 3, 16, 16), View(policy="trivialaugment", brightness=0.3, erase=1.0)
    generator = seeded()
    x = make_view(View(), images, generator, **RAW)
    x = trivialaugment((x * 255).round().to(torch.uint8).contiguous(), generator)
    x = make_view(View(flip=False, crop=0, brightness=0.3), x, generator, **RAW)
    assert torch.equal(make_view(view, images, seeded(), **RAW), erase(x, 1.0, generator))


def test_a_schedule_moves_the_magnitude_with_the_progress():
    images = pictures(60, 3, 16, 16)
    falling = View(policy="randaugment", magnitude=Linear(20.0, 0.0), flip=False, crop=0)

    def drawn(view, progress):
        return make_view(view, images, seeded(), **RAW, progress=progress)

    assert torch.equal(drawn(falling, 0.5), drawn(View(policy="randaugment", magnitude=10, flip=False, crop=0), 0.0))
    plain = evaluation(images, **RAW)
    start, middle, end = ((drawn(falling, at) - plain).abs().mean() for at in (0.0, 0.5, 1.0))
    assert start > middle > end


def test_a_view_takes_a_magnitude_between_two_as_exactly_as_it_is_said():
    """Rounding 9.3 to single precision would change one image in a few."""
    images = pictures(2000, 3, 16, 16)
    seen = make_view(View(policy="randaugment", magnitude=9.3, flip=False, crop=0), images, seeded(), **RAW)
    assert torch.equal(seen, evaluation(randaugment(images, seeded(), 9.3, 2), **RAW))


@pytest.mark.parametrize("probability", [0.0, 0.4, 1.0])
def test_rectangles_are_erased_as_torchvision_draws_them(probability):
    n, size = 2000, 32
    x = torch.ones(n, 3, size, size).contiguous(memory_format=torch.channels_last)
    out = erase(x, probability, seeded())
    assert (x == 1).all() and out.is_contiguous(memory_format=torch.channels_last)
    gone = (out == 0).all(1)
    assert torch.equal(gone, (out == 0).any(1))
    area, rows, columns = gone.sum((1, 2)), gone.any(2).sum(1), gone.any(1).sum(1)
    assert torch.equal(area, rows * columns)  # one rectangle
    erased = area > 0
    assert erased.float().mean().item() == pytest.approx(probability, abs=0.04)
    if not probability:
        return
    share = area[erased] / size**2
    assert 0.012 < share.min() < 0.03 and 0.31 < share.max() < 0.36
    assert share.mean().item() == pytest.approx(0.175, abs=0.01)
    ratio = (rows / columns)[erased].log()
    assert ratio.abs().max() < math.log(3.3) + 0.3 and ratio.mean().abs() < 0.05
    starts = gone[erased].any(2).float().argmax(1)
    assert starts.min() == 0 and (starts + rows[erased]).max() == size


def test_a_rectangle_that_never_fits_is_left_out():
    x = torch.ones(50, 1, 4, 4)
    assert torch.equal(erase(x, 1.0, seeded(), scale=(1.0, 1.0), ratio=(1.0, 1.0)), x)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixing_gives_images_and_targets_the_same_shares(kind):
    n, classes = 12, 5
    labels = torch.arange(n) % classes
    x = torch.nn.functional.one_hot(labels, classes).float().view(n, classes, 1, 1).repeat(1, 1, 16, 16)
    view, state = View(**{kind: 1.0}), torch.get_rng_state()
    mixed, targets = mix(view, x, labels, classes, seeded(1))
    assert torch.equal(torch.get_rng_state(), state)
    assert targets.dtype == torch.float32 and targets.shape == (n, classes)
    torch.testing.assert_close(targets.sum(1), torch.ones(n))
    torch.testing.assert_close(mixed.mean((2, 3)), targets)  # one channel per class: its mean is the class's share
    assert mixed.is_contiguous(memory_format=torch.channels_last)
    assert ((targets > 0).sum(1) == 2).all()
    assert torch.equal(mix(view, x, labels, classes, seeded(1))[0], mixed)
    assert not torch.equal(mix(view, x, labels, classes, seeded(2))[0], mixed)


def test_without_mixing_images_and_labels_are_returned_as_they_are():
    x, labels, generator = torch.rand(4, 3, 8, 8), torch.arange(4), seeded()
    state = generator.get_state()
    result = mix(View(), x, labels, 4, generator)
    assert result[0] is x and result[1] is labels
    assert torch.equal(generator.get_state(), state)


@pytest.mark.parametrize(
    ("bad", "remedy"),
    [
        ({"policy": "randaugmnet"}, "did you mean randaugment"),
        ({"magnitude": 31}, "give 0 to 30"),
        ({"magnitude": Linear(9.0, -1.0)}, "give 0 to 30"),
        ({"magnitude_std": -1.0}, "to 30"),
        ({"magnitude_std": 2.0}, "RandAugment's.*policy = \"randaugment\""),
        ({"magnitude": 5.0, "policy": "trivialaugment"}, "RandAugment's.*policy = \"randaugment\""),
        ({"magnitude": Linear(9.0, 0.0)}, "RandAugment's.*policy = \"randaugment\""),
        ({"num_ops": 0}, "give 1 or more"),
        ({"num_ops": 1.5}, "give 1 or more"),
        ({"severity": 0.5}, "give 1 to 10"),
        ({"severity": math.nan}, "give 1 to 10"),
        ({"erase": 1.1}, r"give 0 \(none\) to 1"),
        ({"mixup": -0.1}, r"give 0 \(none\) or more"),
        ({"cutmix": math.inf}, r"give 0 \(none\) or more"),
        ({"mixup": 0.2, "cutmix": 1.0}, "set one of them to 0"),
    ],
)
def test_impossible_views_are_refused_in_one_line(bad, remedy):
    with pytest.raises(BadInput, match=remedy) as error:
        View(**bad)
    assert next(iter(bad)) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "call",
    [
        lambda images: randaugment(images, seeded(), magnitude=30.5),
        lambda images: randaugment(images, seeded(), magnitude=torch.tensor([9.0, math.nan])),
        lambda images: augmix(images, seeded(), severity=11),
        lambda images: apply(images, "Rotated", 1.0),
        lambda images: apply(images, torch.tensor([4]), 1.0),
        lambda images: apply(images.float(), "Rotate", 1.0),
        lambda images: apply(images.expand(-1, 2, -1, -1), "Rotate", 1.0),
    ],
)
def test_operators_and_policies_refuse_what_they_cannot_do(call):
    with pytest.raises(BadInput):
        call(pictures(2, 1, 8, 8))


def test_recipes_write_a_magnitude_as_a_number_or_a_table():
    falling = {"kind": "linear", "start": 9, "end": 0}
    for written, magnitude in ((7, Constant(7.0)), (falling, Linear(9.0, 0.0))):
        view = layers._build({"policy": "randaugment", "magnitude": written}, View, [])
        assert view == View(policy="randaugment", magnitude=magnitude)
        assert layers.to_dict(view)["magnitude"] == written
