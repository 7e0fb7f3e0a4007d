"""What the key of a result follows: weights, settings and code of models, and the sources of measures."""

from __future__ import annotations

import functools
import importlib
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import nets
import steadygrad
from audit import victims
from steadygrad.classifier import Classifier
from steadygrad.measuring import code_keys
from steadygrad.measuring.code_keys import code_of, model_code, model_key, weights_key

NET = """
import torch
from torch import nn
{helper}
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 2)
        with torch.no_grad():
            for p in self.parameters(): p.fill_(.1)
    def forward(self, x):
        {comment}
        return {body}
"""


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes a module as a user's file and imports it afresh, as a new process would."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(code_keys, "_STARTED", float("inf"))
    names: set[str] = set()

    def write(name: str, text: str) -> ModuleType:
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        names.add(name)
        for cached in (code_keys._parsed, code_keys._tree, code_keys._closure, code_keys._imported):
            cached.cache_clear()
        for known in names:
            sys.modules.pop(known, None)
        importlib.invalidate_caches()
        sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
        try:
            return importlib.import_module(name)
        finally:
            sys.dont_write_bytecode = before

    yield write
    for name in names:
        sys.modules.pop(name, None)


def _net(helper: str = "", body: str = "self.lin(x.flatten(1))", comment: str = "") -> str:
    return NET.format(helper=helper, body=body, comment=comment)


def test_an_edited_forward_changes_the_key_and_a_comment_does_not(written) -> None:
    plain = model_key(written("nets", _net()).Net())
    commented = model_key(written("nets", "# a word\n" + _net(comment="# another one")).Net())
    documented = model_key(written("nets", '"""What it is."""\n' + _net()).Net())
    edited = model_key(written("nets", _net(body="self.lin(1 - x.flatten(1))")).Net())
    assert plain == commented == documented
    assert plain.value != edited.value
    assert plain.unreadable == ()


def test_an_edited_helper_in_another_own_file_changes_the_key(written) -> None:
    written("helpers", "def scaled(x):\n    return x\n")
    helper, body = "from helpers import scaled", "self.lin(scaled(x).flatten(1))"
    before = model_key(written("nets", _net(helper, body)).Net()).value
    written("helpers", "def scaled(x):\n    return 2 * x\n")
    assert model_key(written("nets", _net(helper, body)).Net()).value != before


def test_a_helper_that_is_imported_within_a_function_counts(written) -> None:
    written("helpers", "FACTOR = 1\n")
    body = "self.lin(x.flatten(1) * __import__('helpers').FACTOR)"  # not seen: no import statement
    lazy = "def factor():\n    import helpers\n    return helpers.FACTOR\n"
    before = model_key(written("nets", _net(lazy, body)).Net()).value
    written("helpers", "FACTOR = 2\n")
    assert model_key(written("nets", _net(lazy, body)).Net()).value != before


def test_an_import_for_annotations_alone_does_not_count(written) -> None:
    keys = []
    for guard in ("if TYPE_CHECKING:", "if not TYPE_CHECKING:", "if TYPE_CHECKING:\n    pass\nelse:"):
        helper = f"from typing import TYPE_CHECKING\n{guard}\n    import helpers"
        for factor in (1, 2):
            written("helpers", f"FACTOR = {factor}\n")
            keys.append(model_key(written("nets", _net(helper)).Net()).value)
    assert keys[0] == keys[1]
    assert keys[2] != keys[3]
    assert keys[4] != keys[5]


def test_what_a_measure_is_made_by_does_not_depend_on_the_loop_over_samples() -> None:
    from steadygrad.measuring import measures, runner

    loop = Path(runner.__file__).resolve()
    files = [path for path in Path(measures.__file__).resolve().parent.glob("*.py") if path.stem != "__init__"]
    assert len(files) > 15
    assert [path.name for path in files if loop in code_keys._closure(frozenset({path}))] == []


def test_what_runs_counts_where_the_file_was_edited_under_a_running_process(written, tmp_path: Path) -> None:
    old = written("nets", _net()).Net()
    before = model_key(old).value
    new = written("nets", _net(body="self.lin(2 * x.flatten(1))")).Net()
    # The old class is still alive; the file beside it says what the new one does.
    assert model_key(old).value not in (before, model_key(new).value)


class _Calls(nn.Module):
    def __init__(self, act: object) -> None:
        super().__init__()
        self.act = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(x)  # type: ignore[operator,no-any-return]


def _scaled(factor: float):
    return lambda x: x * factor


CALLABLES = {
    "builtin": (torch.relu, torch.tanh),
    "function": (F.relu, F.gelu),
    "partial": (
        functools.partial(F.leaky_relu, negative_slope=0.1),
        functools.partial(F.leaky_relu, negative_slope=0.2),
    ),
    "lambda": (lambda x: x + 1, lambda x: x + 2),
    "closure": (_scaled(2.0), _scaled(3.0)),
    "module in a list": ([nn.ReLU()], [nn.Tanh()]),
    "nested settings": ({"a": [1, 2]}, {"a": [1, 3]}),
    "tensor": (torch.zeros(2), torch.ones(2)),
    "method": (nn.ReLU().forward, nn.Tanh().forward),
}


@pytest.mark.parametrize("kind", CALLABLES)
def test_a_callable_or_setting_kept_as_an_attribute_counts(kind: str) -> None:
    one, other = CALLABLES[kind]
    keys = [model_key(_Calls(value)).value for value in (one, other, one)]
    assert keys[0] == keys[2] != keys[1]


