"""The memory that a training needs at least on the CPU, predicted from its plan before it starts."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ..arch.cost import cost
from ..arch.plan import Plan
from ..core.errors import BadInput, arg
from ..core.units import format_quantity

FLOAT = 4  # bytes
COPIES = 4  # of the weights: themselves, gradients, momentum, the best epoch's
_CONTAINERS = (  # folder, limit, use, and the key of file pages in memory.stat: of cgroups v2 and v1
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def least(trained: Plan, base: Plan, batch: int) -> int:
    """Bytes that a step needs at least: the weights of the trained net, and the outputs of the base's convolutions and
    linear layers, which the backward pass reads. Norms and activations take more, up to three times this."""
    kept = sum(
        layer.out * layer.height * layer.width
        for block in base.blocks for layer in block.all_layers if layer.op in ("conv", "linear")
    )  # fmt: skip
    return FLOAT * (COPIES * cost(trained).params + batch * kept)


def available() -> int | None:
    """Bytes that this process can take without swapping, by the system and by its container; None if unknown."""
    found = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]))
    for folder, *names in _CONTAINERS:
        with suppress(OSError, ValueError, KeyError):  # no container, or "max"
            found.append(_free_in(Path(folder), *names))
    return min(found, default=None)


def _free_in(folder: Path, limit: str, used: str, files: str) -> int:
    """Bytes that a container may still take. Files that were read count as used, but are dropped for what needs it."""
    figures = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    return int((folder / limit).read_text()) - int((folder / used).read_text()) + int(figures[files])


def check(trained: Plan, base: Plan, batch: int) -> None:
    """Raises BadInput, with a batch that may fit, if a step needs more memory than there is."""
    there, needs = available(), least(trained, base, batch)
    if there is None or needs <= there:
        return
    fits = batch
    while fits > 2 and least(trained, base, fits) > there:
        fits = max(2, fits // 2)
    told, free = format_quantity(needs, "bytes"), format_quantity(there, "bytes")
    remedy = f"give {arg.set} batch={fits}" if least(trained, base, fits) <= there else "use a smaller network"
    rule = f": a step needs at least {told} of memory, and {free} are free"
    raise BadInput.of(field="batch", value=batch, rule=rule, remedy=remedy, apart=True)
