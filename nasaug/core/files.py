"""File input with one-line errors, atomic output, and the data files that ship with the package."""

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
_LOCKS = "its file system has no locks, like some network file systems; give a folder on another"
_REMEDY = {
    errno.ENOSPC: _SPACE, errno.EDQUOT: _SPACE, errno.EMFILE: _FILES, errno.ENFILE: _FILES, errno.ENOLCK: _LOCKS,
    errno.ENOTSUP: _LOCKS, errno.ENOENT: "create its folder first", errno.ENAMETOOLONG: "give a shorter name",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f), or give a folder that takes larger files",
    errno.EAGAIN: "end some processes, or raise their limit (ulimit -u)",
    errno.ENOMEM: "free some memory", errno.ESTALE: "mount its network folder again",
    errno.EIO: "check its disk or network, or give a path on another",
}  # fmt: skip


DATA_SETS = (  # accepted by --data besides a folder's path
    "fashion-mnist", "cifar10", "cifar100", "imagenet", "digits", "food101", "flowers102", "cars", "cub200", "pets",
    "imagenet21k-p",
)  # fmt: skip


def bundled(kind: str) -> Path:
    """The folder of shipped data files of a kind (`search_spaces` or `recipes`), from the wheel or the checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_files" / kind
    return installed if installed.is_dir() else package.parent / kind


def cache_folder() -> Path:
    """The user's cache folder for downloaded data and compiled kernels.

    Raises BadInput if the user has no home directory, such as a uid without a passwd entry. Callers should treat that
    as a missing cache, not as a fatal error."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nasaug"
    except RuntimeError as error:
        raise BadInput("there is no home folder for the cache; set XDG_CACHE_HOME to a folder") from error


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[IO[bytes]]:
    """A binary file that atomically replaces `path` when the block succeeds; otherwise `path` is left unchanged.

    Raises BadInput if the path cannot be written to, RunFault if the disk fails (full, quota).
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
    """Remove temporary files left by writers of `path` that were killed."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        writer = left.name.split(".")[-2]
        with contextlib.suppress(OSError):
            old = time.time() - left.stat().st_mtime > 60  # a recent file may belong to a process on another host
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
    """The one-line error for a failed write to `path`."""
    kind = BadInput if error.errno in _BAD_PATH else RunFault
    return kind(f"cannot write {path}: {error.strerror or error}; {remedy(error)}")


def remedy(error: OSError) -> str:
    """What the user can do about this error."""
    return _REMEDY.get(error.errno or 0, "fix that, or give a path that can be written to")


def write_whole(path: str | Path, content: bytes | str) -> None:
    """Atomically replace the content of `path`.

    Text is written as UTF-8. Bytes of a file name that are not UTF-8, which Python represents as lone surrogates, are
    escaped, as in \\udce9."""
    with whole_file(path) as file:
        file.write(escaped(content).encode() if isinstance(content, str) else content)


def escaped(text: str) -> str:
    """The text with lone surrogates escaped, so that it can be encoded as UTF-8."""
    return text.encode(errors="backslashreplace").decode()


@contextlib.contextmanager
def named_in_utf8(path: str | Path) -> Iterator[str]:
    """A path to the same file or folder for libraries that only accept UTF-8, valid inside the block."""
    if escaped(str(path)) == str(path):
        yield str(path)
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield f"/dev/fd/{descriptor}"
    finally:
        os.close(descriptor)


def write_with_names(path: str | Path, text: str) -> None:
    """Like `write_whole`, but bytes that are not UTF-8 are written unchanged: TOML and CSV have no escape for them."""
    write_whole(path, text.encode(errors="surrogateescape"))


def to_json(obj: Any, indent: int | None = None) -> str:
    """`obj` as JSON text. Raises RunFault for NaN and infinity, which JSON cannot represent.

    Lone surrogates are written as JSON escapes, so every file name survives a round trip."""
    try:
        return escaped(json.dumps(obj, indent=indent, allow_nan=False, ensure_ascii=False))
    except ValueError as error:
        raise RunFault(f"a number to be written is not finite: {obj!r:.200}") from error


def write_json(path: str | Path, obj: Any) -> None:
    """Atomically write `obj` to `path` as indented JSON."""
    write_whole(path, to_json(obj, indent=1) + "\n")


def read_bytes(path: str | Path) -> bytes:
    """The file's content. Raises BadInput if it cannot be read."""
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
    """The file's text, without a byte order mark."""
    content = read_bytes(path)
    if _UTF_16.match(content):
        raise BadInput(f"{path} is UTF-16 text, as some editors and shells of Windows write it; save it as UTF-8")
    try:
        return content.decode(errors=errors).lstrip("\ufeff")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not a text file (byte {error.start} is not UTF-8)") from error


def read_json(path: str | Path, format: str, *older: str) -> dict[str, Any]:
    """The JSON object in a file. Raises BadInput unless its "format" is `format`, such as "nasaug-arch/1", or one of
    the `older` ones."""
    text = _read_text(path)
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInput(
            f"{path}, line {error.lineno}: broken or cut-off JSON ({error.msg}); create the file again"
        ) from error
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits, or excessive nesting
        raise BadInput(f"{path} cannot be read as JSON ({error}); create the file again") from error
    found = content.get("format") if isinstance(content, dict) else None
    if found not in (format, *older):
        raise BadInput(f'{path} has "format" {found!r}, but {format!r} is needed; give a file of that kind')
    return content


def read_toml(path: str | Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises BadInput with file and line if it is malformed.

    Bytes that are not UTF-8 are accepted, because paths in it may contain them."""
    text = _read_text(path, "surrogateescape")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # malformed, thousands of digits, or excessive nesting
        _read_text(path)  # raises the clearer error if the file is not text at all
        raise BadInput(f"{path}: not valid TOML: {error}; correct that line") from error
