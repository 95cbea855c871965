"""The layout of an image folder: which sub-folders are splits, which are classes, and which are neither.

The rules cover common layouts: torchvision's and timm's (`train/CLASS/…` beside `val/` or `validation/`), Roboflow's
(`train/ valid/ test/`), Kaggle's (`archive/seg_train/seg_train/CLASS/…`, an unlabelled `test/`), and plain folders of
class folders. docs/explanation/robustness-of-input.md lists them.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..core.errors import BadInput
from .masks import Masks

SUFFIXES = frozenset(
    ".apng .avif .bmp .dib .gif .j2k .jfif .jp2 .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tga .tif .tiff .webp".split()
)
ROLES = {
    "train": "train", "training": "train", "trn": "train", "val": "val", "valid": "val", "validation": "val",
    "dev": "val", "eval": "val", "test": "test", "testing": "test", "tst": "test",
}  # fmt: skip
JUNK = frozenset(("__MACOSX", "__pycache__", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"))
OWN = ("recipe.toml", "env.json")  # files in every run folder of nasaug


@dataclass(frozen=True)
class Listing:
    """The images of a folder.

    Attributes:
        root: the folder that paths are relative to; may be a sub-folder of the one given, if that holds nothing else.
        classes: their names, by label.
        files: paths relative to the root, bytes [n].
        labels: int64 [n].
        given: indices into `files` of the splits defined by folders, ascending; without "test" nasaug splits itself.
        left_out: descriptions of what was skipped.
        values: float64 [n], each image's number for regression, or its boxes, float32 [n, most, 6]
            (`nasaug.core.boxes`); there is a single label then.
        notes: what else a user should know, one line each.
    """

    root: str
    classes: tuple[str, ...]
    files: np.ndarray
    labels: Tensor
    given: Mapping[str, Tensor]
    left_out: tuple[str, ...] = ()
    values: Tensor | None = None
    notes: tuple[str, ...] = ()
    masks: Masks | None = None
    """Those of the boxes' objects, if they were asked for."""

    @property
    def targets(self) -> str:
        """What the images have: "classes", "numbers" or "boxes"."""
        return kind_of(self.labels if self.values is None else self.values)


def kind_of(labels: Tensor) -> str:
    """The kind of a split's labels: "classes" (int64 [n]), "numbers" (float [n]) or "boxes" (float32 [n, most, 6])."""
    return "boxes" if labels.dim() == 3 else "numbers" if labels.is_floating_point() else "classes"


@dataclass
class _Node:
    """A folder: its images by name, its sub-folders, and the number of files with other suffixes."""

    path: str  # relative to the root; "" for the root itself
    images: list[str] = field(default_factory=list)
    folders: dict[str, _Node] = field(default_factory=dict)
    others: Counter = field(default_factory=Counter)
    own: bool = False  # a run folder of nasaug

    def all_images(self) -> Iterator[str]:
        """Paths relative to the root, including those in sub-folders, in order."""
        for node in sorted(self.nodes(), key=lambda node: node.path):
            yield from (os.path.join(node.path, name) for name in sorted(node.images))

    def nodes(self) -> Iterator[_Node]:
        yield self
        for folder in self.folders.values():
            yield from folder.nodes()

    @property
    def filled(self) -> bool:
        return any(node.images for node in self.nodes())

    @property
    def only_own(self) -> bool:
        """Whether it only holds runs of nasaug, as ./runs does."""
        whole = list(self.nodes())
        return any(node.own for node in whole) and not any(node.images for node in whole)

    @property
    def classes(self) -> dict[str, _Node]:
        """The sub-folders with images."""
        return {name: folder for name, folder in self.folders.items() if folder.filled}


def find(root: str) -> Listing:
    """List the images of a folder. Raises BadInput if its classes cannot be determined."""
    root = os.path.abspath(root)
    top = _walk(root, "", ())
    node = top
    while inner := _wrapped(node, lambda role: role not in ("val", "test")):
        node = inner
    splits, left = _splits(root, node)
    if not splits:
        return _listing(root, {"train": node}, len(node.path), top, left)
    for role, folder in splits.items():
        while inner := _wrapped(folder, lambda name, role=role: name == role):
            folder = inner
        splits[role] = folder
    return _listing(root, splits, 0, top, left)