def test_private_settings_and_hooks_count() -> None:
    model, other = _Calls(torch.relu), _Calls(torch.relu)
    other._level = 3  # type: ignore[assignment]
    assert model_key(model) != model_key(other)
    before = model_key(model)
    handle = model.register_forward_hook(lambda m, x, y: 2 * y)
    assert model_key(model) != before
    handle.remove()
    assert model_key(model) == before


def test_weights_and_buffers_count_and_modes_do_not() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    before = model_key(model)
    assert model_key(model.train()) == model_key(model.eval()) == before
    with torch.no_grad():
        model[1].running_mean[0] += 1
    assert model_key(model) != before
    assert model_code(model) == model_code(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)))
    assert weights_key(model) != weights_key(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)))
    assert model_key(_classifier()) == model_key(_classifier(name="b")) == model_key(_classifier().train())


def _classifier(activation: type[nn.Module] = nn.ReLU, **settings: Any) -> Classifier:
    return Classifier(nets.build(activation=activation), **{"classes": 3, "name": "a", **settings})


DIFFERENT: dict[str, tuple[nn.Module, nn.Module]] = {
    "weights": (nets.build(), nets.build(seed=1)),
    "layers without tensors": (_classifier(), _classifier(nn.Tanh)),
    "a setting of a layer": (nn.LeakyReLU(0.1), nn.LeakyReLU(0.2)),
    "normalization": (_classifier(), _classifier(mean=0.5)),
    "bounds": (_classifier(), _classifier(bounds=(-1.0, 1.0))),
    "a plain attribute": (victims.Sharp(nets.build(), 2.0), victims.Sharp(nets.build(), 3.0)),
    "type of the numbers": (nets.build(), nets.build(dtype=torch.float64)),
}


@pytest.mark.parametrize("kind", DIFFERENT)
def test_models_that_compute_something_else_have_other_keys(kind: str) -> None:
    a, b = DIFFERENT[kind]
    assert model_key(a).value != model_key(b).value


@pytest.mark.parametrize("of", [weights_key, lambda model: model_key(model).value], ids=["weights", "model"])
def test_a_buffer_that_is_not_saved_counts(of: Any) -> None:
    a, b = nn.Module(), nn.Module()
    a.register_buffer("mask", torch.zeros(2), persistent=False)
    b.register_buffer("mask", torch.ones(2), persistent=False)
    assert of(a) != of(b)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("kind", ["typed", "scripted"])
def test_code_that_cannot_be_read_is_named_and_holds_for_this_process_unless_a_version_is_given(kind: str) -> None:
    if kind == "typed":
        room: dict[str, object] = {"__name__": "__main__", "nn": nn}
        exec("class Typed(nn.Module):\n    def forward(self, x): return x", room)
        model = room["Typed"]()  # type: ignore[operator]
    else:
        model = torch.jit.script(nn.Linear(2, 2))
    found = model_key(model)
    assert len(found.unreadable) >= 1
    assert found == model_key(model)
    other = model_key(model, version="1")
    assert other.unreadable == ()
    assert other.value != model_key(model, version="2").value


SCRIPT = """
import json, sys
from steadygrad.attacks import PGD
from steadygrad.attributions import Saliency
from steadygrad.measuring.measure import MEASURES, depends_on
from steadygrad.measuring.measures import attacked, behavior, curve, gradient_norms, map_stability, planted, rho2
from steadygrad.threat import linf
a, t = PGD(), linf(.1)
named = dict(
    attacked=attacked.Attacked(a, t), curve=curve.Curve(a, t, (.1,)), rho2=rho2.Rho2(),
    planted=planted.PlantedFound(a, t), gradients=gradient_norms.GradientNorms(), behavior=behavior.Repeated(),
    maps=map_stability.MapStability((Saliency(),), a, t),
)
print(json.dumps({name: depends_on(measure) for name, measure in named.items()}))
"""


@pytest.mark.slow
def test_an_edit_reaches_the_measures_that_depend_on_it_and_no_others(tmp_path: Path) -> None:
    import json

    root = Path(steadygrad.__file__).parent
    package = tmp_path / "steadygrad"
    shutil.copytree(root, package, ignore=shutil.ignore_patterns("__pycache__"))

    def keys() -> dict[str, str]:
        command = [sys.executable, "-B", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{SCRIPT}"]
        ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
        found: dict[str, str] = json.loads(ran.stdout)
        return found

    last = [keys()]

    def changed(text: str, *files: str) -> set[str]:
        for file in files:
            path = package / file
            path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")
        last.append(keys())
        return {name for name in last[-1] if last[-1][name] != last[-2][name]}

    assert changed("\n_EDITED = 1\n", "measuring/measures/curve.py") == {"curve"}
    assert changed("\n# a comment\n", "measuring/measures/curve.py", "attacks/pgd.py", "papers/study.py") == set()
    assert changed("\n_EDITED = 1\n", "papers/study.py", "report/blocks.py", "training/loop.py") == set()
    assert changed("\n_EDITED = 2\n", "attacks/square.py", "attributions/similarity.py") == {"planted", "maps"}
    assert changed("\n_EDITED = 2\n", "attacks/pgd.py") >= {"attacked", "curve", "planted", "maps"}
    assert changed("\n_EDITED = 2\n", "classifier.py") == set(last[0])


def test_the_sources_of_a_method_reach_what_it_imports() -> None:
    from steadygrad.attacks import FGSM, PGD

    own = Path(str(sys.modules[PGD.__module__].__file__)).resolve()
    files = {path.name for path in code_keys._closure(frozenset({own}))}
    assert {"pgd.py", "run.py", "threat.py", "classifier.py"} <= files
    assert not files & {"carlini_wagner.py", "runner.py", "audit.py"}
    assert code_of(PGD) != code_of(FGSM)
