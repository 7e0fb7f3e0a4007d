"""Every example in a docstring runs and gives what it says."""

from __future__ import annotations

import doctest
import importlib.util
import inspect
from pathlib import Path

import pytest

import steadygrad
from oracles import imports

PACKAGES = {"": Path(steadygrad.__file__).parent, "benchmarks.": Path(__file__).parents[1] / "benchmarks" / "attacks"}
MODULES = [
    f"{above}{name}" for above, folder in PACKAGES.items() for name in imports.modules(folder) if "__main__" not in name
]
# Rooms whose libraries come with an extra: their modules cannot be imported without.
if importlib.util.find_spec("fastapi") is None:
    MODULES = [name for name in MODULES if name.split(".")[1:2] not in (["serving"], ["study"], ["explore"])]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Finder(doctest.DocTestFinder):
    """Finds the examples of decorated functions too, whose globals are those of the decorator."""

    def _from_module(self, module, object):
        return super()._from_module(module, inspect.unwrap(object) if inspect.isfunction(object) else object)


def examples(name: str) -> list[doctest.DocTest]:
    return [test for test in Finder().find(importlib.import_module(name), name) if test.examples]


@pytest.mark.parametrize("name", MODULES)
def test_examples_hold(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    for test in examples(name):
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


def test_examples_of_decorated_functions_are_found():
    found = {test.name for test in examples("steadygrad.neurons.switching")}
    assert "steadygrad.neurons.switching.switched_off" in found


def test_a_wrong_example_fails():
    def wrong() -> None:
        """Claims that 1 + 1 is 3.

        >>> 1 + 1
        3
        """

    test = doctest.DocTestFinder().find(wrong, "wrong", globs={})[0]
    assert doctest.DocTestRunner(verbose=False).run(test, out=lambda _: None).failed == 1
