"""Detection targets: boxes from a folder in Pascal VOC's layout (XML) or in COCO's (JSON), read and validated.

A split's labels are as `nasaug.core.boxes` says.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..core.boxes import CLASS, COLUMNS, CROWD, DIFFICULT, PLAIN
from ..core.errors import BadInput, arg
from ..core.progress import Progress
from .layout import JUNK, OWN, ROLES, SUFFIXES, Listing
from .masks import Masks, encoded
from .picture import ORIENTATION

SHOWN = 20  # bad annotations that an error lists
DEEP, FEW = 2, 30  # levels of folders that are searched for annotations, if a folder has no more than FEW below it
SLACK = 1.0  # px by which a box may leave the image without being counted as clipped
ALIKE = 0.01  # by which the aspect ratio of a scaled image may differ
SPLITS = ("train", "val", "test")
CORNERS = ("xmin", "ymin", "xmax", "ymax")
COCO_KEYS = ("images", "annotations", "categories")

Box = tuple[float, float, float, float, str, int]


@dataclass
class _Picture:
    """An annotated image: its path below the root, the size that its annotation gives (None: none), and its boxes in
    pixels."""

    file: str
    where: str
    size: tuple[float, float] | None
    boxes: list[Box] = field(default_factory=list)
    masks: list[tuple[str, Any]] = field(default_factory=list)  # whose, and its COCO segmentation, as each box has one


@dataclass
class _Found:
    """What the annotation files of a folder hold; `bad` collects all that is wrong with them."""

    root: str
    bad: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    classes: dict[str, None] = field(default_factory=dict)  # in order
    pictures: list[_Picture] = field(default_factory=list)
    given: dict[str, list[int]] = field(default_factory=dict)
    masked: bool = False  # whether masks are read

    def add(self, picture: _Picture, role: str | None) -> None:
        self.given.setdefault(role or "", []).append(len(self.pictures))
        self.pictures.append(picture)


def find(folder: str, targets: str = "", masks: bool = False) -> Listing | None:
    """The images of a folder with their boxes; None if it has no annotations of boxes in a layout that is known.

    VOC: folders with Annotations/*.xml, of several years too. COCO: JSON files in the folder, in annotations/ or in the
    folders of the splits. `targets` names a single JSON file, or one of those folders. With `masks` each object
    must have a segmentation, which only COCO's have. Raises BadInput that lists everything that is wrong with the
    annotations."""
    root = os.path.abspath(folder)
    voc, coco = _sources(root, targets)
    if voc and coco:
        one, two = os.path.relpath(voc[0], root), os.path.relpath(coco[0], root)
        rule = f"{folder!r} has annotations of two kinds, XML in {one!r} and JSON in {two!r}"
        raise BadInput(f"{rule}; name the one to use: {arg.set} data.targets={two}")
    if not voc and not coco:
        return None
    if masks and voc:
        rule = f"{folder!r} has annotations in Pascal VOC's layout, which gives boxes and no masks"
        raise BadInput(f"{rule}; give a folder in COCO's layout, or leave {arg.set} task=segment out")
    found = _Found(root, masked=masks)
    for place in voc:
        _read_voc(found, place)
    for path in coco:
        _read_coco(found, path)
    if voc:
        found.classes = dict.fromkeys(sorted(found.classes))
    return _listing(found)


def there(folder: str) -> bool:
    """Whether a folder seems to have annotations of boxes; reads little."""
    root = os.path.abspath(os.path.expanduser(folder))
    return bool(folder) and os.path.isdir(root) and any(_sources(root, ""))


def _sources(root: str, targets: str) -> tuple[list[str], list[str]]:
    """(folders in VOC's layout, JSON files in COCO's)."""
    if targets:
        path = next((p for p in (os.path.join(root, targets), os.path.expanduser(targets)) if os.path.exists(p)), "")
        if path.lower().endswith(".json"):
            return [], [os.path.abspath(path)]
        return ([os.path.abspath(path)], []) if path and _is_voc(path) else ([], [])
    voc, coco = [], []
    for place in _folders(root, DEEP):
        if _is_voc(place):
            voc.append(place)
        if os.path.relpath(place, root).count(os.sep) < 1:
            coco += [path for path in sorted(_with_suffix(place, ".json")) if _is_coco(path)]
    boxes = [path for path in coco if os.path.basename(path).startswith("instances")]
    return voc, boxes or coco  # COCO also gives captions and keypoints of the same images


def _folders(root: str, deep: int) -> Iterator[str]:
    try:
        with os.scandir(root) as entries:
            below = sorted(e.path for e in entries if e.is_dir() and not e.name.startswith(".") and e.name not in JUNK)
    except OSError:  # if the folder is used at all, `layout.find` says what is wrong with it
        return
    yield root
    for path in below if deep and len(below) <= FEW else ():  # more are classes
        if not all(os.path.exists(os.path.join(path, name)) for name in OWN):
            yield from _folders(path, deep - 1)


def _with_suffix(folder: str, suffix: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        yield from (e.path for e in entries if e.name.lower().endswith(suffix) and e.is_file() and e.name[0] != ".")


def _is_voc(folder: str) -> bool:
    return any(path for place in _below(folder, "annotations") for path in _with_suffix(place, ".xml"))


def _below(folder: str, name: str) -> list[str]:
    """The folders in `folder` with that name, in capitals or not: VOC has Annotations/, others annotations/."""
    if not os.path.isdir(folder):
        return []
    with os.scandir(folder) as entries:
        return sorted(e.path for e in entries if e.name.lower() == name and e.is_dir())


def _is_coco(path: str) -> bool:
    """Whether a JSON file has keys of COCO's, if it is cut off too; they are found without parsing it."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            images, annotations, categories = (content.find(f'"{key}"'.encode()) >= 0 for key in COCO_KEYS)
            return annotations and (images or categories)
    except (OSError, ValueError):  # unreadable or empty
        return False


# --- Pascal VOC -----------------------------------------------------------------------------------------------


def _read_voc(found: _Found, place: str) -> None:
    """Add the annotations of one folder (one year) with Annotations/ and, if it has them, ImageSets/."""
    files = (path for folder in _below(place, "annotations") for path in sorted(_with_suffix(folder, ".xml")))
    annotations = {Path(path).stem: path for path in files}
    roles = _image_sets(found, place, annotations)
    listed = annotations if roles is None else [name for name in annotations if name in roles]
    folders = [place, *_below(place, "images"), *_below(place, "jpegimages")]
    images = {name: path for folder in folders for name, path in _images(folder)}
    with Progress("annotations read", len(listed), unit="files", quiet=len(listed) < 2000) as bar:
        for done, name in enumerate(listed, 1):
            _voc_picture(found, annotations[name], images, roles[name] if roles else None)
            bar.update(done)
    if roles is not None and len(listed) < len(annotations):
        found.notes.append(f"{len(annotations) - len(listed)} annotations that no image set lists")


def _images(folder: str) -> Iterator[tuple[str, str]]:
    """(stem and name, path) of the images of a folder; each twice, so that either finds it."""
    if os.path.isdir(folder):
        with os.scandir(folder) as entries:
            for e in entries:
                stem, suffix = os.path.splitext(e.name)
                if suffix.lower() in SUFFIXES and not e.name.startswith("."):
                    yield stem, e.path
                    yield e.name, e.path


def _image_sets(found: _Found, place: str, annotations: dict[str, str]) -> dict[str, str] | None:
    """The split of each listed image; None without image sets. Where there is a test list, all others are for training
    (VOC's trainval); else the val list is the test split, as with image folders."""
    sets = os.path.join(place, "ImageSets")
    places = (p for p in (os.path.join(sets, "Main"), sets) if os.path.isdir(p))
    sets = next((p for p in places if any(_with_suffix(p, ".txt"))), "")
    lists: dict[str, list[str]] = {}
    for path in sorted(_with_suffix(sets, ".txt")) if sets else ():
        role = "train" if Path(path).stem.lower() == "trainval" else ROLES.get(Path(path).stem.lower())
        if role is None:
            continue  # of one class, like cat_train.txt
        names = []
        for line in Path(path).read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines():
            name = line.strip()
            name = name if name in annotations or not name else name.split()[0]
            names += [Path(name).name] if name else []
        if not any(name in annotations for name in names):
            found.notes.append(f"{os.path.relpath(path, found.root)} (none of its images is annotated)")
            continue
        where = os.path.relpath(path, found.root)
        found.bad += [f"{where}: {name!r} has no annotation" for name in names if name not in annotations]
        lists[Path(path).stem.lower()] = [name for name in names if name in annotations]
    if not lists:
        return None
    by_role: dict[str, set[str]] = {}
    for name, members in lists.items():
        if name != "trainval" or not {"train", "val"} <= lists.keys() or "test" in map(ROLES.get, lists):
            by_role.setdefault("train" if name == "trainval" else ROLES[name], set()).update(members)
    if "test" in by_role:
        by_role = {"train": by_role.get("train", set()) | by_role.get("val", set()), "test": by_role["test"]}
    pairs = [(a, b) for i, a in enumerate(by_role) for b in list(by_role)[i + 1 :]]
    for a, b in pairs:
        for name in sorted(by_role[a] & by_role[b]):
            found.bad.append(f"{os.path.relpath(sets, found.root)}: {name!r} is in the lists for {a} and for {b}")
    return {name: role for role, members in by_role.items() for name in members}


def _voc_picture(found: _Found, path: str, images: dict[str, str], role: str | None) -> None:
    from torchvision.datasets import VOCDetection

    where = os.path.relpath(path, found.root)
    try:
        said = VOCDetection.parse_voc_xml(ElementTree.parse(path).getroot()).get("annotation")
        if not isinstance(said, dict):
            raise ValueError("its root is not <annotation>")
    except (ElementTree.ParseError, OSError, ValueError, AttributeError) as error:
        found.bad.append(f"{where}: not an annotation ({error})")
        return
    named = os.path.basename(str(said.get("filename") or "").strip().replace("\\", "/"))
    image = images.get(Path(path).stem) or images.get(named) or images.get(os.path.splitext(named)[0])
    if image is None:
        found.bad.append(f"{where}: its image {named or Path(path).stem!r} is missing")
        return
    size = said.get("size")
    sizes = [_number(size.get(key)) for key in ("width", "height")] if isinstance(size, dict) else [0, 0]
    known = (sizes[0], sizes[1]) if all(side and side > 0 for side in sizes) else None
    picture = _Picture(os.path.relpath(image, found.root), where, known)  # type: ignore[arg-type]
    for each in said.get("object", []):
        name, place = (each.get("name"), each.get("bndbox")) if isinstance(each, dict) else (None, None)
        name = name.strip() if isinstance(name, str) else ""
        corners = [_number(place.get(key)) for key in CORNERS] if isinstance(place, dict) else []
        if not name:
            found.bad.append(f"{where}: an object has no name")
        elif len(corners) < 4 or None in corners:
            found.bad.append(f"{where}: {name!r} has no box of four numbers")
        else:
            found.classes[name] = None
            flag = DIFFICULT if str(each.get("difficult", "0")).strip() == "1" else PLAIN
            picture.boxes.append((*corners, name, flag))  # type: ignore[arg-type]
    found.add(picture, role)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


# --- COCO -----------------------------------------------------------------------------------------------------


def _read_coco(found: _Found, path: str) -> None:
    """Add one JSON file. Its split is that of the first word for one in its name, or in its folder's."""
    where = os.path.relpath(path, found.root)
    try:
        with open(path, encoding="utf-8-sig") as file:
            said = json.load(file)
        images, rows, kinds = (said[key] for key in COCO_KEYS)
        if not all(isinstance(rows_of, list) for rows_of in (images, rows, kinds)):
            raise ValueError("images, annotations and categories must be lists")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        missing = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        found.bad.append(f"{where}: not an annotation file in COCO's format ({missing})")
        return
    bad = found.bad
    categories = _by_id(kinds, where, "category", ("id", "name"), bad)
    names = {key: str(row["name"]).strip() for key, row in categories.items()}
    bad += [f"{where}: two categories are called {n!r}" for n, count in Counter(names.values()).items() if count > 1]
    found.classes |= dict.fromkeys(names[key] for key in sorted(names, key=_order))
    by_id = _by_id(images, where, "image", ("id", "file_name"), bad)
    pictures = _coco_pictures(found, path, by_id)
    needed = ("id", "image_id", "category_id", "bbox")
    for key, row in _by_id(rows, where, "annotation", needed, bad).items():
        one = f"{where}: annotation {key}"
        box = [_number(value) for value in row["bbox"]] if isinstance(row["bbox"], list) else []
        if row["image_id"] not in by_id:
            bad.append(f"{one} is of image {row['image_id']}, which is not listed")
        elif row["category_id"] not in names:
            bad.append(f"{one} is of the unknown category {row['category_id']}")
        elif len(box) != 4 or None in box:
            bad.append(f"{one} has no bbox of four numbers")
        elif row["image_id"] in pictures:
            x, y, width, height = (value or 0.0 for value in box)
            flag = CROWD if row.get("iscrowd") else PLAIN
            name = names[row["category_id"]]
            pictures[row["image_id"]].boxes.append((x, y, x + width, y + height, name, flag))
            if found.masked:
                pictures[row["image_id"]].masks.append((one, row.get("segmentation")))


def _by_id(
    rows: Sequence[Any], where: str, what: str, needed: Sequence[str], bad: list[str]
) -> dict[Any, dict[str, Any]]:  # fmt: skip
    """The rows of a list by id; what is wrong with them is added to `bad`."""
    by_id: dict[Any, dict[str, Any]] = {}
    for i, row in enumerate(rows):
        whole = isinstance(row, dict) and all(key in row for key in needed)
        if not whole or not all(isinstance(row[key], (int, float, str)) for key in needed if key.endswith("id")):
            bad.append(f"{where}: {what} number {i + 1} lacks {' or '.join(needed)}")
        elif row["id"] in by_id:
            bad.append(f"{where}: two {what}s have the id {row['id']}")
        else:
            by_id[row["id"]] = row
    return by_id


def _coco_pictures(found: _Found, path: str, by_id: dict[Any, dict[str, Any]]) -> dict[Any, _Picture]:
    """Add the images that a JSON file lists; returns those that are there, by id."""
    where, bad = os.path.relpath(path, found.root), found.bad
    role, folders = _role(path, found.root), _image_folders(found.root, path)
    pictures: dict[Any, _Picture] = {}
    for key, row in by_id.items():
        file = str(row["file_name"])
        there = next((p for p in (os.path.join(folder, file) for folder in folders) if os.path.isfile(p)), None)
        if there is None:
            bad.append(f"{where}: the image {file!r} is missing")
            continue
        relative = os.path.relpath(there, found.root)
        if relative.split(os.sep, 1)[0] == os.pardir:
            bad.append(f"{where}: the image {file!r} lies outside {found.root!r}")
            continue
        sides = [_number(row.get(key)) for key in ("width", "height")]
        size = (sides[0], sides[1]) if all(side and side > 0 for side in sides) else None
        pictures[key] = _Picture(relative, where, size)  # type: ignore[arg-type]
        found.add(pictures[key], role)
    return pictures


def _order(key: Any) -> tuple[bool, Any]:
    return isinstance(key, str), key


def _role(path: str, root: str) -> str | None:
    below = os.path.relpath(path, root).split(os.sep)
    for name in (Path(path).stem, *reversed(below[:-1])):
        for word in re.findall(r"[a-z]+", name.lower()):
            if word in ROLES:
                return ROLES[word]
    return None


def _image_folders(root: str, path: str) -> list[str]:
    """Where the images that a JSON file names may lie: beside it, or in the folders that COCO and its tools use."""
    said = Path(path).stem.rpartition("_")[2]  # instances_train2017 is about train2017/
    beside = os.path.dirname(path)
    names = ("", "images", said, os.path.join("images", said), "JPEGImages", "data")
    return list(dict.fromkeys(os.path.normpath(os.path.join(top, name)) for top in (beside, root) for name in names))


# --- both -----------------------------------------------------------------------------------------------------


def _listing(found: _Found) -> Listing:
    """The listing with all boxes checked against the images' sizes. Raises BadInput that lists all that is wrong."""
    counts, clipped = Counter(picture.file for picture in found.pictures), 0
    found.bad += [f"{file!r} is annotated {n} times" for file, n in counts.items() if n > 1]
    labels = {name: i for i, name in enumerate(found.classes)}
    most = max((len(picture.boxes) for picture in found.pictures), default=1)
    values = torch.zeros(len(found.pictures), max(most, 1), COLUMNS)
    values[:, :, CLASS] = -1
    masks = Masks([], torch.full((len(found.pictures), max(most, 1)), -1.0)) if found.masked else None
    with Progress("boxes checked", len(found.pictures), unit="images", quiet=len(found.pictures) < 2000) as bar:
        for i, picture in enumerate(found.pictures):
            try:
                size, turned = _seen(os.path.join(found.root, picture.file), picture.size)
            except Exception as error:  # Pillow raises all kinds for damaged files
                why = " ".join(str(error).split())[:80] or type(error).__name__
                found.bad.append(f"{picture.file!r} cannot be read ({why})")
                continue
            if size is None:
                found.bad.append(f"{picture.where}: it gives another size than {picture.file!r} has")
                continue
            for place, box in enumerate(picture.boxes):
                wrong, out, shares = _shares(box, size)
                clipped += out
                if wrong:
                    found.bad.append(f"{picture.where}: {wrong}")
                else:
                    shares = _turned(shares, turned)
                    values[i, place] = torch.tensor([*shares, labels[box[4]], box[5]])
                    if masks is not None:
                        whose, given = picture.masks[place]
                        mask = encoded(given, *map(round, size), turned)
                        if isinstance(mask, str):
                            found.bad.append(f"{whose} {mask}")
                            continue
                        masks.numbers[i, place] = len(masks.rles)
                        masks.rles.append(mask)
            bar.update(i + 1)
    _refuse(found)
    empty = int((values[:, :, CLASS] < 0).all(1).sum())
    if clipped:
        found.notes.append(f"{clipped} boxes reach beyond their images and were clipped")
    if empty:
        found.notes.append(f"{empty} images without objects, which are trained on as such")
    files = np.array([os.fsencode(picture.file) for picture in found.pictures])
    zeros = torch.zeros(len(files), dtype=torch.int64)
    return Listing(found.root, tuple(found.classes), files, zeros, _given(found), (), values, tuple(found.notes), masks)


def _refuse(found: _Found) -> None:
    if found.bad:
        more = f" and {len(found.bad) - SHOWN} more" if len(found.bad) > SHOWN else ""
        many = f"{len(found.bad)} thing{'s' * (len(found.bad) > 1)} wrong with the annotations"
        listed = "; ".join(" ".join(line.split()) for line in found.bad[:SHOWN])
        raise BadInput(f"{found.root!r} has {many}: {listed}{more}; correct or remove them")
    if not any(picture.boxes for picture in found.pictures):
        raise BadInput(f"{found.root!r}: none of the {len(found.pictures)} annotated images has a box; give some boxes")


def _given(found: _Found) -> dict[str, Tensor]:
    """The splits that the annotations give. Files without a split belong to training; if there is no test split, that
    for validation is it, as with image folders."""
    given = dict(found.given)
    given["train"] = sorted(given.get("train", []) + given.pop("", []))
    if "test" not in given and "val" in given:
        given["test"] = given.pop("val")
    if not given["train"]:
        has = ", ".join(role for role in given if given[role])
        raise BadInput(f"{found.root!r} has annotations for {has} alone; add some for training")
    return {role: torch.tensor(sorted(given[role])) for role in SPLITS if given.get(role)}


def _seen(path: str, said: tuple[float, float] | None) -> tuple[tuple[float, float] | None, int]:
    """(the size that the boxes refer to, the EXIF orientation by which the boxes must be turned; 1: none).

    The size is the image's as shown or as stored, or the annotation's if the image was only scaled since; else None."""
    with Image.open(path) as image:
        stored, orientation = image.size, image.getexif().get(ORIENTATION, 1)
    shown = stored[::-1] if orientation in (5, 6, 7, 8) else stored
    if said is None or said == shown:
        return shown, 1
    if said == stored:
        return stored, orientation
    return (said if math.isclose(said[0] * shown[1], said[1] * shown[0], rel_tol=ALIKE) else None), 1


def _shares(box: Box, size: tuple[float, float]) -> tuple[str, bool, tuple[float, ...]]:
    """(what is wrong with a box in pixels, whether it had to be clipped, its corners as shares of the image)."""
    (width, height), (x1, y1, x2, y2, name, _) = size, box
    shown = f"the box of {name!r}, {x1:g} {y1:g} {x2:g} {y2:g},"
    if x2 < x1 or y2 < y1:
        return f"{shown} ends before it begins (are its corners or x and y exchanged?)", False, ()
    if x2 == x1 or y2 == y1:
        return f"{shown} has no area", False, ()
    kept = max(x1, 0.0), max(y1, 0.0), min(x2, width), min(y2, height)
    if kept[2] <= kept[0] or kept[3] <= kept[1]:
        beyond = f"{shown} lies outside its image of {width:g} x {height:g}"
        swapped = 0 <= y1 < y2 <= width and 0 <= x1 < x2 <= height
        return beyond + (" (are x and y exchanged?)" if swapped else ""), False, ()
    out = max(-x1, -y1, x2 - width, y2 - height) > SLACK
    return "", out, (kept[0] / width, kept[1] / height, kept[2] / width, kept[3] / height)


# Where EXIF orientation n moves the point (x, y), both as shares of the sides
_TURNS = {
    2: lambda x, y: (1 - x, y), 3: lambda x, y: (1 - x, 1 - y), 4: lambda x, y: (x, 1 - y), 5: lambda x, y: (y, x),
    6: lambda x, y: (1 - y, x), 7: lambda x, y: (1 - y, 1 - x), 8: lambda x, y: (y, 1 - x),
}  # fmt: skip


def _turned(corners: tuple[float, ...], orientation: int) -> tuple[float, ...]:
    if orientation not in _TURNS:
        return corners
    (ax, ay), (bx, by) = (_TURNS[orientation](*corners[i : i + 2]) for i in (0, 2))
    return min(ax, bx), min(ay, by), max(ax, bx), max(ay, by)
