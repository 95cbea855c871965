"""Tensor files: tensors and JSON state in one safetensors file, written atomically. Loading executes no code."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import BadInput
from .files import named_in_utf8, to_json, write_whole

if TYPE_CHECKING:
    from torch import Tensor

STATE = "nasaug"  # key of the JSON state in the file's metadata


def write(path: str | Path, tensors: Mapping[str, Tensor], state: Mapping) -> None:
    """Atomically write `tensors` (any device, any memory layout) and the JSON-serialisable `state` to `path`."""
    from safetensors.torch import save

    plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    write_whole(path, save(plain, {STATE: to_json(state)}))


def facts(path: str | Path) -> dict:
    """The state only; no tensor is read."""
    return read(path, wanted=False)[1]


def read(path: str | Path, *, wanted: bool = True) -> tuple[dict[str, Tensor], dict]:
    """(tensors, state); no tensors unless `wanted`. Raises BadInput if the file is missing, truncated or was not
    written by nasaug."""
    from safetensors import SafetensorError, safe_open

    if not os.path.isfile(path):
        raise BadInput(f"no file at {path}; give the path of one that nasaug wrote")
    try:
        with named_in_utf8(path) as readable, safe_open(readable, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in (file.keys() if wanted else ())}
    except (SafetensorError, OSError, ValueError) as error:
        reason = f"{path} is truncated or not a safetensors file ({error})"
        raise BadInput(f"{reason}; train again, or restore it") from error
    try:
        state = json.loads(metadata.get(STATE, ""))
    except ValueError:
        state = None
    if not isinstance(state, dict):
        raise BadInput(f"{path} has no nasaug state; give a file that nasaug wrote")
    return tensors, state


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with "`prefix`.", with that prefix removed."""
    start = prefix + "."
    return {name[len(start) :]: t for name, t in tensors.items() if name.startswith(start)}


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `part`."""
    return {f"{prefix}.{name}": t for name, t in tensors.items()}
