"""`verify`."""

from __future__ import annotations

from pathlib import Path

from .options import Flag, print_json


def verify(run: Path, *, json: Flag = False):
    """Run a finished run again and compare: the same result bit for bit, or what differs and how the environment does.

    It takes as long as the run did. Runs that a clock limited cannot be verified.

    Examples:

      nasaug verify runs/train-1

      nasaug verify runs/search-1

      nasaug verify runs/train-1 --json

    :param run: The folder of a finished run of train, netaug-train or search.
    :param json: Print the result as JSON; all else goes to stderr.
    """
    from ..nas.search import SearchJob
    from ..training.options import Options
    from ..training.train import TrainJob
    from ..training.verify import report, verify

    def trained(verb: str, place: Path):
        return TrainJob(verb, options=Options(run=place, resume=True))

    def searched(verb: str, place: Path):
        return SearchJob(options=Options(run=place, resume=True), leave_found=False)

    result = verify(run, {"train": trained, "netaug-train": trained, "search": searched})
    if json:
        print_json({**vars(result), "run": str(result.run), "same": result.same})
    else:
        print(report(result))
