"""The detection task: which points find a box, what a net learns, what is found, and how it is scored."""

import math

import pytest
import torch

from nasaug.arch.blocks import Spec
from nasaug.arch.plan import from_specs
from nasaug.augment import evaluation
from nasaug.core.boxes import CLASS, CROWD, DIFFICULT, FLAG
from nasaug.core.errors import MissingExtra
from nasaug.data import Info
from nasaug.nets.net import Net
from nasaug.tasks import Detect, Target, chosen, detect, of_facts, precision
from support.canvases import drawn, labels_of, pixels_of

TASK, SIDE = Detect(3), 64
BODY = (
    Spec("stem", "conv", 8, kernel=3, stride=2, act="relu6"), Spec("a", "inverted", 12, 24, 3, 2, "relu6"),
    Spec("b", "inverted", 16, 48, 3, 2, "relu6"), Spec("b2", "inverted", 16, 48, 3, 1, "relu6", shortcut="identity"),
    Spec("c", "inverted", 24, 48, 3, 2, "relu6"), Spec("d", "inverted", 24, 48, 3, 2, "relu6"),
)  # fmt: skip
STEPS, IMAGES = 60, 16


def boxed(*rows, most=4):
    labels = torch.zeros(1, most, 6)
    labels[:, :, CLASS] = -1
    for i, row in enumerate(rows):
        labels[0, i] = torch.tensor(row)
    return labels


def perfect(labels, sides=8, classes=3):
    """An output that finds exactly the boxes that points are assigned."""
    count = sum(n * n for n in detect.sides(sides))
    out = torch.full((len(labels), count, classes + 5), -12.0)
    points = detect.points_of(out)
    owner, _ = detect.assigned(points, labels)
    for image, point in (owner >= 0).nonzero().tolist():
        x1, y1, x2, y2, label, _ = labels[image, owner[image, point]].tolist()
        x, y = points.centre[point].tolist()
        distances = torch.tensor([x - x1, y - y1, x2 - x, y2 - y]) / points.side[point]
        out[image, point, int(label)] = 12.0
        out[image, point, classes:-1] = distances.log()
        across, down = distances[::2].sort().values, distances[1::2].sort().values
        out[image, point, -1] = torch.logit((across[0] / across[1] * down[0] / down[1]).sqrt(), 1e-4)
    return out


def test_the_task_follows_from_boxes_and_comes_back_from_its_facts():
    assert chosen("auto", Info("x", 3, 64, False, "boxes")) is Detect
    assert of_facts({"classes": ["a", "b"], **TASK.facts}) == Detect(2)
    assert TASK.head.outputs == 8 and not TASK.head.pooled


def test_the_number_of_points_tells_the_size_of_each_map():
    for n in range(1, 200):
        count = sum(side**2 for side in detect.sides(n))
        points = detect.points_of(torch.zeros(1, count, 8))
        assert points.side.max() == 1 / detect.sides(n)[-1] and points.side.min() == pytest.approx(1 / n)
        assert [(points.level == i).sum() for i in range(3)] == [side**2 for side in detect.sides(n)]
    with pytest.raises(ValueError, match="22 points are not those of 3 maps"):
        detect.points_of(torch.zeros(1, 22, 8))


def test_a_box_is_found_near_its_centre_on_the_map_of_its_size():
    points = detect.points_of(torch.zeros(1, 8 * 8 + 16 + 4, 8))
    small, large = (0.1, 0.1, 0.4, 0.4, 0, 0), (0.05, 0.05, 0.95, 0.95, 1, 0)
    owner, ignored = detect.assigned(points, boxed(small, large))
    assert set(points.level[owner[0] == 0].tolist()) == {0} and set(points.level[owner[0] == 1].tolist()) == {1}
    at = points.centre[owner[0] == 0]
    assert ((at > 0.1) & (at < 0.4)).all() and len(at) == 4 and not ignored.any()
    tiny = (0.49, 0.49, 0.51, 0.51, 2, 0)  # between the points: the nearest one finds it
    assert (detect.assigned(points, boxed(tiny))[0] >= 0).sum() == 1


def test_the_smaller_of_two_boxes_has_the_point_and_empty_images_have_none():
    points = detect.points_of(torch.zeros(1, 84, 8))
    outer, inner = (0.2, 0.2, 0.69, 0.69, 0, 0), (0.35, 0.35, 0.55, 0.55, 1, 0)
    owner, _ = detect.assigned(points, boxed(outer, inner))
    inside = ((points.centre > 0.35) & (points.centre < 0.55)).all(1) & (points.level == 0)
    assert (owner[0][inside] == 1).all() and (owner == 0).any()
    assert (detect.assigned(points, boxed())[0] < 0).all()


@pytest.mark.parametrize("flag", [DIFFICULT, CROWD])
def test_difficult_objects_and_crowds_are_neither_learnt_nor_punished(flag):
    labels = boxed((0.1, 0.1, 0.5, 0.5, 0, flag))
    out = torch.randn(1, 84, 8, generator=torch.Generator().manual_seed(0))
    points = detect.points_of(out)
    owner, ignored = detect.assigned(points, labels)
    assert (owner < 0).all() and ignored.any()
    louder = out.clone()
    louder[ignored] += 3
    assert TASK.loss(louder, Target(labels)).item() == pytest.approx(TASK.loss(out, Target(labels)).item())
    assert TASK.loss(louder, Target(boxed())).item() > TASK.loss(out, Target(boxed())).item() + 0.1


