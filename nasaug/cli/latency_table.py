"""`latency-table`."""

from __future__ import annotations

from pathlib import Path

from .names import Backend, SpaceGiven
from .options import Flag, Whole, print_json


def latency_table(
    *,
    space: SpaceGiven,
    out: Path,
    backend: Backend = "onnxruntime",
    threads: Whole = None,
    networks: Whole = None,
    from_csv: Path | None = None,
    device_name: str | None = None,
    csv_template: Flag = False,
    resume: Flag = False,
    json: Flag = False,
):
    """Measure a latency table: it predicts how long the networks of a search space take on this machine.

    Examples:

      nasaug latency-table --space tiny-images --out table.json

      nasaug latency-table --space tiny-images --out table.json --resume

      nasaug latency-table --space tiny-images --out torch.json --backend torch --threads 2

      nasaug latency-table --space tiny-images --csv-template --out layers.csv

      nasaug latency-table --space tiny-images --from-csv layers.csv --device-name "Pixel 9" --out pixel.json

    Whole random networks are timed, the terms of every kind of layer are fitted to their times, and the prediction is
    checked on networks that were not used in the fit. Nothing else should run meanwhile.

    :param space: A search space's name or the path of a TOML file.
    :param out: The table's file, .json; with --csv-template a .csv.
    :param backend: onnxruntime (default) or torch.
    :param threads: Threads of the back end; default 1.
    :param networks: Networks that the prediction is fitted to; default 240. 40 more check it.
    :param from_csv: Make the table from layers and milliseconds that were measured elsewhere.
    :param device_name: What to call the device; needed with --from-csv.
    :param csv_template: Write the layers that such a file needs, without milliseconds, to --out.
    :param resume: Go on with an interrupted measurement.
    :param json: Print the result as JSON; all else goes to stderr.
    """
    from ..deployment import latency

    table = latency.latency_table(
        space, out, backend=backend, threads=1 if threads is None else threads,
        networks=latency.FITTED if networks is None else networks, from_csv=from_csv, device_name=device_name,
        csv_template=csv_template, resume=resume,
    )  # fmt: skip
    if json:
        print_json({"path": str(out), **({} if table is None else table.content)})
