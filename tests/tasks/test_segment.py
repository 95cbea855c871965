"""Instance segmentation: masks read and moved, what a net learns, and mask mAP as pycocotools has it."""

import contextlib
import io
import json

import numpy as np
import pytest
import torch

from nasaug.arch.blocks import Spec
from nasaug.arch.cost import cost
from nasaug.arch.plan import from_dict, from_specs
from nasaug.augment import View, evaluation, masks
from nasaug.augment.transform import Transform
from nasaug.core.boxes import CLASS, COLUMNS, CROWD, FLAG
from nasaug.core.errors import BadInput
from nasaug.data import DataConfig, load
from nasaug.nets.net import Net
from nasaug.tasks import Segment, Settings, Target, of_facts, segment
from nasaug.tasks.segment import SegmentConfig, paste
from support.segments import segmentation, written

pytest.importorskip("pycocotools", reason="the extra detect is not installed")

SIDE, STEPS = 64, 50
BODY = (
    Spec("stem", "conv", 8, kernel=3, stride=2, act="relu6"), Spec("a", "inverted", 12, 24, 3, 2, "relu6"),
    Spec("b", "inverted", 16, 48, 3, 2, "relu6"), Spec("c", "inverted", 24, 48, 3, 2, "relu6"),
    Spec("d", "inverted", 32, 48, 3, 2, "relu6"),
)  # fmt: skip
SMALL = SegmentConfig(width=16, box_width=48, mask_width=16, detections=5)


