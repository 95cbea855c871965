"""The command line: verbs to functions, and how it ends. Knows no algorithm."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path

from cyclopts import App, CycloptsError

from .. import __version__
from ..core.errors import BadInput, RunFault
from ..core.files import remedy
from ..core.progress import heard_by
from ..core.signals import Stopped, raised_stop
from ..core.streams import command_line, flush, mute_unheard, open_streams, tell
from .compare import compare
from .profile import profile
from .prune import prune
from .report import report
from .search import search
from .sweep import sweep
from .terminal import Terminal
from .train import netaug_train, train

BAD_INPUT, FAULT = 2, 1

app = App(
    name="nasaug",
    help="Find the most accurate tiny network under a budget, then train it inside wider ones.",
    help_epilogue=(
        "Start here:\n\n"
        "  python -m nasaug search --mac-budget 25M\n\n"
        "  python -m nasaug netaug-train --arch found.json\n"
    ),
    version=__version__,
    help_format="markdown",
    suppress_keyboard_interrupt=False,
)
for verb in (search, netaug_train, train, compare, sweep, report, profile, prune):
    app.command(verb)  # by its name, with - for _


def main() -> None:
    """Run the command line; bad input exits with 2, a fault with 1, a signal with 128 + its number."""
    open_streams()
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells at length of a home that it cannot write into
    try:
        try:
            with raised_stop(), heard_by(Terminal()):
                app(sys.argv[1:], exit_on_error=False, print_error=False)
        finally:
            flush()  # here, where a reader that went away is handled, not at the interpreter's end
    except CycloptsError as error:
        _fail(" ".join(str(error).split()).rstrip(".") + "; see nasaug --help", BAD_INPUT)
    except BadInput as error:
        _fail(error.told(_option), BAD_INPUT)
    except RunFault as error:
        _fail(str(error), FAULT)
    except MemoryError:
        _fail("out of memory; lower the batch: --set batch=64", FAULT)
    except (KeyboardInterrupt, Stopped) as stop:
        _stop(getattr(stop, "signum", signal.SIGINT), getattr(stop, "verb", None), getattr(stop, "run", None))
    except BrokenPipeError:
        sys.exit(141)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}; {remedy(error)}", FAULT)


def _option(argument: str) -> str:
    """The option that gives a function's argument."""
    return {"source": "--from"}.get(argument, "--" + argument.replace("_", "-"))


def _fail(message: str, code: int) -> None:
    """Exit with `code` and one line, whatever line breaks the user's own words have."""
    tell(f"nasaug: {' '.join(message.splitlines())}", sys.stderr)
    sys.exit(code)


def _stop(signum: int, verb: str | None, run: Path | None) -> None:
    """Exit with 128 + the signal's number and a line that says how to go on, where there is something to go on with."""
    mute_unheard()
    if verb is None:
        _fail("stopped before anything was to be saved", 128 + signum)
    resume = command_line(*f"python -m nasaug {verb} --resume --run".split(), run)
    tell(f"stopped; go on with: {resume}", sys.stderr)
    sys.exit(128 + signum)