def _walk(root: str, path: str, above: tuple[tuple[int, int], ...]) -> _Node:
    """The tree below. Links are followed unless they lead back to an enclosing folder."""
    node, where = _Node(path), os.path.join(root, path)
    try:
        entries = sorted(os.scandir(where), key=lambda entry: entry.name)
        facts = os.stat(where)
    except OSError as error:
        raise BadInput(f"cannot list {where!r} ({error.strerror}): make it readable, or move it away") from error
    here = (facts.st_dev, facts.st_ino)
    if here in above and os.name == "posix":
        return node
    names = {entry.name for entry in entries}
    if path and names.issuperset(OWN):
        node.own = True
        return node
    for entry in entries:
        below = os.path.join(path, entry.name)
        if entry.name.startswith(".") or entry.name in JUNK:
            continue
        if entry.is_dir():
            node.folders[entry.name] = _walk(root, below, (*above, here))
        elif _suffix(entry.name) in SUFFIXES and _readable(entry):
            node.images.append(entry.name)
        else:
            node.others[_suffix(entry.name)] += 1
    return node


def images_below(folder: str) -> list[str]:
    """The paths of all images in a folder and the folders in it, by name; what `find` leaves out is left out here too.

    Raises BadInput if a folder cannot be listed."""
    return [os.path.join(folder, node.path, name) for node in _walk(folder, "", ()).nodes() for name in node.images]


def _readable(entry: os.DirEntry) -> bool:
    """False for pipes and devices, which would block; dangling links count as images, reported as unreadable."""
    return entry.is_file() or not os.path.exists(entry.path)


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _wrapped(node: _Node, taken: Callable[[str | None], bool]) -> _Node | None:
    """The only sub-folder of a folder that merely wraps it, as in unpacked archives (photos/photos/cat); None if there
    is no such sub-folder, or if `taken` rejects its role."""
    if node.images or len(node.classes) != 1:
        return None
    ((name, only),) = node.classes.items()
    return only if only.classes and not only.images and taken(_role(name)[0]) else None


def _role(name: str) -> tuple[str | None, str]:
    """(the split that a folder's name stands for or None, the rest of the name): seg_train is (train, seg)."""
    words = re.findall(r"[a-z]+", name.lower())
    roles = [(ROLES[word], i) for i, word in enumerate(words) if word in ROLES]
    if len(roles) != 1:
        return None, ""
    (role, place) = roles[0]
    return role, " ".join(words[:place] + words[place + 1 :])


def _splits(root: str, node: _Node) -> tuple[dict[str, _Node], list[str]]:
    """(the split folders by role, descriptions of what is left out); no split folders if the sub-folders are classes.

    Folders are splits if one is named for training and another, named alike, for validation or test, and they hold
    class folders: train_station/ and test_tube/ are classes, and so is train/ with images beside car/."""
    where = os.path.join(root, node.path) if node.path else root
    alike: dict[str, list[tuple[str, str]]] = {}
    for name, folder in node.folders.items():
        role, rest = _role(name)
        if role and (folder.filled or not rest):
            alike.setdefault(rest, []).append((role, name))
    groups = [group for group in alike.values() if len(group) > 1 or {role for role, _ in group} & {"val", "test"}]
    groups = [g for g in groups if any(role == "train" for role, _ in g)] or groups
    rest_of = {name for name, folder in node.folders.items() if folder.filled}
    for group in groups:
        named = {name for _, name in group}
        others = sorted(rest_of - named)
        labelled = [name for _, name in group if node.folders[name].classes]
        if not labelled and others:
            continue  # classes that happen to have such names
        if "train" not in {role for role, _ in group}:
            if others:
                continue
            shown = _shown(group)
            raise BadInput(
                f"{where!r} has only {shown}/: give a folder with train/ and test/ (or val/), "
                "or one whose sub-folders are the classes"
            )
        if not labelled:
            shown = _shown(group)
            raise BadInput(
                f"{where!r} has images in {shown}/ but no class folders there: give each class one, "
                "or rename these folders where they are the classes"
            )
        return _of_group(where, node, group, others)
    return {}, []


def _shown(group: list[tuple[str, str]]) -> str:
    """The folders' names, the training folder first."""
    return "/ and ".join(name for _, name in sorted(group, key=lambda item: list(_PURPOSE).index(item[0])))