def net_of(task, body=BODY, resolution=SIDE):
    return Net(from_specs((*body, *task.head.specs), resolution, task.head), 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return written(tmp_path_factory.mktemp("shapes"))


@pytest.fixture(scope="module")
def data(folder):
    return load(DataConfig(str(folder), val_images=1), size=SIDE, masks=True)


@pytest.fixture(scope="module")
def task(data):
    return Segment.of_data(data, Settings(sizes=SMALL))


@pytest.fixture(scope="module")
def batch(data):
    """(uint8 images, labels) of eight training images."""
    return next(data.train.take(8, 0).ordered(8))


# --- data -----------------------------------------------------------------------------------------------------


def test_polygons_and_runs_become_the_masks_that_were_drawn(folder, data):
    drawn = segmentation().canvases(4, 2, sides=(64, 64), sizes=(20, 32), objects=(1, 2))
    test = load(DataConfig(str(folder), val_images=1), size=SIDE, masks=True).finish()
    _, labels = next(test.ordered(4))
    for row, (_, things) in zip(labels, drawn, strict=True):
        own = row[row[:, CLASS] >= 0]
        assert own[:, CLASS].tolist() == [thing.label for thing in things]
        for mask, thing in zip(data.masks.at(own[None, :, COLUMNS], SIDE)[0], things, strict=True):
            differs = int((mask.bool() != torch.from_numpy(thing.mask)).sum())  # pixels that a slanted edge divides
            assert differs <= (0 if isinstance(thing.segmentation, dict) else 40), thing.label
    kinds = {type(thing.segmentation) for _, things in drawn for thing in things}
    assert kinds == {list, dict}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_are_turned_as_viewers_turn_the_image(orientation):
    from PIL import Image, ImageOps
    from pycocotools import mask

    from nasaug.data.masks import encoded

    stored = np.zeros((4, 6), np.uint8)
    stored[0, :3], stored[1, 0] = 1, 1
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = io.BytesIO()
    Image.fromarray(stored * 255).save(content, "png", exif=exif)
    shown = np.array(ImageOps.exif_transpose(Image.open(content))) > 0
    given = segmentation().runs(stored > 0)
    assert (mask.decode(encoded(given, 6, 4, orientation)) == shown).all()


SQUARE = [1, 1, 9, 1, 9, 9, 1, 9]
WRONG = {
    "has no segmentation": [None, [], ""],
    "a polygon that is not a list of at least three points": [[[1, 2, 3, 4]], [[1, 2, 3, 4, 5]], [[1, 2, 3, 4, 5, "x"]],
                                                              [[1, 2, 3, 4, 5, float("nan")]], SQUARE],
    "a polygon that reaches far beyond its image": [[[1, 2, 3, 4, 1e300, 6]], [[1, 2, -99, 4, 5, 6]]],
    r"a mask of size \[20, 10\] on an image of 20 x 10": [{"size": [20, 10], "counts": [200]}],
    'without "size" and "counts"': [{"counts": [200]}, {"size": [10, 20]}],
    "runs are not those of 200 pixels": [
        {"size": [10, 20], "counts": counts} for counts in ([5, 5], [-1, 201], "junk", "\x00", "0o")
    ],
    "a mask without pixels": [{"size": [10, 20], "counts": [200]}],
    "neither polygons nor a run-length": [3, "x"],
}  # fmt: skip


@pytest.mark.parametrize("pattern", WRONG)
def test_wrong_segmentations_are_named_all_at_once(tmp_path, pattern):
    given = WRONG[pattern]
    segmentation().write(tmp_path, {"train": segmentation().canvases(1, 0, sides=(16, 16), sizes=(8, 8))})
    path = tmp_path / "annotations/instances_train.json"
    said = json.loads(path.read_text())
    said["images"][0] |= {"width": 20, "height": 10}
    (tmp_path / "train/00000.png").unlink()
    __import__("PIL.Image").Image.new("RGB", (20, 10)).save(tmp_path / "train/00000.png")
    box = {"image_id": 1, "category_id": 1, "bbox": [1, 1, 8, 8]}
    said["annotations"] = [{"id": 7 + i, **box, "segmentation": each} for i, each in enumerate(given)]
    path.write_text(json.dumps(said))
    many = f"has {len(given)} things? wrong with the annotations"
    with pytest.raises(BadInput, match=f"{many}: .*annotation 7 .*{pattern}.*annotation {6 + len(given)} .*{pattern}|"
                       f"{many}: .*annotation 7 .*{pattern}"):  # fmt: skip
        load(DataConfig(str(tmp_path)), masks=True)


def test_compressed_runs_are_read_as_pycocotools_writes_them():
    from pycocotools import mask

    from nasaug.data.masks import encoded

    drawn = np.asfortranarray(torch.rand(40, 30, generator=torch.Generator().manual_seed(0)).numpy() < 0.3).astype("u1")
    drawn[:, 10:28] = 1  # a long run
    rle = mask.encode(np.asfortranarray(drawn))
    plain = {"size": [40, 30], "counts": rle["counts"].decode()}
    assert (mask.decode(encoded(plain, 30, 40)) == drawn).all()


def test_a_folder_in_voc_layout_has_no_masks(tmp_path):
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations/a.xml").write_text("<annotation/>")
    with pytest.raises(BadInput, match="Pascal VOC's layout, which gives boxes and no masks; .* task=segment"):
        load(DataConfig(str(tmp_path)), masks=True)


# --- views ----------------------------------------------------------------------------------------------------


def boxes_of(labels):
    """The boxes in px of the masks in a view's labels."""
    from torchvision.ops import masks_to_boxes

    own = labels[labels[..., CLASS] >= 0]
    return masks_to_boxes(masks.pixels(own[None], SIDE)[0]) + torch.tensor([0, 0, 1, 1])


@pytest.mark.parametrize("view", [View(), View(zoom_out=2.0, iou_crop=1.0), View(scale_jitter=1.5)],
                         ids=["shift", "zoom", "jitter"])  # fmt: skip
def test_masks_and_boxes_move_together(data, batch, view):
    images, labels = batch
    seen, moved = masks.moved(
        view, images, labels, data.masks.at(labels[..., COLUMNS], SIDE), torch.Generator().manual_seed(3), True
    )
    assert seen.shape == images.shape and not torch.equal(seen, images)
    own = moved[moved[..., CLASS] >= 0][:, :CLASS] * SIDE
    assert len(own) >= 6 and (boxes_of(moved) - own).abs().max() < 2.5


def test_thin_passes_move_masks_with_their_images(data, batch):
    images, labels = batch
    view = torch.cat([labels[..., :COLUMNS], data.masks.at(labels[..., COLUMNS], SIDE).flatten(2)], 2)
    x = images.float()
    seen, moved = masks.transformed(Transform(crop=0.3), x, view, torch.Generator().manual_seed(0))
    own = moved[moved[..., CLASS] >= 0][:, :CLASS] * SIDE
    assert seen.shape == x.shape and not torch.equal(moved[..., :CLASS], view[..., :CLASS])
    assert (boxes_of(moved) - own).abs().max() < 2.5


# --- the net --------------------------------------------------------------------------------------------------


def test_the_plan_has_the_lateral_convolutions_and_comes_back_from_json(task):
    plan = net_of(task).plan
    rows = [(b.name, b.spec.source, b.out_size[0]) for b in plan.head]
    assert rows == [("lateral0", "a", 16), ("lateral1", "b", 8), ("lateral2", "c", 4), ("lateral3", "d", 2)]
    assert {b.out for b in plan.head} == {16}
    again = from_dict(json.loads(json.dumps(plan.to_dict())))
    assert again == plan and again.specs == plan.specs
    body = from_specs((*BODY, Spec("pool", "pool"), Spec("classifier", "linear", 3)), SIDE, 3)
    laterals = sum(b.cin * b.out * b.out_size[0] ** 2 for b in plan.head)
    assert cost(plan).macs == cost(body).macs - 32 * 3 + laterals
    altered = plan.to_dict()
    altered["head"] = altered["head"] | {"beside": {"classes": 3}}
    with pytest.raises(BadInput, match="head.beside = .* must give classes, width, .*; write the file again"):
        from_dict(altered)
    few = net_of(task, BODY[:2])  # fewer sizes than maps: the last one is read with strides
    assert [b.out_size[0] for b in few.plan.head] == [32, 16, 8, 4]


def test_macs_beside_the_plan_are_told_and_counted(task):
    net = net_of(task)
    line, facts = task.beside(net.plan, net.two_stage.costs([block.out_size[0] for block in net.plan.head]))
    macs = facts["macs_beside"]
    parts = macs["fpn"] + macs["rpn"] + 50 * macs["per_proposal"] + 5 * macs["per_mask"]
    assert macs["total"] == parts and "50 proposals" in line and "5 masks" in line
    assert facts["params_beside"] == sum(p.numel() for p in net.two_stage.parameters())
    pixels = 16**2 + 8**2 + 4**2 + 2**2
    assert macs["fpn"] == 9 * 16 * 16 * pixels
    assert macs["per_proposal"] == 49 * 16 * 48 + 48 * 48 + 48 * (4 + 16)


def test_slices_share_what_is_beside_the_plan(task):
    wide = tuple(spec._replace(width=spec.width * 2, hidden=spec.hidden * 2) for spec in BODY)
    big = net_of(task, wide)
    small = big.narrow(net_of(task).plan)
    assert torch.equal(small.two_stage.rpn.head.cls_logits.weight, big.two_stage.rpn.head.cls_logits.weight)
    x = torch.randn(2, 3, SIDE, SIDE)
    ours, theirs = big(x, small.plan).levels, small(x).levels
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours, theirs, strict=True))
    net, again = net_of(task), net_of(task)
    assert all(map(torch.equal, net.state_dict().values(), again.state_dict().values()))


