"""Boxes from folders in Pascal VOC's and COCO's layouts, as they are met in practice."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from nasaug.core.boxes import CLASS, CROWD, DIFFICULT, FLAG, PLAIN
from nasaug.core.errors import BadInput
from nasaug.data import DataConfig, boxes, describe, load
from nasaug.data.record import Record
from support.canvases import detection, drawn

NAMES = ["potted plant", "ring", "cross"]


def picture(path, size=(40, 20), mode="RGB", orientation=None, value=90):
    image = Image.new(mode, size, value if mode == "L" else (value,) * len(Image.new(mode, (1, 1)).getbands()))
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    image.save(path, **({"exif": exif} if orientation else {}))


def xml(*objects, name="", size=(40, 20), extra=""):
    """An annotation; objects are (class, x1, y1, x2, y2, difficult)."""
    rows = "".join(
        f"<object><name>{label}</name><difficult>{difficult}</difficult><bndbox><xmin>{a}</xmin><ymin>{b}</ymin>"
        f"<xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        for label, a, b, c, d, difficult in objects
    )
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>" if size else ""
    return f"<annotation><filename>{name}</filename>{sides}{rows}{extra}</annotation>"


def annotate(folder, stem, *objects, **about):
    (folder / "Annotations").mkdir(parents=True, exist_ok=True)
    (folder / "Annotations" / f"{stem}.xml").write_text(xml(*objects, **about))


def image_set(folder, name, *members):
    place = folder / "ImageSets" / "Main"
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{name}.txt").write_text("".join(f"{member}\n" for member in members))


def coco(path, images, annotations, categories=NAMES):
    path.parent.mkdir(parents=True, exist_ok=True)
    kinds = [{"id": i + 1, "name": name} for i, name in enumerate(categories)]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": kinds}))


def rows(listing, file):
    """The boxes of one image, without the empty rows."""
    values = listing.values[listing.files.tolist().index(file.encode())]
    return values[values[:, CLASS] >= 0]


def test_a_voc_folder_as_it_is_met(tmp_path):
    picture(tmp_path / "JPEGImages/a.jpg", mode="L")
    picture(tmp_path / "JPEGImages/b.jpg", (100, 50), "CMYK")
    picture(tmp_path / "JPEGImages/c.png", (30, 60), "RGB")
    annotate(tmp_path, "a", ("potted plant", 4, 5, 20, 15, 0), ("dog", 0, 0, 40, 20, 1))
    annotate(tmp_path, "b", ("dog", 90, 10, 105, 40, 0), size=None)
    annotate(tmp_path, "c", size=(30, 60), name="other.jpg")
    found = boxes.find(str(tmp_path))
    assert found.classes == ("dog", "potted plant") and found.targets == "boxes" and set(found.given) == {"train"}
    assert torch.allclose(rows(found, "JPEGImages/a.jpg"), torch.tensor(
        [[0.1, 0.25, 0.5, 0.75, 1, PLAIN], [0, 0, 1, 1, 0, DIFFICULT]]))  # fmt: skip
    assert torch.allclose(rows(found, "JPEGImages/b.jpg"), torch.tensor([[0.9, 0.2, 1, 0.8, 0, PLAIN]]))
    assert len(rows(found, "JPEGImages/c.png")) == 0
    assert found.notes == (
        "1 boxes reach beyond their images and were clipped",
        "1 images without objects, which are trained on as such",
    )


def test_folders_may_be_named_in_small_letters(tmp_path):
    picture(tmp_path / "Images/a.jpg")
    annotate(tmp_path, "a", ("cat", 1, 2, 11, 12, 0), name="a.jpg")
    (tmp_path / "Annotations").rename(tmp_path / "annotations")  # as LabelImg's users have it
    assert boxes.there(str(tmp_path)) and len(rows(boxes.find(str(tmp_path)), "Images/a.jpg")) == 1


def test_image_sets_of_several_years_give_the_splits(tmp_path):
    for year, names in (("VOC2007", "abcd"), ("VOC2012", "efg")):
        for name in names:
            picture(tmp_path / year / f"JPEGImages/{name}.jpg")
            annotate(tmp_path / year, name, ("dog", 4, 5, 20, 15, 0))
    old, new = tmp_path / "VOC2007", tmp_path / "VOC2012"
    image_set(old, "train", "a")
    image_set(old, "val", "b")
    image_set(old, "trainval", "a", "b")
    image_set(old, "test", "c")
    image_set(old, "dog_train", "a -1", "b  1")
    image_set(new, "trainval", "e", "f")
    found = boxes.find(str(tmp_path))
    there = {role: [found.files[i].decode()[-5] for i in places] for role, places in found.given.items()}
    assert there == {"train": ["a", "b", "e", "f"], "test": ["c"]}
    assert found.notes == ("1 annotations that no image set lists",) * 2


def test_without_a_test_list_that_for_validation_is_the_test_split(tmp_path):
    for name in "abc":
        picture(tmp_path / f"JPEGImages/{name}.jpg")
        annotate(tmp_path, name, ("dog", 4, 5, 20, 15, 0))
    image_set(tmp_path, "train", "a", "b")
    image_set(tmp_path, "val", "c")
    image_set(tmp_path, "trainval", "a", "b", "c")
    found = boxes.find(str(tmp_path))
    assert {role: places.tolist() for role, places in found.given.items()} == {"train": [0, 1], "test": [2]}


@pytest.mark.parametrize(("orientation", "box"), [
    (1, (0.1, 0.25, 0.5, 0.75)), (6, (0.25, 0.1, 0.75, 0.5)), (8, (0.25, 0.5, 0.75, 0.9)),
    (5, (0.25, 0.1, 0.75, 0.5)), (7, (0.25, 0.5, 0.75, 0.9)),
])  # fmt: skip
def test_boxes_of_an_image_as_stored_turn_with_it(tmp_path, orientation, box):
    """The box lies at rows 5 to 15, columns 4 to 20 of the stored 40 x 20 pixels; here it is bright in them."""
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[5:15, 4:20] = 255
    (tmp_path / "images").mkdir()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "images/a.png", exif=exif)
    annotate(tmp_path, "a", ("dog", 4, 5, 20, 15, 0))
    found = rows(boxes.find(str(tmp_path)), "images/a.png")[0, :4]
    config = DataConfig(str(tmp_path))
    image = boxed_pixels(config, found)
    if orientation in (1, 6, 8):
        assert torch.allclose(found, torch.tensor(box), atol=1e-6)
    assert image.min() > 200


def boxed_pixels(config, box):
    """The pixels well inside the box of the folder's only image, as nasaug decodes it."""
    folder = load_folder(config, 80)
    image = folder._decoded()[0][0, 0]
    x1, y1, x2, y2 = (box * 80).round().int().tolist()
    return image[y1 + 4 : y2 - 4, x1 + 4 : x2 - 4]


