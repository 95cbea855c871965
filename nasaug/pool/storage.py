"""The storage of an Optuna study: any storage URL of Optuna's, or the file in a search's run directory."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..core.errors import BadInput, MissingExtra, RunFault, arg, told_by
from ..core.files import named_in_utf8
from ..rundirs.folder import HIDDEN, without_passwords

STUDY = "nasaug"  # the study's name in a storage
HEARTBEAT = "NASAUG_HEARTBEAT"  # environment variable: seconds between two heartbeats of a process on its trial
GRACE = 4  # heartbeats that may be missing before another process takes the trial
SERVERS = ("postgresql", "postgres", "mysql", "mariadb")


def open_storage(url: str, retry: Callable[[Any, Any], None] | None = None):
    """The Optuna storage of a URL; `journal:PATH` is a journal file. Raises BadInput if it cannot be opened. `retry` is
    called with the study and a trial whose process has not recorded its heartbeat for long."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return unchecked_storage(url, retry)
    except BadInput:
        raise
    except (SQLAlchemyError, ImportError, ValueError, OSError, RuntimeError) as error:
        # Optuna raises RuntimeError for tables that another version of it has made
        rule, remedy = f": {hidden(told_by(error), url)}", "give a URL like sqlite:///study.db, or none"
        shown = without_passwords(url)
        raise BadInput.of(argument="storage", value=shown, rule=rule, remedy=remedy, apart=True) from None


def unchecked_storage(url: str, retry: Callable[[Any, Any], None] | None = None):
    """Like `open_storage`, but raises the library's own errors."""
    import optuna
    from optuna.storages.journal import JournalFileBackend
    from sqlalchemy.event import listen
    from sqlalchemy.exc import DBAPIError

    if url.startswith("journal:"):
        backend = JournalFileBackend(url.removeprefix("journal:"))
        return optuna.storages.JournalStorage(backend)
    url, server = _with_driver(url), on_a_server(url)
    # a file is locked while another process writes; a connection may have been cut since it was last used
    connect: dict[str, Any] = {"connect_timeout": 10} if server else {}
    if url.startswith("sqlite"):
        connect = {"timeout": 60}
    if "+psycopg:" in url:
        connect["client_encoding"] = "utf8"  # a database without one, made under LC_ALL=C, would give bytes
    for last in (False, True):
        try:
            with warnings.catch_warnings(action="ignore"):  # heartbeats are experimental
                storage = optuna.storages.RDBStorage(
                    url, engine_kwargs={"pool_pre_ping": server, "connect_args": connect},
                    heartbeat_interval=heartbeat_s(), grace_period=GRACE * heartbeat_s(),
                    heartbeat_stale_trial_callback=retry,
                )  # fmt: skip
            if url.startswith("sqlite"):
                listen(storage.engine, "begin", _lock_to_write)
            return storage
        except DBAPIError as error:
            # another process made the tables at the same time
            if last or not re.search("already exists|duplicate key", str(error)):
                raise


def _lock_to_write(connection: Any) -> None:
    """Begin a transaction in SQLite as one that writes. Two that read first and then write would both fail at once,
    instead of waiting for each other, and Optuna tries again after a second."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def heartbeat_s() -> int:
    """Seconds between two heartbeats. Raises BadInput if the environment has no whole number of them."""
    given = os.environ.get(HEARTBEAT, "15")
    if not given.isdecimal() or not 1 <= int(given) <= 3600:
        raise BadInput(f"{HEARTBEAT}={given} in the environment must be a whole number of seconds, 1 to 3600")
    return int(given)


def on_a_server(url: str | None) -> bool:
    """Whether the storage is a database server's, which may restart, rather than a file or memory."""
    return url is not None and url.partition(":")[0].partition("+")[0] in SERVERS


def _with_driver(url: str) -> str:
    """The URL of a PostgreSQL server with the driver that nasaug's extra installs, if it names none."""
    scheme, colon, rest = url.partition(":")
    if scheme not in ("postgresql", "postgres", "postgresql+psycopg"):
        return url
    if importlib.util.find_spec("psycopg") is None:
        raise MissingExtra("psycopg", "postgres", "a storage in PostgreSQL")
    return f"postgresql+psycopg{colon}{rest}"


def hidden(text: str, url: str) -> str:
    """The text without the URL's password, wherever it is."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    parts = re.findall(r"://[^:/@\s]*:(\S*)@", url)
    parts += [piece for part in parts for piece in re.split("[@:/]", part)]  # a library may split it anywhere
    with contextlib.suppress(ArgumentError, ValueError):
        parts.append(make_url(url).password or "")
    for part in map(str, parts):
        if len(part) > 3:  # the URL itself is treated below
            text = text.replace(part, HIDDEN)
    return without_passwords(text)


def absolute_storage(url: str) -> str:
    """The URL with an absolute file path, so that it stays valid if the run is resumed in another directory."""
    for scheme in ("sqlite:///", "journal:"):
        path = url.removeprefix(scheme)
        if path != url and path and not path.startswith(":"):
            return scheme + os.path.abspath(path)
    return url


def check_storage(url: str, resumed: bool) -> None:
    """Open a storage, which may create a file. Raises BadInput if that fails or it contains another run's study."""
    import optuna

    held = optuna.get_all_study_names(open_storage(url))
    if STUDY in held and not resumed:
        rule, remedy = "holds another run's study", f"{arg.resume} that run, or give another storage"
        raise BadInput.of(argument="storage", value=without_passwords(url), rule=rule, remedy=remedy)


@contextlib.contextmanager
def own_storage(run: Path) -> Iterator[str]:
    """The URL of the study in a run directory, whatever characters its name contains, valid inside the block."""
    from sqlalchemy.engine import URL

    with named_in_utf8(run) as folder:
        yield URL.create("sqlite", database=f"{folder}/study.db").render_as_string()


@contextlib.contextmanager
def storage_faults(url: str) -> Iterator[None]:
    """Raises RunFault if an opened storage fails later, for example because of a full disk or a lost connection."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        reason = hidden(str(error.__cause__ or error).splitlines()[0], url)
        failed = f"the study in {without_passwords(url)} cannot be read or written: {reason}"
        raise RunFault(f"{failed}; fix that, or free some space if a disk is full; then {arg.resume}") from error
