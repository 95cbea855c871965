"""`python -m nasaug` and the `nasaug` console script."""

import importlib
import os
import sys

# How long torch's OpenMP threads spin before they sleep. It is read when torch is loaded, so it is set before anything
# else. A higher value makes a training several times slower beside another busy process, a lower one makes it slower on
# a quiet machine (docs/performance.md). The user's own value wins.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

from .cli import main as cli  # noqa: E402
from .core.errors import told_by  # noqa: E402
from .core.streams import open_streams, tell  # noqa: E402

IMPORT = "NASAUG_IMPORT"  # environment variable with the modules that register the user's own methods


def import_named(names: str) -> str:
    """Import these comma-separated modules; returns why the first one that fails cannot be imported, else an empty
    string."""
    for name in filter(None, map(str.strip, names.split(","))):
        try:
            importlib.import_module(name)
        except Exception as error:  # a user's module may raise anything
            why = f"{type(error).__name__}: {told_by(error)}"
            remedy = "name modules that Python can find, for example in a folder of PYTHONPATH, or unset it"
            return f"{IMPORT} = {names}: {name} cannot be imported ({why}); {remedy}"
    return ""


def main() -> None:
    """The command line; its worker processes enter here too and inherit NASAUG_IMPORT."""
    wrong = import_named(os.environ.get(IMPORT, ""))
    if wrong:
        open_streams()
        tell(f"nasaug: {wrong}", sys.stderr)
        sys.exit(2)
    cli.main()


if __name__ == "__main__":
    main()
