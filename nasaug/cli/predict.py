"""`predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from .options import Flag, print_json, whole


def predict(
    *images: Path,
    model: Annotated[Path | None, Parameter(name=["--model", "--run"])] = None,
    top: Annotated[int, Parameter(converter=whole)] = 5,
    out: Path | None = None,
    json: Flag = False,
):
    """Say what a trained network, or an exported file of it, sees in images: probable classes, a number, or objects.

    Examples:

      nasaug predict --run runs/netaug-train-1 photo.jpg

      nasaug predict --model export/model-int8.onnx photos/ --top 3 --json

      nasaug predict --model runs/netaug-train-1 photos/ --out sheet.png

    Preprocessing and class names are those in the metadata of the model's file. No code in a file is run, so files of
    torch.export are refused.

    :param images: Image files, and folders, of which all images are taken.
    :param model: The folder of a finished run, its model.safetensors, or an .onnx file that export wrote, float or
      int8.
    :param top: How many classes to show for each image.
    :param out: A new folder for a copy of each image with its class and confidence below, or a new .png file for one
      sheet of all of them.
    :param json: Print JSON: for each image its path, label, confidence and the top classes, or its value.
    """
    from ..deployment.predictions import percent
    from ..deployment.predictions import predict as predicted
    from ..reporting import tables

    found = predicted(model, images, top=top, out=out)
    if json:
        print_json([seen.to_json() for seen in found])
        return
    shown = [[f"{label} {percent(probability)}" for label, probability in seen.top] or [*seen.lines] for seen in found]
    numbers = found[0].value is not None
    head = ["image", *(["number"] if numbers else map(str, range(1, len(shown[0]) + 1)))]
    rows = [[seen.image, *cells] for seen, cells in zip(found, shown, strict=True)]
    print(tables.text(head, rows, left=() if numbers else range(len(head))))
