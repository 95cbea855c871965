"""Training images that cannot be read, where the recipe says that they are skipped."""

from __future__ import annotations

import os

from torch import Tensor

from ..core.errors import BadInput
from .folder import Folder, named
from .layout import Listing


def replaced(folder: Folder, places: dict[str, Tensor]) -> tuple[list[str], list[str]]:
    """Let other training images, of the same class where there are any, take the places of those that cannot be read;
    returns their paths, and a line about them. `places` holds the images' indices by split.

    Raises BadInput for such images of another split: figures must be of all of its images."""
    if not folder.bad:
        return [], []
    listing, unread = folder.listing, folder.bad
    others = {i: unread[i] for split in ("val", "test") for i in places[split].tolist() if i in unread}
    if others:
        told = f"{len(others)} of the validation and test images in {listing.root!r} cannot be read"
        raise BadInput(f"{told}, {named(listing, others)}: repair or remove them; only training images are skipped")
    train = places["train"].tolist()
    bad, there = {i: unread[i] for i in train if i in unread}, [i for i in train if i not in unread]
    if not there:
        raise BadInput(f"none of the {len(train)} training images in {listing.root!r} can be read; repair them")
    alike: dict[int, list[int]] = {}
    for i in there:
        alike.setdefault(_class(listing, i), []).append(i)
    for number, i in enumerate(train):
        if i in bad:
            among = alike.get(_class(listing, i), there)
            train[number] = among[number % len(among)]
    places["train"] = places["train"].new_tensor(train)
    told = f"{len(bad)} of the training images cannot be read, {named(listing, bad)}"
    line = f"warning: {told}; others take their places"
    return [os.fsdecode(listing.files[i]) for i in bad], [line] if bad else []


def _class(listing: Listing, place: int) -> int:
    """0 for an image that has none."""
    return int(listing.labels[place]) if listing.targets == "classes" else 0
