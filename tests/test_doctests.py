"""Every example in a docstring runs and gives what it says."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import steadygrad
from oracles import imports

PACKAGES = {"": Path(steadygrad.__file__).parent, "benchmarks.": Path(__file__).parents[1] / "benchmarks" / "attacks"}
MODULES = [
    f"{above}{name}" for above, folder in PACKAGES.items() for name in imports.modules(folder) if "__main__" not in name
]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.mark.parametrize("name", MODULES)
def test_examples_hold(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failures, _ = doctest.testmod(importlib.import_module(name), optionflags=FLAGS)
    assert failures == 0


def test_a_wrong_example_fails():
    def wrong() -> None:
        """Claims that 1 + 1 is 3.

        >>> 1 + 1
        3
        """

    test = doctest.DocTestFinder().find(wrong, "wrong", globs={})[0]
    assert doctest.DocTestRunner(verbose=False).run(test, out=lambda _: None).failed == 1
