"""Methods go to plain data and flags and come back; wrong names and settings are named."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

import steadygrad as sg
from steadygrad import attacks, attributions, bounds, defenses, engines, registry, values
from steadygrad.attacks import BIM, PGD
from steadygrad.errors import UsageError
from steadygrad.measuring import measures  # noqa: F401  (registers the measures)
from steadygrad.registry import Method, Registry, label_of

ROW = {"summary": "s", "reference": "r", "cost": "1 forward", "soundness": "attack", "order": 1}

REGISTERED = [(rows.kind, row) for rows in registry.registries().values() for row in rows]
NAMES = [f"{kind} {row.name}" for kind, row in REGISTERED]


@dataclass(frozen=True)
class Toy(Method):
    steps: int = 10
    loss: Literal["margin", "ce"] = "margin"
    sizes: tuple[float, ...] = (0.1, 0.2)
    inner: Method | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise UsageError(f"steps must be at least 1, got {self.steps}")


@dataclass(frozen=True)
class Bare(Method):
    width: float
    names: tuple[str, ...] = field(default_factory=tuple)


@pytest.fixture
def toys(monkeypatch) -> Iterator[Registry[Method]]:
    monkeypatch.setattr(registry, "_REGISTRIES", {})
    rows: Registry[Method] = Registry("toy")
    rows.register("toy", **ROW)(Toy)
    rows.register("bare", **ROW, norms=("linf",))(Bare)
    return rows


# Laws of every registered method


def test_every_kind_has_methods():
    kinds = {kind for kind, _ in REGISTERED}
    assert kinds == {"attack", "attribution attack", "attribution", "bound", "defense", "engine", "measure"}


@pytest.mark.parametrize(("kind", "row"), REGISTERED, ids=NAMES)
def test_every_default_survives_plain_data(kind, row):
    required = [name for name, value in row.settings.items() if value == "required"]
    if required:
        with pytest.raises(UsageError, match=required[0]):
            registry.parse(kind, row.name)
        return
    method = registry.build(kind, row.name)
    plain = registry.describe(method)
    # As it is after a trip through a file.
    settings = json.loads(json.dumps(plain))
    name = settings.pop("name")
    assert name == row.name
    assert registry.build(kind, name, settings) == method
    assert registry.parse(kind, row.name) == method
    assert hash(registry.build(kind, name, settings)) == hash(method)


@pytest.mark.parametrize(("kind", "row"), REGISTERED, ids=NAMES)
def test_every_method_is_a_frozen_value_with_a_full_row(kind, row):
    assert row.method.__dataclass_params__.frozen
    assert issubclass(row.method, Method)
    assert row.summary
    assert row.reference
    assert row.cost
    assert row.order in (0, 1, 2)
    words = ("changes no number",) if kind == "engine" else ("estimate", "attack", "linearized", "certified")
    assert row.soundness in words
    assert set(row.norms) <= {"linf", "l2", "l1", "l0"}


@pytest.mark.parametrize(("kind", "row"), REGISTERED, ids=NAMES)
def test_every_method_refuses_an_unknown_setting(kind, row):
    with pytest.raises(UsageError, match=f"there is no setting of {row.name} 'nonsense'"):
        registry.build(kind, row.name, {"nonsense": 1})


def test_a_new_file_of_a_package_registers_its_methods(toys, tmp_path, monkeypatch):
    package = tmp_path / "games"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "chess.py").write_text(
        f"from steadygrad.registry import Method, _REGISTRIES\n"
        f"@_REGISTRIES['toy'].register('chess', **{ROW})\n"
        f"class Chess(Method): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = toys.discover("games", [str(package)])
    assert list(found) == ["Chess"]
    assert found["Chess"] is toys["chess"].method


PACKAGES = [
    (attacks, attacks.ATTACKS),
    (attributions, attributions.ATTRIBUTIONS),
    (bounds, bounds.BOUNDS),
    (defenses, defenses.DEFENSES),
    (engines, engines.ENGINES),
]


@pytest.mark.parametrize(("package", "rows"), PACKAGES, ids=lambda value: getattr(value, "kind", ""))
def test_every_method_is_found_in_its_package(package, rows):
    for row in rows:
        if row.method.__module__.startswith(package.__name__):
            assert getattr(package, row.method.__name__) is row.method


# Building


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8/255", 8 / 255),
        ("1e-3", 1e-3),
        ("null", None),
        ("true", True),
        ("1_000", 1000),
        ("'ce'", "ce"),
        ('"ce"', "ce"),
        ("[1, 2,]", [1, 2]),
        ("ce", "ce"),
        ("1/0", "1/0"),
        ("a/b", "a/b"),
        ("2020-01-01", "2020-01-01"),
    ],
)
def test_values_are_json_toml_fractions_or_texts(text, value):
    assert registry.parse_value(text) == value


def test_fractions_are_numbers_in_files_as_in_flags():
    written = registry.build("defense", "trades", {"eps": "8/255", "attack": {"name": "pgd", "steps": 3}})
    assert written == registry.parse("defense", "trades:eps=8/255,attack=pgd(steps=3)")
    assert written.eps == 8 / 255


def test_limits_refuse_what_is_beyond_them():
    @dataclass(frozen=True)
    class Limited(Method):
        weight: values.NotNegative = 0.0
        share: values.BelowOne | None = None
        count: values.Count = 1

    Limited()
    for bad, words in (
        ({"weight": -1.0}, "weight must be at least 0 and finite, got -1.0"),
        ({"weight": float("nan")}, "weight must be at least 0"),
        ({"share": 1.0}, r"share must be within \[0, 1\), got 1.0"),
        ({"count": 0}, "count must be at least 1, got 0"),
    ):
        with pytest.raises(UsageError, match=words):
            Limited(**bad)


def test_settings_come_from_mappings_and_flags(toys):
    expected = Toy(steps=3, loss="ce")
    assert registry.build("toy", "toy", {"steps": 3, "loss": "ce"}) == expected
    assert registry.parse("toy", "toy:steps=3,loss=ce") == expected
    assert registry.parse("toy", " toy : steps=3 , loss=ce ,") == expected
    assert registry.parse("toy", "toy") == Toy()
    nested = Toy(steps=3, inner=Toy(steps=2, inner=Bare(width=1.5, names=("a", "b,c"))))
    assert registry.parse("toy", 'toy:inner=toy(steps=2, inner=bare(width=1.5,names=["a","b,c"])),steps=3') == nested
    assert registry.parse("toy", "toy:inner=toy()") == Toy(inner=Toy())


def test_methods_may_hold_methods(toys):
    outer = Toy(inner=Toy(steps=2, inner=Bare(width=1.5, names=("a",))))
    plain = registry.describe(outer)
    assert plain["inner"]["inner"] == {"name": "bare", "width": 1.5, "names": ["a"]}
    settings = {k: v for k, v in plain.items() if k != "name"}
    assert registry.build("toy", "toy", settings) == outer


def test_rows_know_the_defaults(toys):
    assert [row.name for row in toys] == ["toy", "bare"]
    assert toys["toy"].settings == {"steps": 10, "loss": "margin", "sizes": (0.1, 0.2), "inner": None}
    assert toys["bare"].settings == {"width": "required", "names": ()}
    assert registry.describe(Toy())["name"] == "toy"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tyo", "there is no toy 'tyo'; did you mean 'toy'"),
        ("toy:stesp=3", "there is no setting of toy 'stesp'; did you mean 'steps'"),
        ("toy:steps", r"'steps' is not key=value \(example: pgd:steps=10,loss=ce\)"),
        ("toy:steps=many", "^toy: steps must be a whole number, got 'many'$"),
        ("toy:steps=2.5", "toy: steps must be a whole number, got 2.5"),
        ("toy:loss=mse", "^toy: there is no loss 'mse'; .known: ce, margin.$"),
        ("toy:steps=0", r"^toy: steps must be at least 1, got 0$"),
        ("bare", "bare needs width"),
        ("toy:inner=toy(steps=2", "'toy:inner=toy.steps=2': a bracket is not closed"),
        ("toy:inner=toy),steps=(2", "a bracket is not closed, or not opened"),
        ("toy:inner=tyo(steps=2)", "there is no method 'tyo'; did you mean 'toy'"),
        ("toy:inner=toy(steps)", "'steps' is not key=value"),
    ],
)
def test_wrong_flags_are_refused(toys, text, message):
    with pytest.raises(UsageError, match=message):
        registry.parse("toy", text)


def test_an_unknown_inner_method_is_refused(toys):
    with pytest.raises(UsageError, match="there is no method 'bear'; did you mean 'bare'"):
        registry.build("toy", "toy", {"inner": {"name": "bear"}})


def test_a_method_outside_the_registry_cannot_be_described(toys):
    @dataclass(frozen=True)
    class Stranger(Method):
        pass

    with pytest.raises(UsageError, match="Stranger is not registered"):
        registry.describe(Stranger())


def test_methods_are_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Toy().steps = 3  # type: ignore[misc]


def test_labels_show_the_settings_that_differ() -> None:
    assert label_of(PGD()) == "PGD"
    label = label_of(PGD(loss="ce", steps=10))
    assert label.startswith("PGD")
    assert "ce" in label
    assert "10" in label
    assert label_of(sg.attributions.Saliency()) == "Saliency"
    different = [PGD(), PGD(steps=10), PGD(restarts=10), PGD(loss="ce"), PGD(random_start=False), BIM(), BIM(steps=20)]
    assert len({label_of(attack) for attack in different}) == len(different)


@pytest.mark.parametrize(
    ("method", "label"),
    [
        (sg.attributions.Saliency(of="loss"), "Saliency, of=loss"),
        (PGD(random_start=False, restarts=3), "PGD, 3 restarts, random_start=False"),
        (PGD(loss="ce", step=0.1), "PGD ce, step=0.1"),
    ],
)
def test_labels_read_as_they_are_said(method: Any, label: str) -> None:
    assert label_of(method) == label


def test_methods_are_known_before_their_room_is_imported() -> None:
    says = "from steadygrad import registry; print(registry.parse('defense', 'adversarial:eps=8/255').eps)"
    ran = subprocess.run([sys.executable, "-c", says], capture_output=True, text=True, check=True)
    assert float(ran.stdout) == 8 / 255


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UsageError, match=r"kind 'atack'; did you mean 'attack'"):
        registry.parse("atack", "pgd")
