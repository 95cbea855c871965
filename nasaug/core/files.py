"""Files read with one-line errors and written whole, and the data files that ship with the package."""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import re
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from .errors import BadInput, RunFault

_BAD_PATH = {
    errno.EACCES, errno.EEXIST, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR,
    errno.EPERM, errno.EROFS,
}  # fmt: skip
_SPACE = "free some space or give another folder"
_FILES = "close some files, or raise the limit of open ones (ulimit -n)"
_LOCKS = "its file system has no locks, as some network folders; give a folder on another"
_REMEDY = {
    errno.ENOSPC: _SPACE, errno.EDQUOT: _SPACE, errno.EMFILE: _FILES, errno.ENFILE: _FILES, errno.ENOLCK: _LOCKS,
    errno.ENOTSUP: _LOCKS, errno.ENOENT: "make its folder first", errno.ENAMETOOLONG: "give a shorter name",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f), or give a folder that takes larger files",
    errno.EAGAIN: "end some processes, or raise their limit (ulimit -u)",
    errno.ENOMEM: "free some memory", errno.ESTALE: "mount its network folder again",
    errno.EIO: "see to its disk or network, or give a path on another",
}  # fmt: skip


DATA_SETS = ("fashion-mnist", "cifar10", "cifar100", "imagenet", "digits")  # what --data takes beside a folder's path


def bundled(kind: str) -> Path:
    """The folder of shipped data files, `search_spaces` or `recipes`: in the wheel, else in the checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_files" / kind
    return installed if installed.is_dir() else package.parent / kind


def cache_folder() -> Path:
    """The user's cache folder: downloaded data, compiled kernels. Raises BadInput where there is no home for one, as of
    a user whom the system does not know; nothing but the cache may be lost by that."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nasaug"
    except RuntimeError as error:
        raise BadInput("there is no home folder to keep a cache in; name a folder by XDG_CACHE_HOME") from error


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[IO[bytes]]:
    """A binary file that takes the place of `path` only when the block ends well; else `path` is as it was.

    Raises BadInput where the path cannot be written to, RunFault where the disk fails (full, quota).
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _remove_cut_off(path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _remove_cut_off(path: Path) -> None:
    """Remove what writers of `path` left that were killed on their way."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        writer = left.name.split(".")[-2]
        with contextlib.suppress(OSError):
            old = time.time() - left.stat().st_mtime > 60  # a process elsewhere, which is not seen here, may be at it
            if old and writer.isdecimal() and not _alive(int(writer)):
                left.unlink()


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return True


def write_error(path: Path, error: OSError) -> BadInput | RunFault:
    """The one-line error for a write to `path` that failed."""
    kind = BadInput if error.errno in _BAD_PATH else RunFault
    return kind(f"cannot write {path}: {error.strerror or error}; {remedy(error)}")


def remedy(error: OSError) -> str:
    """What can be done about it."""
    return _REMEDY.get(error.errno or 0, "mend what is in the way, or give a path that can be written to")


def write_whole(path: str | Path, content: bytes | str) -> None:
    """Writes `content` in place of whatever `path` held, whole or not at all.

    Text is written as UTF-8; a byte of a name that is not, which Python has as a lone surrogate, like \\udce9."""
    with whole_file(path) as file:
        file.write(shown(content).encode() if isinstance(content, str) else content)


def shown(text: str) -> str:
    """The text as any program takes it: without lone surrogates, each of them escaped."""
    return text.encode(errors="backslashreplace").decode()


def write_with_names(path: str | Path, text: str) -> None:
    """As `write_whole`, but such bytes as they are: for TOML and CSV, which have no escape for them."""
    write_whole(path, text.encode(errors="surrogateescape"))


def to_json(obj: Any, indent: int | None = None) -> str:
    """JSON text of `obj`; a figure that is not a number or infinite is a RunFault, since JSON has none.

    A lone surrogate is escaped as JSON does it, so every name can be written and is read as it was."""
    try:
        return shown(json.dumps(obj, indent=indent, allow_nan=False, ensure_ascii=False))
    except ValueError as error:
        raise RunFault(f"a figure to be written is not finite: {obj!r:.200}") from error


def write_json(path: str | Path, obj: Any) -> None:
    """Writes `obj` as readable JSON, whole or not at all."""
    write_whole(path, to_json(obj, indent=1) + "\n")


def read_bytes(path: str | Path) -> bytes:
    """The file's content; BadInput where there is none to read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        todo = "give the path of an existing file"
        if error.errno in (errno.EACCES, errno.EPERM):
            todo = "give one that you may read"
        elif error.errno in _REMEDY and error.errno != errno.ENOENT:
            todo = remedy(error)
        raise BadInput(f"cannot read {path}: {error.strerror or error}; {todo}") from error


_UTF_16 = re.compile(rb"\xff\xfe|\xfe\xff|([^\0]\0){4}|(\0[^\0]){4}")


def _read_text(path: str | Path, errors: str = "strict") -> str:
    """The file's text, without the mark that some editors put before it."""
    content = read_bytes(path)
    if _UTF_16.match(content):
        raise BadInput(f"{path} is UTF-16 text, as some editors and shells of Windows write it; save it as UTF-8")
    try:
        return content.decode(errors=errors).lstrip("\ufeff")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not a text file (byte {error.start} is not UTF-8)") from error


def read_json(path: str | Path, format: str) -> dict[str, Any]:
    """The JSON object in a file whose "format" is `format`, such as "nasaug-arch/1"; else BadInput."""
    text = _read_text(path)
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInput(
            f"{path}, line {error.lineno}: broken or cut-off JSON ({error.msg}); make the file anew"
        ) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or endless nesting
        raise BadInput(f"{path} cannot be read as JSON ({error}); make the file anew") from error
    found = content.get("format") if isinstance(content, dict) else None
    if found != format:
        raise BadInput(f'{path} has "format" {found!r}, but {format!r} is needed; give a file of that kind')
    return content


def read_toml(path: str | Path) -> dict[str, Any]:
    """The tables of a TOML file; malformed TOML is a BadInput with file and line. A path in it may have bytes that are
    not UTF-8, as the names of files may."""
    text = _read_text(path, "surrogateescape")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # not TOML, thousands of digits, or endless nesting
        _read_text(path)  # which tells of a file that is no text
        raise BadInput(f"{path}: not valid TOML: {error}; mend that line") from error
