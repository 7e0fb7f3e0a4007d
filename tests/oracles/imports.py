"""What a package imports, read from its source: no file is executed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

# From the roof down: a file may import the rooms on its own and on later lines.
FLOORS = [
    {"cli", "face", "__main__"},
    {"explore"},
    {"explore"},
    {"study"},
    {"papers"},
    {"hardening"},
    {"serving"},
    {"report"},
    {"audit"},
    {"evaluation"},
    {"training"},
    {"engines"},
    {"measuring"},
    {"defenses"},
    {"bounds"},
    {"attacks"},
    {"attributions"},
    {"neurons"},
    {"models"},
    {"data"},
    {"curvature"},
    {"smoothing", "randomized_smoothing"},
    {"derivatives", "smooth_forms"},
    {"classifier"},
    {"weights"},
    {"calling", "black_box", "quick"},
    {"threat"},
    {
        "arguments",
        "heartbeats",
        "kinds",
        "values",
        "plans",
        "precision",
        "registry",
        "recipes",
        "randomness",
        "readable",
        "run_folders",
        "files",
        "locks",
        "masks",
        "memory",
        "named_data",
        "offline",
        "errors",
        "progress",
        "provenance",
        "stopping",
        "turns",
    },
]
LONGEST = 400


def modules(package: Path) -> dict[str, Path]:
    """Dotted module name -> file, for all of a package folder."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = [package.name, *path.relative_to(package).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _typing_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _statements(tree: ast.AST, inner: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """All import statements; without `inner` those that run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif inner or not (isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _typing_only(node)):
            yield from _statements(node, inner)


def imports(package: Path, *, inner: bool = True) -> dict[str, set[str]]:
    """Module -> the modules of the package that it names in imports (`inner`: in functions too).

    `from package import name` counts as the module `package.name` if there is one, else as the
    package itself.
    """
    known = modules(package)
    graph: dict[str, set[str]] = {}
    for name, path in known.items():
        graph[name] = set()
        for node in _statements(ast.parse(path.read_text(encoding="utf-8")), inner):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            else:
                base = node.module or ""
                if node.level:
                    home = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
                    home = home[: len(home) - node.level + 1]
                    base = ".".join([*home, *([base] if base else [])])
                targets = [f"{base}.{a.name}" if f"{base}.{a.name}" in known else base for a in node.names]
            graph[name] |= {target for target in targets if target in known and target != name}
    return graph


def _floor(module: str) -> int | None:
    room = module.split(".")[1]
    return next((i for i, rooms in enumerate(FLOORS) if room in rooms), None)


def upward(package: Path) -> list[str]:
    """Imports from a lower into an upper room, and rooms that are on no line."""
    found = []
    for name, targets in imports(package).items():
        if name == package.name:
            continue
        here = _floor(name)
        if here is None:
            found.append(f"{name} is in no known room")
            continue
        for target in sorted(targets):
            if target == package.name:
                # `from steadygrad import __version__` is data; all else of the public face is above.
                continue
            there = _floor(target)
            if there is not None and there < here:
                found.append(f"{name} imports {target}")
    return found


def cycles(package: Path) -> list[str]:
    """One circle of module-level imports per entangled group of files."""
    # The face is left out: what files below it take from there is told by `face_users`.
    graph = {k: v - {package.name} for k, v in imports(package, inner=False).items() if k != package.name}
    state: dict[str, int] = {}
    found: list[str] = []

    def visit(name: str, trail: list[str]) -> None:
        state[name] = 1
        for target in sorted(graph[name]):
            if state.get(target) == 1:
                found.append(" -> ".join([*trail[trail.index(target) :], target]))
            elif target not in state:
                visit(target, [*trail, target])
        state[name] = 2

    for name in graph:
        if name not in state:
            visit(name, [name])
    return found


def too_long(package: Path, longest: int = LONGEST) -> list[str]:
    """Files with more lines than allowed."""
    counts = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules(package).items()}
    return [f"{name} has {count} lines" for name, count in counts.items() if count > longest]


def face_users(package: Path) -> list[str]:
    """Files that import more than `__version__` from the public face, which stands above them all."""
    known, found = modules(package), []
    for name, path in known.items():
        for node in _statements(ast.parse(path.read_text(encoding="utf-8")), True):
            if isinstance(node, ast.Import):
                names = [a.name for a in node.names if a.name == package.name]
            elif node.module == package.name and not node.level:
                names = [
                    a.name for a in node.names if f"{package.name}.{a.name}" not in known and a.name != "__version__"
                ]
            else:
                names = []
            found += [f"{name} imports {n} from the public face" for n in names]
    return found