def load_folder(config, size):
    from nasaug.data import _folder

    return _folder(config, size)


def test_boxes_that_follow_the_image_as_shown_stay(tmp_path):
    picture(tmp_path / "a.jpg", (40, 20), orientation=6)
    annotate(tmp_path, "a", ("dog", 2, 4, 10, 20, 0), size=(20, 40))
    assert torch.allclose(rows(boxes.find(str(tmp_path)), "a.jpg")[0, :4], torch.tensor([0.1, 0.1, 0.5, 0.5]))


def test_all_that_is_wrong_with_voc_annotations_is_listed_at_once(tmp_path):
    for name in "abcdefg":
        picture(tmp_path / f"JPEGImages/{name}.jpg")
    annotate(tmp_path, "a", ("dog", 20, 5, 4, 15, 0))
    annotate(tmp_path, "b", ("dog", 4, 5, 4, 15, 0))
    annotate(tmp_path, "c", ("dog", 5, 24, 15, 30, 0))
    annotate(tmp_path, "d", ("dog", "x", 5, 4, 15, 0))
    annotate(tmp_path, "e", ("", 1, 5, 4, 15, 0))
    annotate(tmp_path, "f", ("dog", 1, 5, 4, 15, 0), size=(50, 20))
    (tmp_path / "Annotations/g.xml").write_text("<annotation><object>")
    annotate(tmp_path, "gone", ("dog", 4, 5, 8, 15, 0), name="gone.jpg")
    image_set(tmp_path, "train", *"abcdefg", "gone", "none")
    image_set(tmp_path, "test", "a")
    with pytest.raises(BadInput) as raised:
        boxes.find(str(tmp_path))
    line = str(raised.value)
    assert "\n" not in line and "10 things wrong with the annotations" in line
    for part in (
        r"a.xml: the box of 'dog', 20 5 4 15, ends before it begins \(are its corners or x and y exchanged\?\)",
        "b.xml: the box of 'dog', 4 5 4 15, has no area",
        r"c.xml: the box of 'dog', 5 24 15 30, lies outside its image of 40 x 20 \(are x and y exchanged\?\)",
        "d.xml: 'dog' has no box of four numbers", "e.xml: an object has no name",
        "f.xml: it gives another size than 'JPEGImages/f.jpg' has", "g.xml: not an annotation",
        "gone.xml: its image 'gone.jpg' is missing", "train.txt: 'none' has no annotation",
        "'a' is in the lists for train and for test", "; correct or remove them",
    ):  # fmt: skip
        assert re.search(part, line), part


