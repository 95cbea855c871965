"""Where a search keeps its study: the run's own file, or any Optuna storage by URL."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ..core.errors import BadInput, RunFault
from ..core.files import shown
from ..rundirs.folder import without_passwords

STUDY = "nasaug"  # its name in a storage


def open_storage(url: str):
    """An Optuna storage from its URL; `journal:PATH` is a journal file. Raises BadInput where it cannot be used."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return unchecked_storage(url)
    except (SQLAlchemyError, ImportError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        shown = without_passwords(f"--storage {url}: {reason}")
        raise BadInput(f"{shown}; give a URL like sqlite:///study.db, or none") from None


def unchecked_storage(url: str):
    """The same, with whatever error its library raises."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    if url.startswith("journal:"):
        backend = JournalFileBackend(url.removeprefix("journal:"))
        return optuna.storages.JournalStorage(backend)
    return optuna.storages.RDBStorage(url)


def absolute_storage(url: str) -> str:
    """The URL, in which a file's path is absolute: a run that goes on from another folder means the same file."""
    for scheme in ("sqlite:///", "journal:"):
        path = url.removeprefix(scheme)
        if path != url and path and not path.startswith(":"):
            return scheme + os.path.abspath(path)
    return url


def check_storage(url: str, resumed: bool) -> None:
    """Open a storage, which may make a file. BadInput where that fails or it has another run's study."""
    import optuna

    held = optuna.get_all_study_names(open_storage(url))
    if STUDY in held and not resumed:
        taken = f"--storage {without_passwords(url)} holds another run's study"
        raise BadInput(f"{taken}; --resume that run, or give another storage")


def own_storage(run: Path) -> str:
    """The URL of the study in a run's folder, whatever signs the folder's name has."""
    from sqlalchemy.engine import URL

    folder = str(run)
    if shown(folder) != folder:  # not UTF-8, which a URL must be; this process has it under a number too
        folder = f"/proc/self/fd/{os.open(run, os.O_RDONLY)}"
    return URL.create("sqlite", database=f"{folder}/study.db").render_as_string()


@contextlib.contextmanager
def storage_faults(url: str) -> Iterator[None]:
    """Raises RunFault where a storage that could be opened fails later: a full disk, a lost connection."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        failed = f"the study in {without_passwords(url)} cannot be read or written: {reason}"
        raise RunFault(f"{failed}; mend that, or free some space where a disk is full; then --resume") from error
