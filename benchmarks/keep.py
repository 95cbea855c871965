"""Keep the finished cells of an experiment in one small file, and lay them out again on another machine.

    python benchmarks/keep.py FOLDER ROOT FILE.tar.xz             # keep
    python benchmarks/keep.py FOLDER ROOT FILE.tar.xz --restore   # lay out, beside what ROOT already has

An experiment of days outlives the machine that it began on. What pages and later cells read is kept: results, recipes,
logs, arch files and options; weights, pictures and pages are not, so trainings from a search's weights must end before.
The paths of ROOT, of the images (FOLDER), of Python and of the working directory are left open in the file, and filled
in where it is laid out. A file with another absolute path is refused: it would be meaningless elsewhere.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from nasaug.core.files import write_whole
from nasaug.rundirs.folder import RECIPE, RESULT, RunDir

KEPT = {".json", ".jsonl", ".toml", ".csv", ".options"}
ABSOLUTE = re.compile(rb"(?<![\w.>:/-])/[\w.-]+(?:/[\w.-]+)+")
MOST = 8 << 20  # bytes: candidates of a search are some hundred KB


def files(root: Path) -> Iterator[Path]:
    """The files to keep: those beside the cells, and those of finished cells."""
    for each in sorted(root.iterdir()):
        if each.is_file() and each.suffix in KEPT:
            yield each
        elif each.is_dir() and not RunDir(each).finished:
            yield from files(each) if any(each.glob(f"*/{RESULT}")) else ()  # cells in a folder of their own
        elif each.is_dir():
            yield from sorted(f for f in each.rglob("*") if f.is_file() and f.suffix in KEPT)


def keep(paths: Mapping[bytes, bytes], root: Path, file: Path) -> int:
    """Write the file whole, with a mark in place of each of `paths`; returns how many files it holds. Exits if another
    absolute path is left in one."""
    names = list(files(root))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:xz") as tar:
        for path in names:
            data = path.read_bytes()
            for mark, place in paths.items():
                data = data.replace(place, mark)
            if left := ABSOLUTE.search(data):
                raise SystemExit(f"{path} names {left[0].decode()}, which is neither in ROOT nor in FOLDER; correct it")
            entry = tarfile.TarInfo(str(path.relative_to(root)))
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, out.getvalue())
    return len(names)


def restore(paths: Mapping[bytes, bytes], root: Path, file: Path) -> int:
    """Lay out the files that ROOT has not; returns how many. A cell that has been begun there is left as it is."""
    laid, begun = 0, {recipe.parent for recipe in root.rglob(RECIPE)}
    with tarfile.open(file) as tar:
        for entry in tar:
            path = root / tarfile.data_filter(entry, str(root)).name
            if not entry.isfile() or entry.size > MOST or path.exists() or begun & {*path.parents}:
                continue
            content = tar.extractfile(entry)
            assert content is not None
            data = content.read()
            for mark, place in paths.items():
                data = data.replace(mark, place)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            laid += 1
    return laid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("root", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--restore", action="store_true")
    o = parser.parse_args()
    root = o.root.resolve()
    places = {"ROOT": root, "FOLDER": o.folder.resolve(), "PYTHON": sys.executable, "HERE": Path.cwd()}
    paths = {f"<{name}>".encode(): str(place).encode() for name, place in places.items()}
    if o.restore:
        print(f"{restore(paths, root, o.file)} files laid out in {root}")
    else:
        print(f"{keep(paths, root, o.file)} files kept in {o.file}, {o.file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
