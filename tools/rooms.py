"""Who imports whom: the rooms of `python/seedbed`, and the arrows between them.

    python tools/rooms.py

Prints for each room, from the top down, the rooms it imports from and the words it takes there.
Fails where an arrow runs up, or takes what the other room does not hand out (its ``__all__`` or
what its ``__init__`` imports).
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).resolve().parent.parent / "python" / "seedbed"

# From the ground up: a room imports from those before it. Files beside the rooms are the faces that
# users see, each with a place of its own.
ROOMS = (
    *("_base", "_jax", "_trace", "_plan", "_run", "_trust", "_match", "_random", "_store"),
    "_ensemble",
    *("filters", "prng", "random", "nn._tree", "nn._call", "nn"),
    *("adapters._shared", "adapters._brainstate", "adapters._nnx", "adapters", "cli", ""),
)

# Arrows that run up all the same: (from, to) and why.
UP = {
    ("_run", ""): "the version that the extension must be of stands in seedbed/__init__.py",
    ("cli", ""): "the same version, shown",
    ("adapters._brainstate", "adapters"): "an ensemble starts each member by the public function",
}


class Arrow(NamedTuple):
    """An import of ``word`` from a room by a file of another."""

    file: str
    source: str
    target: str
    word: str


def room_of(module: str) -> str:
    """The room that a module of the package, named without ``seedbed.``, is in."""
    found = [room for room in ROOMS if room and (module == room or module.startswith(f"{room}."))]
    return max(found, key=len, default="")


def imported(module: str, is_package: bool, source: str) -> list[tuple[str, str]]:
    """What a module imports of the package: the module it is taken from, and the name."""
    parts = module.split(".") if module else []
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        up = node.level - (1 if is_package else 0)
        base = parts[: len(parts) - up] if up else parts
        base = [*base, *(node.module.split(".") if node.module else [])]
        found += [(".".join(base), alias.name) for alias in node.names]
    return found


def handed_out(folder: Path) -> set[str]:
    """The words of a room: ``__all__`` of its ``__init__``, or what that imports."""
    tree = ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def arrows(package: Path = PACKAGE) -> list[Arrow]:
    """All imports of one room by another; ``word`` is the first name below the room."""
    found = []
    for path in sorted(package.rglob("*.py")):
        relative = path.relative_to(package).with_suffix("")
        is_package = relative.name == "__init__"
        module = ".".join(relative.parts[:-1] if is_package else relative.parts)
        source = room_of(module)
        for base, name in imported(module, is_package, path.read_text(encoding="utf-8")):
            full = f"{base}.{name}".strip(".")
            whole = room_of(full)
            # A room that is imported itself hands out its words by attribute.
            target, word = (whole, "") if whole == full else (room_of(base), name)
            if target != source and base not in ("", target):
                word = base.removeprefix(f"{target}.").split(".")[0]
            if target != source:
                found.append(Arrow(str(path.relative_to(package)), source, target, word))
    return found


def faults(found: list[Arrow], package: Path = PACKAGE) -> list[str]:
    """What is wrong with the arrows."""
    wrong = []
    for arrow in found:
        shown = f"{arrow.file} takes {arrow.word or 'all'} of {arrow.target or 'the package'}"
        if ROOMS.index(arrow.target) > ROOMS.index(arrow.source):
            if (arrow.source, arrow.target) not in UP:
                wrong.append(f"up: {shown}")
        folder = package.joinpath(*arrow.target.split("."))
        inside = any(part.startswith("_") for part in arrow.target.split("."))
        if inside and arrow.word and arrow.word not in handed_out(folder):
            wrong.append(f"not handed out: {shown}")
    return wrong


def main() -> int:
    found = arrows()
    by_room: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for arrow in found:
        by_room[arrow.source][arrow.target].add(arrow.word or "*")
    for room in reversed(ROOMS):
        print(room or "seedbed")
        for target in sorted(by_room[room], key=ROOMS.index, reverse=True):
            up = ROOMS.index(target) > ROOMS.index(room)
            mark = f"  (up: {UP.get((room, target), 'no reason')})" if up else ""
            print(f"    -> {target or 'seedbed'}: {', '.join(sorted(by_room[room][target]))}{mark}")
    wrong = faults(found)
    print(*wrong, sep="\n", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
