"""Every check passes on an honest model, and every check fails on a defense or attack broken for it."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

import nets
import steadygrad as sg
from audit import victims
from audit.test_records import table
from steadygrad.attacks import BIM, FGSM, PGD, Attack, RandomNoise, Square
from steadygrad.audit.checks import validity as all_checks
from steadygrad.audit.checks.validity import Subject, beats_noise, checks, finds_planted, validity
from steadygrad.audit.checks.verdict import POINT, Check, Verdict, attack_verdict, share_check, verdict
from steadygrad.audit.records import accuracy
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.errors import UsageError
from steadygrad.files import key
from steadygrad.measuring.measure import Batch, Measure, settings_of
from steadygrad.measuring.measures.attacked import Attacked
from steadygrad.measuring.measures.planted import PlantedFound
from steadygrad.measuring.runner import Runner
from steadygrad.measuring.table import Table

NAMES = (
    "deterministic",
    "scale of the logits",
    "gradient there",
    "iterations help",
    "monotone in eps",
    "unbounded attack wins",
    "steps suffice",
    "beats random noise",
    "beats a blind search",
    "finds a planted point",
    "batch size does not matter",
    "steady under tiny noise",
    "no derivative in the forward",
)
THREAT = sg.linf(0.1)
STRONG, CE = PGD(), PGD(steps=20, loss="ce")


@pytest.fixture(scope="module")
def some(digits: Dataset) -> Dataset:
    return digits.take(120)


def _checks(model: nn.Module, data: Dataset, attack: Attack, threat: sg.Threat = THREAT) -> dict[str, Check]:
    found = validity(model, data, attack, threat)
    assert tuple(c.name for c in found.checks) == NAMES
    failed = [c for c in found.checks if c.passed is False]
    assert found.state == ("refuted" if failed else "holds")
    assert found.text == (
        "number holds" if not failed else "number refuted, because " + "; ".join(c.text for c in failed)
    )
    return {c.name: c for c in found.checks}


@pytest.mark.slow
@pytest.mark.parametrize("threat", [sg.linf(0.06), sg.linf(0.1), sg.l2(0.3)], ids=str)
@pytest.mark.parametrize("attack", [STRONG, PGD(steps=30, loss="dlr", restarts=2)], ids=str)
def test_an_honest_model_under_a_strong_attack_passes_all(
    honest: Classifier, some: Dataset, attack: Attack, threat: sg.Threat
) -> None:
    checks = _checks(honest, some, attack, threat)
    assert all(c.passed for c in checks.values()), [c for c in checks.values() if not c.passed]


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.001, 10.0, 100.0, 1000.0])
def test_the_default_loss_is_trusted_at_any_scale_and_gives_the_same_number(
    honest: Classifier, some: Dataset, factor: float
) -> None:
    scaled = victims.Sharp(honest, factor)
    assert all(c.passed for c in _checks(scaled, some, STRONG).values())
    own, same = (accuracy(sg.evaluate(m, some, STRONG, THREAT)).value for m in (honest, scaled))
    assert abs(own - same) < POINT


Make = Callable[[nn.Module], nn.Module]
BROKEN: dict[str, tuple[Make, Attack, set[str]]] = {
    "cross-entropy on an honest model": (lambda m: m, CE, {"scale of the logits"}),
    "logits x 100 under cross-entropy": (
        lambda m: victims.Sharp(m, 100.0), CE, {"scale of the logits", "gradient there"}
    ),
    "logits x 1000 under cross-entropy": (
        lambda m: victims.Sharp(m, 1000.0), CE,
        {"scale of the logits", "gradient there", "unbounded attack wins", "beats a blind search"},
    ),
    "quantized inputs": (
        victims.Quantized, STRONG, {"gradient there", "beats a blind search", "finds a planted point"}
    ),
    "noise on the logits": (lambda m: victims.Noisy(m, 1.0), STRONG, {"batch size does not matter"}),
    "noise that drowns the logits": (lambda m: victims.Noisy(m, 30.0), STRONG, {"deterministic"}),
    "a ripple on the logits": (victims.Shattered, STRONG, {"steady under tiny noise"}),
    "an optimization in the forward": (victims.Purified, STRONG, {"no derivative in the forward"}),
    "logits centered over the batch": (victims.BatchCentered, STRONG, {"batch size does not matter"}),
    "one short step": (lambda m: m, PGD(steps=1, step=0.05), {"iterations help", "unbounded attack wins"}),
    "too few steps": (lambda m: m, BIM(steps=3, step=0.1), {"iterations help", "steps suffice"}),
    "too few decaying steps": (lambda m: m, PGD(steps=5, step=0.1), {"iterations help", "steps suffice"}),
    "an attack that does nothing": (
        lambda m: m, victims.Idle(), {"unbounded attack wins", "beats a blind search", "finds a planted point"}
    ),
    "an attack that does nothing with much room": (lambda m: m, victims.Idle(), {"beats random noise"}),
    "an attack for small radii only": (
        lambda m: m, victims.Shy(below=0.15), {"monotone in eps", "unbounded attack wins"}
    ),
    "noise as the attack": (lambda m: m, RandomNoise(), {"iterations help"}),
    "a single step as the attack": (lambda m: m, FGSM(), {"iterations help"}),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("odd_attacks")
@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_broken_is_called_so(honest: Classifier, some: Dataset, kind: str) -> None:
    make, attack, expected = BROKEN[kind]
    checks = _checks(make(honest).eval(), some, attack, sg.linf(0.25) if "much room" in kind else THREAT)
    failed = {name for name, check in checks.items() if check.passed is False}
    assert expected <= failed


def test_every_check_is_seen_to_fail() -> None:
    assert set().union(*(names for _, _, names in BROKEN.values())) == set(NAMES)


@pytest.mark.slow
def test_distilled_numbers_are_refuted_side_by_side(honest: Classifier, some: Dataset) -> None:
    # What distillation at temperature 40 leaves behind: the same decisions, logits 40 times as large.
    distilled = victims.Sharp(honest, 40.0)
    by_loss = {loss: sg.evaluate(distilled, some, PGD(steps=20, loss=loss), THREAT) for loss in ("ce", "margin")}
    claimed, true = (accuracy(by_loss[loss]).value for loss in ("ce", "margin"))
    assert claimed > true + 0.2
    assert not validity(distilled, some, CE, THREAT).holds
    assert validity(distilled, some, STRONG, THREAT).holds
    assert not attack_verdict(by_loss["ce"], true, iterative=True).holds
    assert attack_verdict(by_loss["margin"], true, iterative=True).holds


def test_checks_that_do_not_apply_are_left_open(honest: Classifier, some: Dataset) -> None:
    suffice = _checks(honest, some, FGSM())["steps suffice"]
    assert (suffice.passed, suffice.value) == (None, None)
    counted = _checks(honest, some, RandomNoise(), sg.l0(3))
    assert {name for name, check in counted.items() if check.passed is None} == {
        "iterations help", "steps suffice", "beats a blind search", "finds a planted point"
    }  # fmt: skip


def test_values_are_what_separate_runs_measure(honest: Classifier, some: Dataset) -> None:
    attack = PGD(steps=5, step=0.1)
    checks = _checks(honest, some, attack)

    def fell(attack: Attack, eps: float = 0.1, model: nn.Module = honest) -> Any:
        return sg.evaluate(model, some, attack, sg.linf(eps)).frame["success"].to_numpy()

    base = fell(attack)
    assert checks["iterations help"].value == pytest.approx((fell(FGSM()) & ~base).mean())
    assert checks["steps suffice"].value == pytest.approx((fell(PGD(steps=10, step=0.1, restarts=2)) & ~base).mean())
    assert checks["unbounded attack wins"].value == pytest.approx((~fell(attack, eps=1.0)).mean())
    lost = max((fell(attack, 0.05) & ~base).mean(), (base & ~fell(attack, 0.2)).mean())
    assert checks["monotone in eps"].value == pytest.approx(lost)
    moved = [abs(base.mean() - fell(attack, model=victims.Sharp(honest, f)).mean()) for f in (0.01, 100.0)]
    assert checks["scale of the logits"].value == pytest.approx(max(moved))
    assert checks["beats random noise"].value == pytest.approx((fell(RandomNoise()) & ~base).mean())
    assert checks["beats a blind search"].value == pytest.approx((fell(Square(queries=300)) & ~base).mean())
    for name in ("iterations help", "steps suffice", "beats a blind search"):
        assert checks[name].value > 0


def test_a_sample_that_fell_does_not_need_a_gradient(some: Dataset) -> None:
    # A constant model has no gradient anywhere, but the samples it gets wrong are settled.
    constant = victims.Sharp(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), 1.0)
    with torch.no_grad():
        constant.model[1].weight.zero_()
        constant.model[1].bias.copy_(torch.arange(10.0))
    share = float((some.labels == 9).float().mean())
    assert _checks(constant, some, STRONG)["gradient there"].value == pytest.approx(share)


def test_a_sample_that_fell_by_a_lucky_start_is_settled_though_its_gradient_was_zero() -> None:
    stairs = victims.Quantized(victims.Halfspace([1.0], 0.6))
    data = victims.features([[0.45]] * 40, [0] * 40)
    base = sg.evaluate(stairs, data, STRONG, sg.linf(0.3)).frame
    assert base.loc[~base["success"], "zero_gradient"].all()
    assert 0 < base["success"].mean() < 1
    found = _checks(stairs, data, STRONG, sg.linf(0.3))["gradient there"]
    assert found.value == pytest.approx(1 - base["success"].mean())


def _subject(runner: Runner, attack: Attack, count: int, fallen: Any = ()) -> Subject:
    rows, data = tuple(range(count)), runner.data
    base = runner.run(Attacked(attack, THREAT), "m", rows=rows)
    return Subject(runner, "m", 1, attack, THREAT, base, rows, len(data.classes), data.shape, fallen)


def _verdict(subject: Subject) -> Verdict:
    return verdict(checks(subject), subject.base["label"].tolist())


def test_count_bounds_the_samples_and_the_store_keeps_the_work(honest: Classifier, some: Dataset) -> None:
    alone = validity(honest, some, PGD(steps=3), THREAT, count=30)
    first = Runner({"m": honest}, some.draw())
    assert _verdict(_subject(first, PGD(steps=3), 30)) == alone
    computed = first.store.computed
    assert computed > 8
    assert all(len(table) <= 30 for table in first.store._memory.values())
    again = Runner({"m": honest}, some.draw(), first.store)
    assert _verdict(_subject(again, PGD(steps=3), 30)) == alone
    assert first.store.computed == computed


class Hits:
    """A check that hits the samples at some places, and counts its looks at each sample."""

    def __init__(self, places: Sequence[int]) -> None:
        self.places, self.looked = set(places), Counter[int]()

    def __call__(self, subject: Subject) -> Check:
        assert subject.run(Noted())["sample"].tolist() == subject.base["sample"].tolist()
        self.looked.update(subject.rows)
        return share_check("hits", len(self.places & set(subject.rows)), subject.count, "")


@dataclasses.dataclass(frozen=True)
class Noted(Measure):
    """Counts the samples that pass."""

    seen: ClassVar[list[str]] = []

    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> dict[str, Any]:
        Noted.seen.extend(batch.ids)
        return {"place": np.arange(len(batch.x))}


@pytest.mark.parametrize(
    ("count", "places", "looked"),
    [
        (60, [], 60),
        (100, [99], 100),
        (240, [], 100),
        (240, [100, 239], 100),
        (240, [99], 240),
        (330, [109], 330),
        (330, [110], 110),
    ],
)
def test_a_check_goes_on_to_all_samples_if_it_hits_one_of_the_first(
    honest: Classifier, digits: Dataset, count: int, places: list[int], looked: int
) -> None:
    Noted.seen.clear()
    subject, hits = _subject(Runner({"m": honest}, digits.draw()), FGSM(), count), Hits(places)
    found = subject.judged(hits)
    assert found == share_check("hits", len({p for p in places if p < looked}), looked, "")
    assert set(hits.looked) == set(range(looked))
    # Nothing is measured twice.
    assert len(Noted.seen) == len(set(Noted.seen)) == looked


def test_a_table_of_the_audit_is_not_measured_again(honest: Classifier, digits: Dataset) -> None:
    runner = Runner({"m": honest}, digits.draw(150))
    measure = Attacked(RandomNoise(), THREAT)
    known = {key(settings_of(measure)): runner.run(measure, "m")}
    subject = dataclasses.replace(_subject(runner, FGSM(), 150), known=known)
    computed = runner.store.computed
    found = subject.judged(beats_noise)
    assert runner.store.computed == computed
    assert found.limit.endswith("of 100 samples")


@pytest.mark.parametrize(
    ("attack", "passed"), [(PGD(steps=10), True), (FGSM(), True), (BIM(steps=2, step=0.02), False)], ids=str
)
def test_the_check_counts_the_planted_points_that_are_missed(
    honest: Classifier, some: Dataset, attack: Attack, passed: bool
) -> None:
    runner = Runner({"m": honest}, some)
    check = finds_planted(_subject(runner, attack, 60))
    table = runner.run(PlantedFound(attack, THREAT), "m", rows=range(60))
    assert check.passed is passed
    assert check.value == pytest.approx((~table["found"])[table["sure"]].mean())
    assert finds_planted(_subject(runner, attack, 60)) == check


def test_a_model_that_does_not_move_has_nothing_to_find() -> None:
    data = Dataset(nets.inputs(10), torch.zeros(10, dtype=torch.int64), ("a", "b"), tuple("abcdefghij"))
    flat = nn.Sequential(nn.Flatten(), nn.Linear(data.images[0].numel(), 3))
    nn.init.zeros_(flat[1].weight)
    check = finds_planted(_subject(Runner({"m": flat}, data), PGD(), 10))
    assert check.passed is None
    assert "10 of 10" in check.text


@pytest.mark.parametrize("threat", [sg.linf(), sg.linf(torch.tensor([0.1] * 120))], ids=["none", "per sample"])
def test_a_threat_without_one_radius_is_refused(honest: Classifier, some: Dataset, threat: sg.Threat) -> None:
    with pytest.raises(UsageError, match="one radius for all samples"):
        validity(honest, some, STRONG, threat)


ENOUGH = [0, 1] * 15


def test_a_verdict_joins_what_failed() -> None:
    good, open_ = Check("a", True, 0.0, "", "fine"), Check("b", None, None, "", "no steps")
    bad, worse = Check("c", False, 0.5, "", "noise wins"), Check("d", False, 1.0, "", "steps do not suffice")
    assert verdict([good, open_], ENOUGH).text == "number holds"
    found = verdict([bad, good, worse], ENOUGH)
    assert found.state == "refuted"
    assert found.text == "number refuted, because noise wins; steps do not suffice"
    plain: dict[str, Any] = found.plain()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["checks"][0] == {"name": "c", "passed": False, "value": 0.5, "limit": "", "text": "noise wins"}


def _records(left: float, zero: float, count: int = 200) -> Table:
    """`left` of the samples stand, `zero` of all stand without a gradient."""
    stand = round(left * count)
    success = [False] * stand + [True] * (count - stand)
    flat = [True] * round(zero * count) + [False] * (count - round(zero * count))
    return table(success, zero_gradient=flat)


@pytest.mark.parametrize(
    ("left", "zero", "worst", "iterative", "trusted", "words"),
    [
        (0.5, 0.0, 0.5, True, True, "equals the worst case"),
        (0.54, 0.0, 0.5, True, True, "upper bound"),
        (0.56, 0.0, 0.5, True, False, "number refuted, because other attacks leave 6.0 points less"),
        (0.9, 0.0, 0.5, False, True, "upper bound"),
        (0.5, 0.04, 0.5, True, False, "number refuted, because 4.0 % stand with a zero gradient"),
        (0.5, 0.02, 0.5, True, True, "equals the worst case"),  # 4 of 200 do not yet show more than 1 %
        (0.5, 0.04, 0.5, False, False, "number refuted, because 4.0 % stand"),
    ],
)
def test_the_verdict_on_one_attack(
    left: float, zero: float, worst: float, iterative: bool, trusted: bool, words: str
) -> None:
    found = attack_verdict(_records(left, zero), worst, iterative)
    assert found.holds is trusted
    assert found.text.startswith(words)


def test_an_attack_that_needs_no_gradient_is_not_refused_for_want_of_one() -> None:
    records = _records(0.5, 0.3)
    assert not attack_verdict(records, 0.5, True).holds
    assert attack_verdict(records, 0.5, True, needs_gradients=False).holds


def test_zero_gradients_of_fallen_samples_do_not_count_against_an_attack() -> None:
    records = table([True, True, False, False], zero_gradient=[True, True, False, False])
    assert attack_verdict(records, 0.5, True).holds


def test_a_longer_attack_shows_nothing_where_another_attack_won(honest: Classifier, some: Dataset) -> None:
    runner, weak = Runner({"m": honest}, some), PGD(steps=5, step=0.1)
    alone, beside = (
        all_checks.steps_suffice(_subject(runner, weak, len(some), fallen)).value for fallen in ((), some.ids)
    )
    assert alone is not None
    assert alone > 0.01
    assert beside == 0