def test_coco_files_of_several_splits(tmp_path):
    for role, count in (("train2017", 3), ("val2017", 1)):
        for i in range(count):
            picture(tmp_path / role / f"{i}.jpg")
    box = {"bbox": [4, 5, 16, 10], "iscrowd": 0}
    images = [{"id": 9 - i, "file_name": f"{i}.jpg", "width": 40, "height": 20} for i in range(3)]
    first = [box | {"id": 1, "image_id": 9, "category_id": 3}]
    first.append(first[0] | {"id": 2, "category_id": 1, "iscrowd": 1})
    coco(tmp_path / "annotations/instances_train2017.json", images, first)
    coco(tmp_path / "annotations/instances_val2017.json", images[:1], first[:1], [*NAMES[::-1]])
    coco(tmp_path / "annotations/person_keypoints_train2017.json", images, [], ["person"])
    (tmp_path / "annotations/captions_train2017.json").write_text('{"images": [], "annotations": []}')
    found = boxes.find(str(tmp_path))
    assert found.classes == tuple(NAMES)
    assert {role: places.tolist() for role, places in found.given.items()} == {"train": [0, 1, 2], "test": [3]}
    assert torch.allclose(rows(found, "train2017/0.jpg"), torch.tensor(
        [[0.1, 0.25, 0.5, 0.75, 2, PLAIN], [0.1, 0.25, 0.5, 0.75, 0, CROWD]]))  # fmt: skip
    assert rows(found, "val2017/0.jpg")[0, CLASS] == 0  # categories are matched by name, not by id


def test_all_that_is_wrong_with_coco_files_is_listed_at_once(tmp_path):
    for i in range(2):
        picture(tmp_path / f"images/{i}.jpg")
    images = [{"id": i, "file_name": f"{min(i, 2)}.jpg", "width": 40, "height": 20} for i in (0, 1, 1, 2)]
    box = {"image_id": 0, "category_id": 1, "bbox": [4, 5, 16, 10]}
    coco(tmp_path / "train.json", images, [
        box | {"id": 1}, box | {"id": 1}, box | {"id": 2, "image_id": 77}, box | {"id": 3, "category_id": 9},
        box | {"id": 4, "bbox": [4, 5, 0, 10]}, box | {"id": 5, "bbox": [4, 5, float("nan"), 10]},
        box | {"id": 6, "bbox": [50, 5, 4, 10]}, {"id": 7},
    ], ["a", "a"])  # fmt: skip
    (tmp_path / "val.json").write_text('{"images": [], "annotations": [], "categories": ')
    with pytest.raises(BadInput) as raised:
        boxes.find(str(tmp_path))
    for part in (
        "11 things wrong", "two images have the id 1", "two annotations have the id 1", "annotation 2 is of image 77",
        "annotation 3 is of the unknown category 9", "the box of 'a', 4 5 4 15, has no area",
        "annotation 5 has no bbox of four numbers", "lies outside its image", "two categories are called 'a'",
        "the image '2.jpg' is missing", "val.json: not an annotation file", "annotation number 8 lacks id or",
    ):  # fmt: skip
        assert part in str(raised.value), part