def test_a_loss_is_the_same_each_time_and_leaves_the_generator_alone(task, batch):
    net, target = net_of(task), Target(batch[1])
    out = net(evaluation(batch[0], (0.3,) * 3, (0.25,) * 3))
    state = torch.get_rng_state()
    assert task.loss(out, target).item() == task.loss(out, target).item()
    assert torch.equal(torch.get_rng_state(), state)
    empty = batch[1].clone()
    empty[..., CLASS] = -1
    assert task.loss(out, Target(empty)).isfinite()
    crowd = batch[1].clone()
    crowd[..., FLAG] = CROWD
    assert task.loss(out, Target(crowd)).item() == task.loss(out, Target(empty)).item()


# --- scores ---------------------------------------------------------------------------------------------------


def answers(labels, data, scores=None):
    """Detections, as `Segment.answer` gives them, that are the objects themselves."""
    found = torch.full((*labels.shape[:2], 6 + 28**2), -1.0)
    for i, j in (labels[..., CLASS] >= 0).nonzero().tolist():
        x1, y1, x2, y2 = (labels[i, j, :CLASS] * 280).round().long().tolist()
        whole = data.masks.at(labels[i : i + 1, j : j + 1, COLUMNS], 280)[0, 0, y1:y2, x1:x2]
        mask = torch.nn.functional.interpolate(whole[None, None].float(), (28, 28), mode="bilinear", antialias=True)
        found[i, j] = torch.cat([labels[i, j, :5], torch.tensor([0.9 - 0.01 * (i + j)]), mask.flatten()])
    return found