def test_a_perfect_output_has_next_to_no_loss_and_finds_each_box_once():
    labels = labels_of(drawn(6, seed=3, objects=(1, 3)))
    out = perfect(labels)
    assert TASK.loss(out, Target(labels)).item() < 0.7  # what is left is the entropy of the centerness
    assert TASK.loss(torch.zeros_like(out), Target(labels)).item() > 1.5
    found = TASK.answer(out)
    for rows, own in zip(found, labels, strict=True):
        rows, own = rows[rows[:, CLASS] >= 0], own[own[:, CLASS] >= 0]
        rows, own = (each[(each[:, CLASS] * 10 + each[:, 0]).argsort()] for each in (rows, own))
        assert torch.allclose(rows[:, :5], own[:, :5], atol=1e-4)


def test_detections_are_best_first_and_images_keep_their_own():
    out = torch.full((2, 84, 8), -12.0)
    out[..., 3:7], out[..., -1] = math.log(1.0), 5.0
    out[0, 9, 1], out[0, 40, 2], out[1, 20, 0] = 8.0, 12.0, 9.0
    found = TASK.answer(out)
    assert found[0, :2, CLASS].tolist() == [2, 1] and found[1, 0, CLASS] == 0
    assert (found[0, :-1, 5] >= found[0, 1:, 5]).all() and (found[1, 1:, CLASS] == -1).all()


def test_matching_another_output_is_least_for_that_output():
    out = torch.randn(2, 84, 8, generator=torch.Generator().manual_seed(1))
    soft = TASK.soft(out)
    assert not soft.requires_grad and TASK.match(out, soft) < TASK.match(out + 0.5, soft)
    whole = Detect(3, hard=0.5, soft_weight=2.0)
    labels = labels_of(drawn(2, seed=3))
    parts = 0.5 * TASK.loss(out, Target(labels)) + 2 * TASK.match(out, soft)
    assert whole.loss(out, Target(labels, soft)).item() == pytest.approx(parts.item(), rel=1e-5)


def test_without_pycocotools_the_extra_is_named_before_anything_is_read(monkeypatch):
    monkeypatch.setattr(precision, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"detection needs pycocotools.*pip install 'nasaug\[detect\]'"):
        Detect.outputs(Info("x", 3, 64, False, "boxes"))


# --- learning -------------------------------------------------------------------------------------------------


def overfitted(canvases):
    """A tiny net trained on these canvases alone, and its output on them."""
    x = evaluation(pixels_of(canvases), (0.3,) * 3, (0.25,) * 3)
    net, target = Net(from_specs((*BODY, *TASK.head.specs), SIDE, TASK.head), 0), Target(labels_of(canvases))
    optimizer = torch.optim.Adam(net.parameters(), 6e-3)
    for i in range(STEPS):
        optimizer.param_groups[0]["lr"] = 6e-3 * (1 - i / STEPS)
        optimizer.zero_grad()
        TASK.loss(net(x), target).backward()
        optimizer.step()
    net.calibrate([x]).eval()
    with torch.no_grad():
        return net(x)


@pytest.fixture(scope="module")
def canvases():
    return drawn(IMAGES, seed=1)


@pytest.fixture(scope="module")
def learnt(canvases):
    pytest.importorskip("pycocotools", reason="the extra detect is not installed")
    return overfitted(canvases)


def ap50(out, canvases):
    return TASK.score([TASK.judge(out, labels_of(canvases))]) / 100


def test_a_tiny_net_learns_sixteen_canvases(learnt, canvases):
    assert ap50(learnt, canvases) > 0.9


def test_boxes_moved_by_one_stride_fall_below_half(learnt, canvases, monkeypatch):
    right = detect.points_of
    monkeypatch.setattr(detect, "points_of", lambda out: right(out)._replace(
        centre=right(out).centre + right(out).side[:, None]))  # fmt: skip
    assert ap50(learnt, canvases) < 0.5


def test_exchanged_x_and_y_fall_below_half(learnt, canvases, monkeypatch):
    right = detect.points_of
    monkeypatch.setattr(detect, "points_of", lambda out: right(out)._replace(centre=right(out).centre.flip(1)))
    assert ap50(learnt, canvases) < 0.5


def test_an_inverted_matching_threshold_falls_below_half(canvases, monkeypatch):
    pytest.importorskip("pycocotools", reason="the extra detect is not installed")
    monkeypatch.setattr(detect, "fits", lambda inside, away, side: ~(inside & (away < detect.RADIUS * side)))
    assert ap50(overfitted(canvases), canvases) < 0.5


def test_the_flag_of_an_object_reaches_the_judgement():
    labels = boxed((0.1, 0.1, 0.4, 0.4, 0, 0), (0.5, 0.5, 0.9, 0.9, 1, DIFFICULT))
    rows = TASK.judge(perfect(labels[:, :1]), labels)[0, detect.MOST :]
    assert rows[:, precision.KIND].tolist() == [1, 2, -1, -1] and labels[0, 1, FLAG] == DIFFICULT
