"""What a result depends on besides its inputs: the code that computes it, and the weights and code of models."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import sys
import sysconfig
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from steadygrad.files import key

_STARTED = time.time()
_PROCESS = uuid.uuid4().hex
_PACKAGE = __name__.partition(".")[0]
_INSTALLED = [Path(sysconfig.get_paths()[name]).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")]

# What PyTorch keeps in every module, but for the hooks that take part in a forward; and names for the reader.
_INCIDENTAL = {*vars(nn.Module()), "training", "name", "architecture"} - {"_forward_hooks", "_forward_pre_hooks"}


@dataclass(frozen=True)
class ModelKey:
    """A hash of a model's weights, settings and code, and the names of what has no source that can be read.

    The hash of a model with such parts holds for this process only.
    """

    value: str
    unreadable: tuple[str, ...] = ()


def model_key(model: nn.Module, version: str = "") -> ModelKey:
    """Hash the tensors of a model, the settings of its modules, and the source of its classes and callables.

    Args:
        version: stands for the code that cannot be read, such as classes typed into a prompt.

    >>> model_key(nn.Linear(2, 2)).unreadable
    ()
    """
    code, unreadable = _code(model)
    parts = [weights_key(model), code, (version or _PROCESS) if unreadable else ""]
    return ModelKey(key(*parts), () if version else unreadable)


def model_code(model: nn.Module) -> str:
    """A hash of the settings of a model's modules and of the source of its classes and callables, without weights.

    Code that cannot be read gives a hash that holds for this process only.
    """
    code, unreadable = _code(model)
    return key(code, _PROCESS if unreadable else "")


def _code(model: nn.Module) -> tuple[str, tuple[str, ...]]:
    reader = _Reader()
    structure = [(name, reader.instance(module)) for name, module in model.named_modules()]
    return key(structure, sorted(reader.code())), tuple(sorted(reader.unreadable))


def weights_key(model: nn.Module) -> str:
    """A hash of all tensors of a model by name; buffers that are not saved count too."""
    digest = hashlib.sha256()
    for name, value in {**model.state_dict(), **dict(model.named_buffers())}.items():
        if isinstance(value, Tensor):
            digest.update(f"{name} {_tensor(value)}".encode())
    return digest.hexdigest()[:20]


def code_of(*objects: Any) -> str:
    """A hash of the sources of classes and of all of this library's files that these import, comments left out.

    >>> code_of(nn.Linear) == code_of(nn.Linear)
    True
    """
    reader = _Reader()
    for value in objects:
        reader.callable(value)
    return key(sorted(reader.code()))


def _tensor(value: Tensor) -> str:
    plain = value.detach().cpu().contiguous().view(-1)
    if plain.is_quantized:
        plain = plain.int_repr()
    return f"{tuple(value.shape)} {value.dtype} {hashlib.sha256(plain.view(torch.uint8).numpy().data).hexdigest()}"


class _Reader:
    """Collects the code that objects run on."""

    def __init__(self) -> None:
        self.unreadable: set[str] = set()
        self._files: set[Path] = set()
        self._bytecode: set[str] = set()
        self._installed: set[str] = set()
        self._seen: set[int] = set()

    def code(self) -> Iterator[str]:
        """One line for each file, function and package that was met."""
        files = _closure(frozenset(self._files))
        yield from (f"{path.name} {_parsed(path)}" for path in files)
        # A file that was changed after this process began need not be what runs here.
        yield from (f"{path.name} {_PROCESS}" for path in files if path.stat().st_mtime > _STARTED)
        yield from self._bytecode
        yield from self._installed

    def instance(self, value: Any) -> Any:
        """An object as plain data; its class and all callables in it are read."""
        self.callable(type(value))
        if getattr(value, "opaque", False):
            self.unreadable.add(f"the function in a {type(value).__name__}")
        if isinstance(value, torch.jit.ScriptModule):
            self.unreadable.add(f"the scripted module {value.original_name}")
            return value.original_name
        return [(name, self._plain(part, 4)) for name, part in sorted(vars(value).items()) if name not in _INCIDENTAL]

    def _plain(self, value: Any, depth: int) -> Any:
        if value is None or isinstance(value, bool | int | float | complex | str | bytes):
            return repr(value)
        if isinstance(value, Tensor):
            return _tensor(value)
        if isinstance(value, np.ndarray):
            return f"{value.shape} {value.dtype} {hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()}"
        if isinstance(value, nn.Module):
            return type(value).__qualname__  # named_modules() reads its inside
        if callable(value):
            return self.callable(value)
        if isinstance(value, Mapping):
            return [(repr(name), self._plain(part, depth - 1)) for name, part in value.items()] if depth else ""
        if isinstance(value, list | tuple | set | frozenset):
            ordered = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
            return [type(value).__name__, *(self._plain(part, depth - 1) for part in ordered)] if depth else ""
        inside = getattr(value, "__dict__", None)
        if not inside or not depth:
            plain = isinstance(value, torch.dtype | torch.device | slice | Path)
            return repr(value) if plain else type(value).__qualname__
        self.callable(type(value))
        return [type(value).__qualname__, [(n, self._plain(v, depth - 1)) for n, v in sorted(inside.items())]]

    def callable(self, value: Any) -> str:
        """The name of a class, function, partial or callable object, whose source is read."""
        if isinstance(value, functools.partial):
            return repr([self.callable(value.func), self._plain(value.args, 4), self._plain(value.keywords, 4)])
        if isinstance(value, MethodType):
            return self.callable(value.__func__)
        if not isinstance(value, type | FunctionType):
            if not isinstance(getattr(value, "__qualname__", None), str):
                return repr(
                    [type(value).__qualname__, self._plain(vars(value), 3) if hasattr(value, "__dict__") else ""]
                )
            return self._compiled(value)
        name = f"{value.__module__}.{value.__qualname__}"
        if id(value) in self._seen:
            return name
        self._seen.add(id(value))
        for base in value.__bases__ if isinstance(value, type) else ():
            if base is not object:
                self.callable(base)
        self._read(value, name)
        return name

    def _compiled(self, value: Any) -> str:
        self._installed.add(f"{value.__qualname__} {_version(str(getattr(value, '__module__', '')))}")
        return str(value.__qualname__)

    def _read(self, value: type | FunctionType, name: str) -> None:
        module = value.__module__
        file = getattr(sys.modules.get(module), "__file__", None)
        if module in sys.builtin_module_names or (module != "__main__" and file is not None and not _own(Path(file))):
            self._installed.add(f"{name} {_version(module)}")
            return
        if file is None or any(not Path(function.__code__.co_filename).is_file() for function in _written(value)):
            self.unreadable.add(name)
            return
        self._files.add(Path(file).resolve())
        if module.partition(".")[0] != _PACKAGE:
            # What runs may be older than the file, after an edit in a notebook.
            self._bytecode.add(f"{name} {key(sorted(str(_instructions(f.__code__)) for f in _written(value)))}")
            for cell in getattr(value, "__closure__", None) or ():
                self._bytecode.add(f"{name} {self._plain(cell.cell_contents, 3)}")


def _written(value: type | FunctionType) -> list[FunctionType]:
    """A function, or those of a class that somebody wrote: decorators such as dataclass make others."""
    if isinstance(value, FunctionType):
        return [value]
    return [f for n, f in vars(value).items() if isinstance(f, FunctionType) and not (n[:2] == n[-2:] == "__")]


def _instructions(code: CodeType) -> list[Any]:
    inner = [_instructions(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return [code.co_name, code.co_code.hex(), inner, code.co_names]


def _own(path: Path) -> bool:
    """Whether a file belongs to this library or to the user, and not to Python or an installed package."""
    path = path.resolve()
    return path.is_relative_to(Path(__file__).resolve().parents[1]) or not (
        # By name too: an environment may see the packages of another one.
        {"site-packages", "dist-packages"} & {*path.parts} or any(path.is_relative_to(place) for place in _INSTALLED)
    )


@functools.cache
def _version(module: str) -> str:
    try:
        return importlib.metadata.version(module.partition(".")[0])
    except importlib.metadata.PackageNotFoundError:
        return sys.version


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def _parsed(path: Path) -> str:
    """A hash of a file's code without comments, docstrings and layout."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node, clean=False
        ):
            node.body = node.body[1:]
    return key(ast.dump(tree))


