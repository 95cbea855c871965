"""`robust`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from .names import DataName, Device
from .options import Flag, print_json, whole

Whole = Annotated[int, Parameter(converter=whole)]


def robust(
    *,
    run: Annotated[tuple[Path, ...], Parameter(negative="")] = (),
    reference: Path | None = None,
    corruptions: str = "common",
    severities: str = "1,2,3,4,5",
    eps: str = "1,2,4,8",
    steps: Whole = 10,
    images: Whole = 0,
    attacked: Whole = 1000,
    frost: Path | None = None,
    seed: Whole = 0,
    data: DataName = None,
    device: Device = "auto",
    out: Path | None = None,
    json: Flag = False,
):
    """Measure what trained networks can stand: corrupted images, attacks, and how diverse their features are.

    Examples:

      nasaug robust --run runs/train-1

      nasaug robust --run runs/train-1 --run runs/netaug-train-1

      nasaug robust --run runs/train-1 --corruptions fog,jpeg --eps 2,8

    The 15 common corruptions of Hendrycks and Dietterich, mCE, FGSM and PGD. Test images are read: select nothing by
    the results. The same command with --out goes on with an evaluation that was stopped.

    :param run: The folder of a finished run of train, netaug-train or prune; repeatable.
    :param reference: The run whose errors mCE divides by; default: the first.
    :param corruptions: Names, separated by commas, or common, extra (the four for validation), all, none.
    :param severities: Some of 1 to 5, separated by commas.
    :param eps: Radii of the attacks in 1/255 of the pixels' range, separated by commas; none for no attacks.
    :param steps: Steps of PGD.
    :param images: How many test images, drawn by the seed; 0 for all.
    :param attacked: At most how many of them are attacked.
    :param frost: A folder of photographs of frost; without one, frost is a drawn stand-in.
    :param seed: Seed of the corruptions and of PGD's start.
    :param data: Where the runs' images are now, if they moved.
    :param device: auto, cpu or cuda.
    :param out: The folder for robust.json and the page; default: the next free runs/robust-N.
    :param json: Print the result as JSON; all else goes to stderr.
    """
    from ..core.errors import BadInput
    from ..core.files import read_json
    from ..reporting import robust_page
    from ..robustness.robust import FILE, FORMAT, PAGE
    from ..robustness.robust import robust as measured

    def numbers(option: str, text: str, kind: type) -> list:
        try:
            return [kind(each) for each in text.split(",") if each.strip() and text != "none"]
        except ValueError:
            rule, remedy = "is no list of numbers", "give them separated by commas, like 1,2,4"
            raise BadInput.of(argument=option, value=text, rule=rule, remedy=remedy, apart=True) from None

    found = measured(
        run, reference=reference, corruptions=corruptions, severities=numbers("severities", severities, int),
        eps=numbers("eps", eps, float), steps=steps, images=images, attacked=attacked, frost=frost, seed=seed,
        data=data, device=device, out=out,
    )  # fmt: skip
    content = read_json(found.path / FILE, FORMAT)
    if json:
        print_json({"run": str(found.path), **content})
        return
    print(robust_page.table(content["runs"]))
    print(f"{found.path / PAGE}, {found.path / FILE}")
