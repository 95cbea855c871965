"""RandAugment with operators and magnitude drawn per image: nasaug's batched version against others image by image.

    python benchmarks/speed_augment.py [rounds]
    python benchmarks/speed_augment.py epoch [rounds]     speed-up by compiled operators of a small net's whole epoch

kornia, if installed, is compared in both of its modes: image by image, and with the same operators for a whole batch,
which is less than what nasaug does.
"""

from __future__ import annotations

import importlib.util
import sys
from unittest.mock import patch

import torch
from timing import BATCH, SIZE, Job, Row, alternate, made_up, ratio
from torchvision.transforms.v2 import RandAugment

from nasaug.arch import archfile
from nasaug.augment import View, make_view, ops
from nasaug.augment.policies import randaugment
from nasaug.kernels import build, choice


def augmentation(rounds: int) -> list[Row]:
    """RandAugment against other libraries, and a whole view against torch's operations; one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = [*policy(rounds), *whole_view(rounds)]
    torch.set_num_threads(threads)
    return rows


def whole_view(rounds: int) -> list[Row]:
    """Crops, flips, RandAugment and conversion to floats of 128 x 3 x 32 x 32 uint8, compiled and not."""
    if build.library() is None:
        return []
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (BATCH, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    view = View(policy="randaugment")

    def ours() -> None:
        make_view(view, images, generator, mean=(0.5,) * 3, std=(0.25,) * 3)

    def torchs() -> None:
        with choice.forced(False):
            ours()

    times = alternate({"a view, compiled": ours, "a view, by torch's operations": torchs}, rounds, calls=10)
    _tell(times)
    faster = ratio(times, "a view, by torch's operations", "a view, compiled")
    return [Row("a view with RandAugment, by torch's operations over compiled", faster, reach=1)]


def _tell(times: dict[str, list[float]]) -> None:
    for name, seconds in times.items():
        print(f"{name:30} {1000 * sorted(seconds)[len(seconds) // 2]:8.2f} ms per batch")


def policy(rounds: int) -> list[Row]:
    """One thread, 128 x 3 x 32 x 32 uint8, two operators per image; nasaug with a magnitude per image, 0 to 30, the
    others at 9."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    images = torch.randint(0, 256, (BATCH, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    theirs = RandAugment(num_ops=2, magnitude=9)
    jobs: dict[str, Job] = {
        "ours": lambda: randaugment(images, generator, 30 * torch.rand(BATCH, generator=generator), 2),
        "torchvision, image by image": lambda: torch.stack([theirs(image) for image in images]),
    }
    if importlib.util.find_spec("kornia"):
        from kornia.augmentation.auto import RandAugment as Kornias

        each = Kornias(n=2, m=9)
        jobs["kornia, image by image"] = lambda: torch.cat([each(image[None] / 255) for image in images])
        jobs["kornia, the whole batch alike"] = lambda: each(images / 255)
    else:
        print("kornia is not installed, so it is not compared")
    times = alternate(jobs, rounds, calls=10)
    _tell(times)
    return [
        Row(
            f"RandAugment, {name}, over ours", ratio(times, name, "ours"), reach=5 if "torchvision" in name else 1,
            goal=10 if "torchvision" in name else 1,
        )  # fmt: skip
        for name in jobs
        if name != "ours"
    ]


def epoch(rounds: int) -> list[Row]:
    """A plain epoch of 2,560 images at 28 px by a net of 0.25M MACs with RandAugment: time of torch over compiled."""
    from speed_steps import trainer_of

    from nasaug.arch.plan import Plan
    from nasaug.comparison.sweep import _scaled
    from nasaug.methods import Base, Baseline

    images = made_up(2560, size=28)
    nets: dict[int, Plan] = _scaled(archfile.read("mobilenetv2", resolution=28, classes=10).plan)
    trainer = trainer_of(Baseline(), images, Base(nets[min(nets, key=lambda macs: abs(macs - 250_000))]))
    trainer.views = {"train": View(policy="randaugment")}

    def ours() -> None:
        for x, y, _ in images.train.batches(BATCH, seed=0, epoch=0):
            trainer.train_step(x, y)

    def torchs() -> None:
        with patch.object(ops, "select_operators", lambda images: False):
            ours()

    times = alternate({"ours": ours, "torch": torchs}, rounds, calls=1)
    name = "an epoch of a net of 0.25M MACs under RandAugment, its operators by torch over compiled"
    return [Row(f"{name}, {torch.get_num_threads()} threads", ratio(times, "torch", "ours"), reach=1.1)]


def main() -> None:
    asked = sys.argv[1:]
    rounds = int(asked.pop()) if asked and asked[-1].isdecimal() else 10
    rows = [] if asked else augmentation(rounds)
    for threads in (1, 2) if asked == ["epoch"] else ():
        torch.set_num_threads(threads)
        rows += epoch(rounds)
    for row in rows:
        bounds = (f"; {bound:g}: {row.meets(bound)}" for bound in (row.reach, row.goal) if bound is not None)
        print(f"{row.path}: {row.shown()}{''.join(bounds)}")


if __name__ == "__main__":
    main()