def _of_group(
    where: str, node: _Node, group: list[tuple[str, str]], others: list[str]
) -> tuple[dict[str, _Node], list[str]]:
    splits: dict[str, _Node] = {}
    names: dict[str, str] = {}
    left = []
    for role, name in group:
        folder = node.folders[name]
        if not folder.classes and role != "train":
            what = "images without classes" if folder.images else "no images"
            left.append(f"{name}/ ({what})")
            continue
        if role in splits:
            raise BadInput(
                f"{where!r} has {names[role]}/ and {name}/, both for {_PURPOSE[role]}: move one of them away"
            )
        splits[role], names[role] = folder, name
    for name in others:
        if node.folders[name].classes:
            shown = _shown([item for item in group if item[1] in names.values()])
            raise BadInput(
                f"{where!r} has {name}/ beside {shown}/, which are splits: move it away, or into one of them"
            )
        left.append(f"{name}/ (images without classes)")
    return {role: splits[role] for role in _PURPOSE if role in splits}, left


_PURPOSE = {"train": "training", "val": "validation", "test": "test"}


def _listing(root: str, nodes: Mapping[str, _Node], wrapping: int, top: _Node, left: list[str]) -> Listing:
    """`wrapping` is the length of the leading part of each path that belongs to wrapping folders."""
    train = nodes["train"]
    classes = _class_folders(root, train)
    for node in nodes.values():
        odd = sorted(set(_class_folders(root, node, least=1)) ^ set(classes))
        if odd:
            pair = f"{os.path.basename(train.path)}/ and {os.path.basename(node.path)}/"
            raise BadInput(f"{root!r}: only one of {pair} has {some(odd)}: make them alike")
    names, labels, given, begun = [], [], {}, 0
    for role, node in nodes.items():
        for label, folder in enumerate(node.folders[name] for name in classes):
            found = list(folder.all_images())
            names += found
            labels += [label] * len(found)
        given[role] = torch.arange(begun, len(names))
        begun = len(names)
    if "test" not in given and "val" in given:  # the only held-out folder serves as the test split
        given["test"] = given.pop("val")
    cut = wrapping + 1 if wrapping else 0
    files = np.array([os.fsencode(name[cut:]) for name in names])
    inner = os.path.join(root, train.path) if wrapping else root
    left_out = (*left, *_left_out(top, nodes))
    return Listing(inner, tuple(classes), files, torch.tensor(labels, dtype=torch.int64), given, left_out)


def _class_folders(root: str, node: _Node, least: int = 2) -> list[str]:
    """The classes' names, sorted. Raises BadInput for fewer than `least`, and for a class without images."""
    where = os.path.join(root, node.path) if node.path else root
    folders = {name: folder for name, folder in node.folders.items() if not folder.only_own}
    if not folders:
        many = f" but {len(node.images)} images" if node.images else ""
        raise BadInput(f"no class folders in {where!r}{many}: give each class one")
    empty = sorted(name for name, folder in folders.items() if not folder.filled)
    if empty:
        suffixes = sum((below.others for name in empty for below in folders[name].nodes()), Counter())
        kinds = f" but files of other kinds ({_kinds(suffixes)})" if suffixes else ""
        remedy = "convert them to .jpg or .png, or" if suffixes else "fill or"
        raise BadInput(f"{where!r} has no images in {some(empty)}{kinds}: {remedy} remove these class folders")
    if len(folders) < least:
        raise BadInput(f"{where!r} has one class, {next(iter(folders))!r}: give at least two class folders")
    return sorted(folders)


def _left_out(top: _Node, nodes: Mapping[str, _Node]) -> Iterator[str]:
    yield from (f"{path}/ (runs of nasaug)" for path in _runs(top))
    others = Counter()
    for split in nodes.values():
        for folder in split.folders.values():
            for below in folder.nodes():
                others += below.others
    if others:
        yield f"{_many(sum(others.values()), 'file')} of other kinds ({_kinds(others)})"
    loose = sum(len(node.images) for node in nodes.values())
    if loose:
        yield f"{_many(loose, 'image')} outside the class folders"


def _runs(node: _Node) -> Iterator[str]:
    """The outermost folders that only hold runs of nasaug."""
    for folder in node.folders.values():
        if folder.only_own:
            yield folder.path
        else:
            yield from _runs(folder)


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _kinds(suffixes: Counter) -> str:
    return some([f"{count} {suffix or 'without suffix'}" for suffix, count in suffixes.most_common()])


def some(names: Sequence[str]) -> str:
    """The first few of `names` in one line, and how many more there are."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in ", ".join(names[:3]))
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")
