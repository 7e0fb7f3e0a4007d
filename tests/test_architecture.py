"""The order of the rooms: imports run downwards, without circles, in short files, lightly."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import steadygrad
from oracles import imports

PACKAGE = Path(steadygrad.__file__).parent

HEAVY = [
    "accelerate",
    "alembic",
    "datasets",
    "fastapi",
    "filelock",
    "huggingface_hub",
    "jinja2",
    "matplotlib",
    "pandas",
    "pyarrow",
    "pydantic",
    "ray",
    "rich",
    "safetensors",
    "scipy",
    "sklearn",
    "sqlmodel",
    "statsmodels",
    "timm",
    "torchvision",
    "typer",
    "uvicorn",
]


def test_imports_run_downwards():
    assert imports.upward(PACKAGE) == []


def test_there_is_no_circle_of_imports():
    assert imports.cycles(PACKAGE) == []


def test_no_file_imports_from_the_public_face():
    assert imports.face_users(PACKAGE) == []


def test_files_are_short():
    assert imports.too_long(PACKAGE) == []


def _loaded_by(statement: str, *paths: Path) -> set[str]:
    code = f"import sys; sys.path[:0] = {[str(p) for p in paths]}; {statement}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in run.stdout.split()}


@pytest.mark.slow
def test_the_library_needs_torch_and_numpy_only():
    # torch may bring some of these along by itself.
    added = _loaded_by("from steadygrad import *", PACKAGE.parent) - _loaded_by("import torch, numpy")
    assert sorted(added & set(HEAVY)) == []


def test_the_import_alone_loads_neither():
    assert not {"torch", "numpy"} & _loaded_by("import steadygrad", PACKAGE.parent)


@pytest.mark.parametrize(
    "statement",
    [
        "import steadygrad as sg; found = sg.audit",
        "import steadygrad.audit.audit, steadygrad as sg; found = sg.audit",
        "from steadygrad.audit.audit_plan import AuditPlan; from steadygrad import audit as found",
        "from steadygrad import *; found = audit; found(linf, Classifier) if False else None",
    ],
)
@pytest.mark.slow
def test_the_function_keeps_its_name_whatever_is_imported_before(statement):
    _loaded_by(f"{statement}; assert callable(found)", PACKAGE.parent)


def test_the_names_of_the_face_are_told():
    assert {"audit", "linf", "Classifier", "attacks"} <= set(dir(steadygrad))
    assert set(steadygrad.__all__) <= set(dir(steadygrad))
    with pytest.raises(AttributeError, match="no attribute 'audits'"):
        _ = steadygrad.audits


# The checks can fail


def _tree(folder: Path, **files: str) -> Path:
    package = folder / "steadygrad"
    for name, text in {"__init__": "", **files}.items():
        path = package / f"{name.replace('__in__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return package


@pytest.mark.parametrize(
    "text",
    [
        "import steadygrad.attacks.engine",
        "from steadygrad.attacks import engine",
        "from steadygrad.attacks.engine import run",
        "from .attacks.engine import run",
        "from .attacks import engine",
        "def f():\n    from steadygrad.attacks.engine import run",
        "class A:\n    def f(self):\n        import steadygrad.attacks.engine as e",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from steadygrad.attacks import engine",
    ],
)
def test_an_import_upwards_is_found(tmp_path, text):
    package = _tree(tmp_path, attacks__in____init__="", attacks__in__engine="", threat=text)
    assert imports.upward(package) == ["steadygrad.threat imports steadygrad.attacks.engine"]


def test_an_import_downwards_or_within_a_room_is_none(tmp_path):
    package = _tree(
        tmp_path,
        attacks__in____init__="from .engine import run",
        attacks__in__engine="from .. import threat\nfrom ..errors import x\nfrom .base import y",
        attacks__in__base="import torch\nfrom steadygrad import __version__",
        threat="from steadygrad import errors",
        errors="",
    )
    assert imports.upward(package) == []
    assert imports.cycles(package) == []
    assert imports.face_users(package) == []


def test_an_unknown_room_is_found(tmp_path):
    assert imports.upward(_tree(tmp_path, utils="")) == ["steadygrad.utils is in no known room"]


def test_a_circle_is_found(tmp_path):
    package = _tree(
        tmp_path,
        data__in____init__="",
        data__in__a="from . import b",
        data__in__b="from steadygrad.data.c import x",
        data__in__c="try:\n    import steadygrad.data.a\nexcept ImportError:\n    pass",
    )
    circle = ["steadygrad.data.a -> steadygrad.data.b -> steadygrad.data.c -> steadygrad.data.a"]
    assert imports.cycles(package) == circle


def test_a_circle_broken_by_a_function_is_none(tmp_path):
    package = _tree(
        tmp_path,
        data__in____init__="",
        data__in__a="from . import b",
        data__in__b="def f():\n    from . import a",
    )
    assert imports.cycles(package) == []


@pytest.mark.parametrize(
    "text", ["from steadygrad import linf", "import steadygrad", "def f():\n    from steadygrad import linf"]
)
def test_an_import_from_the_public_face_is_found(tmp_path, text):
    package = _tree(tmp_path, threat=text)
    assert len(imports.face_users(package)) == 1


def test_a_long_file_is_found(tmp_path):
    package = _tree(tmp_path, threat="\n" * 401, errors="\n" * 400)
    assert imports.too_long(package) == ["steadygrad.threat has 401 lines"]


def test_a_heavy_import_is_found(tmp_path):
    (tmp_path / "heavy.py").write_text("import safetensors")
    assert "safetensors" in _loaded_by("import heavy", tmp_path)
