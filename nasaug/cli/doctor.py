"""`doctor`."""

from __future__ import annotations

from typing import Any

from .options import Flag, print_json


def doctor(*, json: Flag = False):
    """Check this machine: versions, devices, kernels and what they gain, data, disk space and extras.

    Examples:

      nasaug doctor

      nasaug doctor --json

    It takes a few seconds, in which a small net is trained with the compiled kernels and without, and says what would
    be fast here and what not. Exit code 0 if training works.

    :param json: Print JSON.
    """
    from ..training.doctor import examine

    found = examine()
    if json:
        print_json(found)
    else:
        print(_text(found))


def _text(found: dict[str, Any]) -> str:
    from ..core.units import format_quantity
    from ..reporting import tables

    def size(count: int | None) -> str:
        return "unknown" if count is None else format_quantity(count, "bytes")

    versions = ", ".join(f"{name} {version or 'missing'}" for name, version in found["versions"].items())
    lines = [
        f"Python {found['python']} on {found['platform']}", versions,
        f"{found['processor']}, {found['cores']} cores for this process, {size(found['memory'])} of memory", "",
        *(f"{each['device']}: {each['name']}" + (f", {size(each['memory'])}" if "memory" in each else "")
          for each in found["devices"]),
    ]  # fmt: skip
    speed = found["training"]
    ratio = speed["images_per_s"] / speed["without_kernels"]
    lines.append(
        f"training {speed['network']} at {speed['resolution']} px on the CPU: {speed['images_per_s']:,} images/s, "
        f"{ratio:.2f} times as many as by torch alone"
    )
    gains = found["kernels"]["gains"]
    rows = [[kind, f"{gain['times']:.2f}", "kernel" if gain["used"] else "torch"] for kind, gain in gains.items()]
    if rows:
        lines += ["", tables.text(("kernel", "times as fast as torch", "used"), rows, left=(0, 2))]
    there = [f"{name} ({place})" for name, place in found["data"].items() if place]
    lines += ["", f"data here: {', '.join(there) or 'none'}"]
    lines += [f"not here: {', '.join(name for name, place in found['data'].items() if not place) or 'none'}"]
    lines += [f"disk: {size(each['free'])} free in {each['path']}" for each in found["disk"].values()]
    extras = [f"{name} ({each['for']}){': missing' if each['missing'] else ''}"
              for name, each in found["extras"].items()]  # fmt: skip
    lines += [f"extras: {', '.join(extras)}"] if extras else []
    lines += ["", *(f"- {line}" for line in found["advice"])] if found["advice"] else []
    return "\n".join(lines)