def test_two_kinds_of_annotations_must_be_chosen_from(tmp_path):
    picture(tmp_path / "JPEGImages/a.jpg")
    annotate(tmp_path, "a", ("dog", 4, 5, 20, 15, 0))
    coco(tmp_path / "boxes.json", [{"id": 1, "file_name": "a.jpg"}], [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 5, 16, 10]}])  # fmt: skip
    told = r"XML in '.' and JSON in 'boxes.json'; name the one to use: set data.targets=boxes"
    with pytest.raises(BadInput, match=told):
        boxes.find(str(tmp_path))
    assert boxes.find(str(tmp_path), "boxes.json").classes == tuple(NAMES)
    assert boxes.find(str(tmp_path), ".").classes == ("dog",)


def test_folders_without_annotations_are_left_to_the_other_layouts(tmp_path):
    picture(tmp_path / "cat/a.jpg")
    (tmp_path / "notes.json").write_text('{"images": 3}')
    assert boxes.find(str(tmp_path)) is None


def test_whole_images_are_squared_and_split_as_recorded(tmp_path):
    canvases = drawn(12, sides=(40, 60))
    detection().write_voc(tmp_path / "voc", {"train": canvases, "test": drawn(3, 5)}, NAMES)
    config = DataConfig(str(tmp_path / "voc"), val_images=2)
    info = describe(config)
    assert (info.targets, info.classes, info.streamed) == ("boxes", 3, False)
    data = load(config, size=32)
    assert data.size == 32 and data.targets == "boxes" and [len(data.train), len(data.val)] == [11, 1]
    images, labels = next(data.train.ordered(20))
    assert images.shape == (11, 3, 32, 32) and labels.shape[0] == 11
    assert "3 classes (cross, potted plant, ring)" in data.told() and "training boxes" in data.told()
    data.record.save(tmp_path)
    kept = Record.of_run(tmp_path)
    assert torch.equal(kept.values, data.record.values)
    assert load(config, size=32, begun=kept).key == data.key
    streamed = load(DataConfig(str(tmp_path / "voc"), val_images=2, memory_mb=0, workers=0), size=32)
    assert streamed.streamed and torch.equal(next(streamed.train.ordered(20))[1], labels)
    batch, _, _ = next(streamed.train.batches(4, seed=0, epoch=0))
    assert batch.shape == (4, 3, 32, 32)
    near = next(streamed.train.ordered(20))[0].float() - images.float()
    assert near.abs().mean() < 2  # libjpeg's and Pillow's pixels


def test_a_changed_box_is_another_set(tmp_path):
    detection().write_voc(tmp_path / "voc", {"train": drawn(12), "test": drawn(3, 5)}, NAMES)
    config = DataConfig(str(tmp_path / "voc"), val_images=2)
    begun = load(config, size=32)
    path = next(p for p in sorted((tmp_path / "voc/Annotations").glob("train*")) if "<xmin>" in p.read_text())
    path.write_text(path.read_text().replace("<xmin>", "<xmin>0", 1))  # the same number
    assert load(config, size=32).key == begun.key
    path.write_text(re.sub(r"<difficult>0", "<difficult>1", path.read_text(), count=1))
    assert load(config, size=32).key != begun.key
    with pytest.raises(BadInput, match="other images than the run began with"):
        load(config, size=32, begun=begun.record)
    assert begun.train.labels[..., FLAG].max() == 0


def test_a_large_file_of_another_kind_beside_class_folders_is_no_annotation(tmp_path):
    for name in ("cat", "dog"):
        picture(tmp_path / name / "a.jpg")
    facts = {"info": "mine", "licenses": [], "images": ["cat/a.jpg"] * 10_000}
    (tmp_path / "about.json").write_text(json.dumps(facts))
    assert (tmp_path / "about.json").stat().st_size > 1 << 16 and not boxes.there(str(tmp_path))
    (tmp_path / "cut.json").write_text(json.dumps(facts | {"annotations": []})[:-1])
    with pytest.raises(BadInput, match=r"cut.json: not an annotation file in COCO's format"):
        boxes.find(str(tmp_path))
