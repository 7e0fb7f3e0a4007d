"""What is computed while one drags: what the tables hold, given up when nobody wants it, of the run's models only."""

from __future__ import annotations

import dataclasses
import itertools
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

import steadygrad as sg
from explore.conftest import NAME, models
from steadygrad.errors import UsageError
from steadygrad.explore import live as module
from steadygrad.explore.latest import Latest, Superseded, ended
from steadygrad.explore.live import STEPS, Live
from steadygrad.explore.opened import open_run

LEAD = "PGD, 5 steps"


def wanted() -> bool:
    return False


def _shown(live: Live) -> str:
    return next(iter(live.run.gallery()["first"]))


def test_what_is_computed_is_what_the_tables_hold(live: Live) -> None:
    name = _shown(live)
    again = Live(live.run)
    again._gallery = {}
    for step in (0, 5, STEPS):
        known, computed = (one.reached(name, LEAD, step, wanted)["first"] for one in (live, again))
        assert (known.tables, computed.tables) == (True, False)
        assert known.prediction == computed.prediction
        assert known.confidence == pytest.approx(computed.confidence, rel=1e-4)
        np.testing.assert_allclose(known.inputs, computed.inputs, atol=1e-6)
        assert list(known.maps) == list(computed.maps) == ["Saliency", "IntegratedGradients"]
        for kind in known.maps:
            np.testing.assert_allclose(known.maps[kind], computed.maps[kind], rtol=1e-4, atol=1e-6)
    assert not live.reached(name, "FGSM", 5, wanted)["first"].tables


def test_the_gallery_stands_for_the_attack_that_led_alone(live: Live) -> None:
    # Beside a model without gradients all are searched blind, and what the gallery holds is another attack's.
    mixed = Live(dataclasses.replace(live.run, gradients={"first": True, NAME: False}))
    assert list(mixed.attacks) == ["Square", "RandomNoise"]
    image = mixed.image(_shown(mixed))
    assert mixed._in_tables("first", image, "Square", 5) is None
    assert mixed._in_tables("first", image, LEAD, 5) is not None


def test_every_model_is_attacked_within_the_radius(live: Live) -> None:
    name = live.run.data.ids[-1]
    found = live.reached(name, LEAD, 7, wanted)
    assert list(found) == ["first", NAME]
    for model, reached in found.items():
        assert reached.before is not None
        assert 0.03 < np.abs(reached.inputs - reached.before.inputs).max() <= live.radius(7) + 1e-6
        logits = live.run.models[model](torch.from_numpy(reached.inputs)[None].float()).detach().softmax(1)
        assert reached.prediction == int(logits.argmax())
        assert reached.confidence == pytest.approx(float(logits.max()), rel=1e-4)
    assert live.reached(name, LEAD, 7, wanted)["first"] is found["first"]  # remembered


def test_neighbors_that_are_computed_together_are_those_computed_alone(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = live.run.data.ids[-1]
    monkeypatch.setattr(module, "_QUICK", 0.0)
    alone = {step: live.reached(name, LEAD, step, wanted)["first"] for step in (8, 9, 10)}
    assert {where[3] for where in live._known} == {0, 8, 9, 10}
    together = Live(live.run)
    together._quick = {("first", LEAD): True}
    together.reached(name, LEAD, 9, wanted)
    assert {where[3] for where in together._known if where[0] == "first"} == {0, 7, 8, 9, 10}
    passes: list[int] = []
    handle = live.run.models["first"].register_forward_hook(lambda *given: passes.append(1))
    for step, found in alone.items():
        near = together._remembered("first", together.image(name), LEAD, step)
        assert near is not None
        assert near.prediction == found.prediction
        np.testing.assert_allclose(near.inputs, found.inputs, atol=1e-6)
        for kind in found.maps:
            np.testing.assert_allclose(near.maps[kind], found.maps[kind], rtol=1e-4, atol=1e-6)
    handle.remove()
    assert passes == []


def test_what_nobody_wants_any_more_is_given_up(live: Live) -> None:
    model, passes = live.run.models["first"], []
    before = model.training
    handle = model.register_forward_hook(lambda *given: passes.append(1))
    for asked in (1, 4):
        passes.clear()
        answers = itertools.chain([False] * asked, itertools.repeat(True))
        with pytest.raises(Superseded):
            live.reached(live.run.data.ids[-1], LEAD, 9, lambda answers=answers: next(answers))  # type: ignore[misc]
        assert len(passes) <= asked
    handle.remove()
    assert not model._forward_pre_hooks
    assert model.training == before
    assert live.reached(live.run.data.ids[-1], LEAD, 9, wanted)["first"].prediction >= 0


def test_a_request_that_waits_leaves_when_a_later_one_comes() -> None:
    latest, came = Latest(), threading.Event()
    first = latest.entered("page", 1)
    left: list[bool] = []

    def wait() -> None:
        came.set()
        with pytest.raises(Superseded), latest.working(first):
            pass
        left.append(True)

    with latest.working(wanted):
        thread = threading.Thread(target=wait)
        thread.start()
        came.wait()
        assert not latest.entered("another page", 5)()
        latest.entered("page", 2)
        thread.join(10)
    assert left == [True]
    assert latest.entered("page", 1)()  # what comes late is not wanted either


def test_passes_are_looked_at_inside_of_the_block_only() -> None:
    model = torch.nn.Linear(2, 2)
    with ended(model, lambda: True), pytest.raises(Superseded):
        model(torch.zeros(1, 2))
    assert model(torch.zeros(1, 2)).shape == (1, 2)


def test_the_audit_tells_what_it_knows_of_a_sample(live: Live) -> None:
    table = live.run.found.distances.where(model="first")
    place = int(np.flatnonzero(np.isfinite(table["distance"]) & (table["certified"] > 0))[0])
    known = live.radii("first", str(table["sample"][place]))
    assert known.found == table["distance"][place]
    assert known.certified == table["certified"][place]
    assert live.radii("first", "own-1").certified is None


def test_other_models_or_data_are_refused(run: Path, tmp_path: Path) -> None:
    data, others = sg.data.load("digits", "test"), models()
    with torch.no_grad():
        next(others[NAME].parameters()).add_(1e-3)
    with pytest.raises(UsageError, match=r"'<b>second</b>' is not the one that was audited"):
        open_run(run, others, data)
    with pytest.raises(UsageError, match=r"data are not those that were audited .*--data"):
        open_run(run, models(), data.take(30))
    with pytest.raises(UsageError, match=r"no run of an audit at .*gone"):
        open_run(tmp_path / "gone", models(), data)


@pytest.mark.parametrize(("attack", "step"), [("PGD-7", 3), (LEAD, -1), (LEAD, STEPS + 1)])
def test_unknown_attacks_and_steps_are_refused(live: Live, attack: str, step: int) -> None:
    with pytest.raises(UsageError, match=r"PGD-7|from 0 to 40"):
        live.reached(_shown(live), attack, step, wanted)
