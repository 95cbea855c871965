"""The storage of a search's Optuna study: a file in the run directory, or any Optuna storage URL."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ..core.errors import BadInput, RunFault, arg
from ..core.files import shown
from ..rundirs.folder import without_passwords

STUDY = "nasaug"  # the study's name in a storage


def open_storage(url: str):
    """The Optuna storage of a URL; `journal:PATH` is a journal file. Raises BadInput if it cannot be opened."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return unchecked_storage(url)
    except (SQLAlchemyError, ImportError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        shown = without_passwords(f"{arg.storage} {url}: {reason}")
        raise BadInput(f"{shown}; give a URL like sqlite:///study.db, or none") from None


def unchecked_storage(url: str):
    """Like `open_storage`, but raises the library's own errors."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    if url.startswith("journal:"):
        backend = JournalFileBackend(url.removeprefix("journal:"))
        return optuna.storages.JournalStorage(backend)
    return optuna.storages.RDBStorage(url)


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
        taken = f"{arg.storage} {without_passwords(url)} holds another run's study"
        raise BadInput(f"{taken}; {arg.resume} that run, or give another storage")


def own_storage(run: Path) -> str:
    """The URL of the study in a run directory, whatever characters its name contains."""
    from sqlalchemy.engine import URL

    folder = str(run)
    if shown(folder) != folder:  # URLs must be UTF-8; a file descriptor gives the folder another name
        folder = f"/proc/self/fd/{os.open(run, os.O_RDONLY)}"
    return URL.create("sqlite", database=f"{folder}/study.db").render_as_string()


@contextlib.contextmanager
def storage_faults(url: str) -> Iterator[None]:
    """Raises RunFault if an opened storage fails later, for example because of a full disk or a lost connection."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        failed = f"the study in {without_passwords(url)} cannot be read or written: {reason}"
        raise RunFault(f"{failed}; fix that, or free some space if a disk is full; then {arg.resume}") from error
