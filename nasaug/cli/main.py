"""The command line's entry point: dispatches verbs and maps errors to exit codes."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cyclopts import App, CycloptsError, MissingArgumentError, UnknownCommandError, UnknownOptionError

from .. import __version__
from ..core.errors import BadInput, RunFault, nearest, unknown, written
from ..core.files import remedy
from ..core.launch import launched
from ..core.own import import_named
from ..core.progress import Event, heard_by
from ..core.signals import Stopped, raised_stop, stop_when_left
from ..core.streams import flush, mute_unheard, nasaug_command, open_streams, tell
from .cell_worker import cell_worker
from .compare import compare
from .completion import completion_of
from .doctor import doctor
from .export import export
from .latency_table import latency_table
from .list import list_
from .options import option
from .predict import predict
from .profile import profile
from .prune import prune
from .report import report
from .robust import robust
from .runs import runs
from .search import search
from .search_worker import search_worker
from .sweep import sweep
from .terminal import Terminal
from .train import netaug_train, train
from .transfer import transfer
from .verify import verify
from .watch import watch

BAD_INPUT, FAULT = 2, 1

app = App(
    name="nasaug",
    help="Find the most accurate tiny network under a budget, then train it inside wider ones.",
    help_epilogue=(
        "Start here:\n\n"
        "  nasaug search --data photos/ --mac-budget 1M\n\n"
        "  nasaug netaug-train --arch found.json\n"
    ),
    version=__version__,
    help_format="markdown",
    suppress_keyboard_interrupt=False,
)
for verb in (
    search, search_worker, netaug_train, train, transfer, compare, sweep, report, cell_worker, profile, prune,
    export, predict, robust, latency_table, verify, runs, watch, doctor,
    completion_of(app),
):  # fmt: skip
    app.command(verb, help_epilogue="")  # the function's name, with - for _; without it a verb repeats "Start here"
app.command(list_, name="list", help_epilogue="")
VERBS = tuple(name for name in app if not name.startswith("-"))


def main() -> None:
    """Run the command line. Exit codes: 2 for bad input, 1 for a fault, 128 + number for a signal."""
    open_streams()
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # hides its warnings about a read-only home directory
    try:
        try:
            with raised_stop(), contextlib.closing(Terminal(quiet=_wants_json(sys.argv))) as terminal:
                stop_when_left()
                with heard_by(terminal if launched()[0] == 0 else _silent):
                    import_named()
                    app(sys.argv[1:], exit_on_error=False, print_error=False)
        finally:
            flush()  # here, where a broken pipe is handled, and not at interpreter exit
    except CycloptsError as error:
        _fail(_usage(error), BAD_INPUT)
    except BadInput as error:
        _fail(written(error.line, option), BAD_INPUT)
    except RunFault as error:
        _fail(written(error.line, option), FAULT)
    except MemoryError:
        _fail("out of memory; lower the batch: --set batch=64", FAULT)
    except (KeyboardInterrupt, Stopped) as stop:
        told = (getattr(stop, name, None) for name in ("verb", "run", "resume"))
        _stop(getattr(stop, "signum", signal.SIGINT), *told)
    except BrokenPipeError:
        sys.exit(141)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}; {remedy(error)}", FAULT)


def _usage(error: CycloptsError) -> str:
    """What is wrong with the words of a command, in a line."""
    chain = [word for word in error.command_chain or () if word in VERBS]
    see = f"see nasaug {' '.join([*chain, '--help'])}"
    if isinstance(error, UnknownCommandError) and error.unused_tokens:
        return f"{written(unknown('command', error.unused_tokens[0], VERBS).line)}; {see}"
    if isinstance(error, UnknownOptionError) and error.token.keyword:
        options = {name for argument in error.argument_collection for name in argument.names}
        close = nearest(error.token.keyword.partition("=")[0], options)
        return f"unknown option {error.token.keyword}; {f'{close} ' if close else ''}{see}"
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        taken = {name for argument in app[chain[0]].assemble_argument_collection() for name in argument.names}
        given = [word for word in error.unused_tokens or () if word.startswith("--") and word not in taken]
        instead = f"; it has no option {given[0]}" if given else ""
        return f"{' '.join(chain)} needs a value for {error.argument.name}{instead}; {see}"
    return f"{' '.join(str(error).split()).rstrip('.')}; {see}"


def _wants_json(words: Sequence[str]) -> bool:
    """Whether stdout is for JSON alone, also before the words are parsed."""
    return "--json" in words


SPEAKS_AFTER_S = 10.0  # longer than torchrun takes to end the other processes


def _silent(event: Event) -> None:
    """What processes other than the first of several that train together say."""


def _fail(message: str, code: int) -> None:
    """Exit with `code` and a one-line message, in which line breaks from the user's input are replaced.

    Of several processes that train together the first speaks for all: bad input is the same for them, and torchrun ends
    the others as soon as one has ended. If another one alone has failed, it speaks after a while."""
    if launched()[0]:
        time.sleep(SPEAKS_AFTER_S)
    tell(f"nasaug: {' '.join(message.splitlines())}", sys.stderr)
    sys.exit(code)


def _stop(signum: int, verb: str | None, run: Path | None, resume: str | None) -> None:
    """Exit with 128 + the signal's number, after a line with the command to resume if there is something to resume."""
    mute_unheard()
    if launched()[0]:  # the first of the processes that train together says it
        sys.exit(128 + signum)
    if verb is None and resume is None:
        _fail("stopped before there was anything to save", 128 + signum)
    resume = resume or nasaug_command(verb, "--resume", "--run", run)
    tell(f"stopped; go on with: {resume}", sys.stderr)
    sys.exit(128 + signum)
