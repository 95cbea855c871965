"""`python -m nasaug` and the `nasaug` console script."""

import importlib
import os
import sys

# How long the threads of torch's OpenMP spin before they sleep, read when torch is loaded, so it is set before anything
# else. More makes a training several times slower beside another busy process, less makes it slower on a quiet machine
# (docs/performance.md). The user's own value wins.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

from .cli import main as cli  # noqa: E402
from .core.errors import told_by  # noqa: E402
from .core.streams import open_streams, tell  # noqa: E402

IMPORT = "NASAUG_IMPORT"  # the environment's variable with the modules that register methods of the user's own


def import_named(names: str) -> str:
    """Import these modules, separated by commas; what is wrong with the first that cannot be, else nothing."""
    for name in filter(None, map(str.strip, names.split(","))):
        try:
            importlib.import_module(name)
        except Exception as error:  # whatever a user's module raises
            why = f"{type(error).__name__}: {told_by(error)}"
            remedy = "name modules that Python finds, like those of a folder in PYTHONPATH, or unset it"
            return f"{IMPORT} = {names}: {name} cannot be imported ({why}); {remedy}"
    return ""


def main() -> None:
    """The command line, which processes that it begins go through too: they inherit NASAUG_IMPORT."""
    wrong = import_named(os.environ.get(IMPORT, ""))
    if wrong:
        open_streams()
        tell(f"nasaug: {wrong}", sys.stderr)
        sys.exit(2)
    cli.main()


if __name__ == "__main__":
    main()