def test_mask_map_is_what_pycocotools_gives(task, data, batch):
    from pycocotools import mask
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    labels = batch[1].clone()
    labels[0, 0, FLAG] = CROWD
    found = answers(labels, data)
    found[1, 0, :4] += 0.08  # shifted
    found[2, 0, CLASS] = (found[2, 0, CLASS] + 1) % 3  # of another class
    found[3, 0, CLASS] = -1  # missed
    rows = segment.judged(found, labels, data.masks)
    objects, detections = [], []
    for i, (own, there) in enumerate(zip(found, labels, strict=True)):
        for row in there[there[:, CLASS] >= 0]:
            rle, (x1, y1, x2, y2) = data.masks.rles[int(row[COLUMNS])], (row[:CLASS] * SIDE).tolist()
            objects.append({"id": len(objects) + 1, "image_id": i, "category_id": int(row[CLASS]), "segmentation": rle,
                            "area": float(mask.area(rle)), "iscrowd": int(row[FLAG] > 0),
                            "bbox": [x1, y1, x2 - x1, y2 - y1]})  # fmt: skip
        own = own[own[:, CLASS] >= 0]
        for row, pixels in zip(own, paste(own, SIDE, SIDE), strict=True):
            rle = mask.encode(np.asfortranarray(pixels.numpy().astype(np.uint8)))
            x1, y1, x2, y2 = (row[:CLASS] * SIDE).tolist()
            detections.append({"image_id": i, "category_id": int(row[CLASS]), "score": float(row[5]),
                               "segmentation": rle, "bbox": [x1, y1, x2 - x1, y2 - y1]})  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {"images": [{"id": i, "height": SIDE, "width": SIDE} for i in range(8)], "annotations": objects,
                         "categories": [{"id": i} for i in range(3)]}  # fmt: skip
        truth.createIndex()
        wanted = {}
        for kind in ("segm", "bbox"):
            left = {"segm": "bbox", "bbox": "segmentation"}[kind]  # loadRes takes areas from what is there
            given = [{key: value for key, value in each.items() if key != left} for each in detections]
            evaluator = COCOeval(truth, truth.loadRes(given), kind)
            evaluator.evaluate()
            evaluator.accumulate()
            evaluator.summarize()
            wanted[kind] = 100 * evaluator.stats[:2]
    figures = task.figures([rows[:3], rows[3:]])
    assert [task.score([rows]), figures["mask_ap50"]] == pytest.approx(wanted["segm"].tolist(), abs=1e-4)
    assert [figures["box_map"], figures["box_ap50"]] == pytest.approx(wanted["bbox"].tolist(), abs=1e-4)
    assert 10 < wanted["segm"][0] < 90


def test_no_detections_and_no_objects_score_nothing(task, data, batch):
    nothing = torch.full((8, 5, 6 + 28**2), -1.0)
    assert task.score([segment.judged(nothing, batch[1], data.masks)]) == 0
    empty = batch[1].clone()
    empty[..., CLASS] = -1
    assert task.score([segment.judged(answers(batch[1], data), empty, data.masks)]) == 0


def test_shifted_and_transposed_masks_score_far_lower(task, data, batch):
    found = answers(batch[1], data)

    def score(change):
        wrong = found.clone()
        wrong[..., 6:] = change(found[..., 6:].unflatten(2, (28, 28))).flatten(2)
        return task.figures([segment.judged(wrong, batch[1], data.masks)])["mask_ap50"], task.score(
            [segment.judged(wrong, batch[1], data.masks)]
        )

    right = score(lambda masks: masks)
    assert right[0] > 99 and right[1] > 85
    shifted = score(lambda masks: torch.nn.functional.pad(masks, (14, -14)))  # by half of the box
    transposed = score(lambda masks: masks.transpose(2, 3))  # discs and squares stay what they are
    assert shifted[1] < 0.2 * right[1] and transposed[1] < right[1] - 15


# --- learning -------------------------------------------------------------------------------------------------


def test_a_tiny_net_learns_the_masks_of_four_canvases(task, data, batch):
    images, labels = (each[:4] for each in batch)
    x, target = evaluation(images, data.mean, data.std), Target(labels)
    net = net_of(task)
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    for i in range(STEPS):
        optimizer.param_groups[0]["lr"] = 5e-3 * (1 - i / STEPS)
        optimizer.zero_grad()
        task.loss(net(x), target).backward()
        optimizer.step()
    net.calibrate([x]).eval()
    with torch.no_grad():
        rows = task.judge(net(x), labels)
    assert task.figures([rows])["mask_ap50"] > 60
    assert net.two_stage.training is False


def test_the_task_comes_back_from_its_facts(task):
    again = of_facts({"classes": list(segmentation().CLASSES), **json.loads(json.dumps(task.facts))})
    assert again == task and again.head == task.head
