"""Structure of the package: modules, rooms, imports between rooms, cycles, long functions and modules.

    python benchmarks/structure.py [PACKAGE_FOLDER]

For another commit: `git worktree add ../before COMMIT; python benchmarks/structure.py ../before/nasaug`.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

LONG_FUNCTION, LONG_MODULE = 40, 400  # lines


def modules_of(package: Path) -> dict[str, Path]:
    paths = sorted(package.rglob("*.py"))
    return {".".join(p.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__"): p for p in paths}


def imported(name: str, path: Path, modules: dict[str, Path]) -> set[str]:
    """The modules of the package that a module imports, at any level of its code; not the package itself, which holds
    the version and names all else lazily."""
    here, found = name.split(".") if path.stem == "__init__" else name.split(".")[:-1], set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            above = here[: len(here) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{source}.{alias.name}" for alias in node.names]
            found |= {each if each in modules else source for each in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {each for each in found if each in modules and "." in each} - {name}


def in_cycles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other in a cycle."""
    reach: dict[str, set[str]] = {}
    for start in imports:
        seen, left = set(), [start]
        while left:
            for each in imports[left.pop()]:
                if each not in seen:
                    seen.add(each)
                    left.append(each)
        reach[start] = seen
    groups = {frozenset({b for b in reach[a] if a in reach[b]}) for a in imports if a in reach[a]}
    return sorted(map(sorted, groups))


def functions(path: Path) -> list[tuple[str, int]]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, kinds))
    return [(node.name, node.end_lineno - node.lineno + 1) for node in nodes]


def main() -> None:
    package = Path(sys.argv[1] if len(sys.argv) > 1 else "nasaug").resolve()
    modules = modules_of(package)
    room = {name: name.split(".")[1] if name.count(".") else "" for name in modules}
    rooms = {name for name in room.values() if (package / name).is_dir() and name}
    top = [path.name for path in package.glob("*.py")]
    imports = {name: imported(name, path, modules) for name, path in modules.items()}
    arrows = {(room[a], room[b]) for a, others in imports.items() for b in others if room[a] != room[b]}
    within = {pair for pair in arrows if set(pair) <= rooms}
    lines = {name: len(path.read_text("utf-8").splitlines()) for name, path in modules.items()}
    sizes = ((n, f"{m}.{f}") for m, p in modules.items() for f, n in functions(p))
    long = sorted((each for each in sizes if each[0] > LONG_FUNCTION), reverse=True)
    print(f"modules: {len(modules)}, {len(top)} of them at the top; lines: {sum(lines.values())}")
    print(f"rooms: {len(rooms)}; import arrows between rooms: {len(within)}, with modules at the top: {len(arrows)}")
    cycles = in_cycles(imports)
    print(f"cycles of modules: {len(cycles)}", *("  " + " ".join(cycle) for cycle in cycles), sep="\n")
    print(f"functions over {LONG_FUNCTION} lines: {len(long)}", *(f"  {n} {name}" for n, name in long), sep="\n")
    large = sorted(((n, name) for name, n in lines.items() if n > LONG_MODULE), reverse=True)
    print(f"modules over {LONG_MODULE} lines: {len(large)}", *(f"  {n} {name}" for n, name in large), sep="\n")


if __name__ == "__main__":
    main()