@functools.cache
def _closure(files: frozenset[Path]) -> tuple[Path, ...]:
    """These files and all own files that they import, whether at the top or in a function."""
    found, waiting = set(files), list(files)
    while waiting:
        for path in _imported(waiting.pop()):
            if path not in found:
                found.add(path)
                waiting.append(path)
    return tuple(sorted(found))


@functools.cache
def _imported(path: Path) -> frozenset[Path]:
    """The own files that a file imports when it runs."""
    found: set[Path | None] = set()
    for node in _running(_tree(path)):
        if isinstance(node, ast.Import):
            found |= {_file(alias.name, path) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                found |= _named(_module_of(node, path), alias.name, path)
    return frozenset(p for p in found if p is not None)


def _running(tree: ast.Module) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING:`, which never run."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        typing = isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        waiting += node.orelse if typing else ast.iter_child_nodes(node)  # type: ignore[attr-defined]


def _module_of(node: ast.ImportFrom, path: Path) -> str:
    """The dotted name of the module from which a statement in a file imports."""
    package = _package_of(path).split(".") if node.level else []
    return ".".join([*package[: len(package) + 1 - node.level], *([node.module] if node.module else [])])


def _named(module: str, name: str, user: Path) -> set[Path | None]:
    """The files behind `from module import name`: a module, or where a package takes the name from."""
    inner = _file(f"{module}.{name}", user)
    if inner is not None:
        return {inner}
    path = _file(module, user)
    if path is None or path.name != "__init__.py" or not module.startswith(_PACKAGE):
        return {path}
    defined = getattr(getattr(importlib.import_module(module), name, None), "__module__", None)
    place = _file(defined, user) if isinstance(defined, str) and defined.startswith(_PACKAGE) else None
    return {place or _reexported(path, name, user) or path}


def _reexported(path: Path, name: str, user: Path) -> Path | None:
    """The file from which the face of a package takes a name that says not where it is from, such as a constant."""
    for node in _tree(path).body:
        if isinstance(node, ast.ImportFrom) and any((alias.asname or alias.name) == name for alias in node.names):
            return _file(_module_of(node, path), user)
    return None


def _package_of(path: Path) -> str:
    """The dotted name of the package that a file belongs to; empty for one that stands alone."""
    parts: list[str] = []
    folder = path.parent
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    return ".".join(parts)


def _file(module: str, user: Path) -> Path | None:
    """The own source file of a module as a user sees it: one beside it, or on the path; None for all else."""
    beside = user.parent.joinpath(*module.split("."))
    loaded: ModuleType | None = sys.modules.get(module)
    name = getattr(loaded, "__file__", None)
    if name is None:
        for path in (beside.with_suffix(".py"), beside / "__init__.py"):
            if path.is_file():
                return path.resolve()
        try:
            spec = importlib.util.find_spec(module) if module.startswith(f"{_PACKAGE}.") else None
        except (ImportError, ValueError):
            spec = None
        name = spec.origin if spec is not None else None
    path = Path(str(name))
    return path.resolve() if path.suffix == ".py" and path.is_file() and _own(path) else None
