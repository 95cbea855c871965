"""`export`."""

from __future__ import annotations

from pathlib import Path

from .names import DataName, Formats
from .options import Flag, print_json


def export(
    *,
    run: Path | None = None,
    format: Formats = "onnx,int8-onnx",
    out: Path | None = None,
    data: DataName = None,
    name: str = "model",
    json: Flag = False,
):
    """Write a trained network in formats that run without nasaug: ONNX, int8, torch.export, C, ExecuTorch.

    Examples:

      nasaug export --run runs/netaug-train-1

      nasaug export --run runs/netaug-train-1 --format onnx,int8-onnx,torch-export,c --out export/

      nasaug export --run runs/train-1 --format c --name doorbell

    Each file is compared with the network before it is written. int8 is quantised with training images; its test
    score, size and latency are reported. A model card says what the files are and how to run them.

    :param run: The folder of a finished run of train, netaug-train or prune.
    :param format: Formats, separated by commas: onnx, int8-onnx, torch-export, c, executorch.
    :param out: The folder for the files; default: export in the run's folder.
    :param data: Where the run's images are now, if they moved.
    :param name: What the files and the C functions are called.
    :param json: Print the result as JSON; all else goes to stderr.
    """
    from ..core.files import read_json
    from ..deployment.export import FACTS, FORMAT
    from ..deployment.export import export as exported

    made = exported(run, format=format, out=out, data=data, name=name)
    if json:
        print_json({"path": str(made.path), **read_json(made.path / FACTS, FORMAT)})
