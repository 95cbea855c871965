"""Regression targets from a CSV with one number per image: finding, reading and validating the file."""

from __future__ import annotations

import csv
import math
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..core.errors import BadInput, arg
from .layout import ROLES, SUFFIXES, Listing, find, some

FILE, COLUMNS, SPLIT = "labels.csv", ("file", "value"), "split"


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    file: str
    value: float
    split: str


def listing(folder: str, targets: str = "") -> Listing:
    """List an image folder: with numbers if `targets` names a CSV, or if the folder has labels.csv and no class
    folders; otherwise with classes (`layout.find`). Raises BadInput if it is neither."""
    path = os.path.join(folder, FILE)
    if targets:
        return read(folder, _named(folder, targets))
    if not os.path.isfile(path):
        return find(folder)
    try:
        found = find(folder)
    except BadInput:
        return read(folder, path)
    note = f"{FILE} (the folders are classes; {arg.set} data.targets={FILE} learns its numbers)"
    return replace(found, left_out=(*found.left_out, note))


def _named(folder: str, targets: str) -> str:
    """The CSV that `data.targets` names: in the folder, beside it, or relative to the working directory."""
    given = os.path.expanduser(targets)
    beside = os.path.dirname(os.path.abspath(folder))
    for place in (os.path.join(folder, given), os.path.join(beside, given), given):
        if os.path.isfile(place):
            return place
    where = f"neither in {folder!r} nor beside it"
    raise BadInput(f"data.targets = {targets}: file not found, {where}; give the path of a CSV")


def read(folder: str, path: str) -> Listing:
    """The images that the CSV lists, sorted by name, with their numbers.

    The columns `file` (relative to the folder) and `value` may be in any order; an optional column `split` (train, val,
    test or a synonym) assigns the splits. Raises BadInput for the first invalid line."""
    root = os.path.abspath(folder)
    rows = sorted(_rows(path), key=lambda row: row.file)
    _check_files(root, path, rows)
    values = np.array([row.value for row in rows])
    if (values == values[0]).all():
        rule = f"has the value {values[0]:g} for all {len(rows)} images, so there is nothing to learn"
        raise BadInput(f"{path!r} {rule}; give images with different values")
    given = {role: [i for i, row in enumerate(rows) if row.split == role] for role in ("train", "val", "test")}
    given = {role: torch.tensor(places) for role, places in given.items() if places}
    if given:
        if "train" not in given or len(given) < 2:
            rule = f"column {SPLIT} says {', '.join(given)} for all images"
            raise BadInput(f"{path!r}: {rule}; give some of them train and others test, or leave the column out")
        if "test" not in given:  # the only held-out split serves as the test split, as with folders
            given["test"] = given.pop("val")
    else:
        given = {"train": torch.arange(len(rows))}
    files = np.array([os.fsencode(row.file) for row in rows])
    labels = torch.zeros(len(rows), dtype=torch.int64)
    left = tuple(_left_out(root, {row.file for row in rows}))
    return Listing(root, (COLUMNS[1],), files, labels, given, left, torch.from_numpy(values))


def _rows(path: str) -> Iterator[_Row]:
    try:
        with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            reader = csv.reader(file, strict=True)
            head = [name.strip() for name in next(reader, [])]
            for name in COLUMNS:
                if head.count(name) != 1:
                    has = f"has the columns {some(head)}" if any(head) else "is empty"
                    rule = f"needs one column each called {' and '.join(COLUMNS)}"
                    raise BadInput(f"{path!r} {has}, but {rule}; name them in its first line")
            count = 0
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    count += 1
                    yield _row(path, reader.line_num, head, cells)
    except OSError as error:
        raise BadInput(f"cannot read {path!r} ({error.strerror}); make it readable") from error
    except csv.Error as error:
        raise BadInput(f"{path!r} is not a CSV file ({error}); separate its columns by commas") from error
    if not count:
        raise BadInput(f"{path!r} lists no images; add a line for each, like photo.jpg,3.5")


def _row(path: str, line: int, head: list[str], cells: list[str]) -> _Row:
    where = f"{path!r}, line {line}"
    if len(cells) != len(head):
        raise BadInput(f"{where} has {len(cells)} columns, but the first line has {len(head)}; give it as many")
    said = dict(zip(head, (cell.strip() for cell in cells), strict=True))
    file, text, split = said["file"], said["value"], said.get(SPLIT, "")
    try:
        value = float(text)
    except ValueError:
        rule = f"value {text!r:.40} is not a number"
        raise BadInput(f"{where}: {rule}; give one like 3.5, or leave the image out") from None
    if not math.isfinite(value) or abs(value) > 1e30:
        raise BadInput(f"{where}: value {text!r:.40} must be a finite number up to 1e30; leave the image out")
    if not file:
        raise BadInput(f"{where} names no file; give its path below the folder of images")
    if SPLIT in head and split.lower() not in ROLES:
        raise BadInput(f"{where}: split {split!r:.40} must be train, val or test; give each image one")
    return _Row(line, os.path.normpath(file), value, ROLES.get(split.lower(), ""))


def _check_files(root: str, path: str, rows: list[_Row]) -> None:
    twice = [(a, b) for a, b in zip(rows, rows[1:], strict=False) if a.file == b.file]
    if twice:
        one, two = twice[0]
        lines = " and ".join(str(row.line) for row in sorted((one, two), key=lambda row: row.line))
        many = f" ({len(twice)} such pairs)" if len(twice) > 1 else ""
        raise BadInput(f"{path!r} names {one.file!r} in lines {lines}{many}; name each image once")
    for row in rows:
        if os.path.isabs(row.file) or row.file.split(os.sep, 1)[0] == os.pardir:
            raise BadInput(f"{path!r}, line {row.line}: {row.file!r} must lie below {root!r}; give its path from there")
    missing = [row for row in rows if not os.path.isfile(os.path.join(root, row.file))]
    if missing:
        such = f"{missing[0].file!r} of line {missing[0].line}"
        many = f"{len(missing)} of the {len(rows)} images" if len(missing) > 1 else "an image"
        raise BadInput(f"{path!r} names {many} missing in {root!r}, {such}; add the file, or remove the line")


def _left_out(root: str, named: set[str]) -> Iterator[str]:
    """Count images in the folders of listed ones that the CSV does not list."""
    counts: Counter[str] = Counter()
    for folder in {os.path.dirname(file) for file in named}:
        with os.scandir(os.path.join(root, folder)) as entries:
            for entry in entries:
                image = os.path.splitext(entry.name)[1].lower() in SUFFIXES and not entry.name.startswith(".")
                if image and os.path.join(folder, entry.name) not in named and entry.is_file():
                    counts[folder] += 1
    if counts:
        many = sum(counts.values())
        yield f"{many} image{'s' * (many != 1)} without a value"
