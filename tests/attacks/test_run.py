"""The engine: its verdict, its counts, the samples that leave, and any input it may meet."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import gates
import nets
from steadygrad import randomness
from steadygrad.attacks import ATTACKS, BIM, FGSM, PGD, Attack, AttackResult, RandomNoise
from steadygrad.attacks.attack_result import judge
from steadygrad.attacks.run import Run
from steadygrad.attacks.targets import resolve_target
from steadygrad.threat import Threat, linf

# What an attack claims is not what it gets


@dataclass(frozen=True)
class Liar(Attack):
    """Puts any point on record, or returns it as its last."""

    claim: str = "clean"
    by_record: bool = True

    def search(self, run: Run) -> Tensor | None:
        points = {
            "clean": run.x,
            "too far": run.x + 0.3,
            "outside": run.x * 0 + 1.5,
            "nan": run.x * torch.nan,
            "inf": run.x * 0 + torch.inf,
        }[self.claim]
        if not self.by_record:
            return points
        run.found[run.index] = points
        run.best[run.index] = 0.0
        return None


class Step(nn.Module):
    """Class 1 where the first entry is above 0.65, and where it is not a number."""

    def forward(self, x: Tensor) -> Tensor:
        above = torch.nan_to_num(x[:, :1], nan=1.0) - 0.65
        return torch.cat([-above, above], 1)


@pytest.mark.parametrize("by_record", [True, False])
@pytest.mark.parametrize("claim", ["clean", "too far", "outside", "nan", "inf"])
def test_false_claims_are_failures(claim, by_record):
    x, y = torch.full((3, 4), 0.5), torch.zeros(3, dtype=torch.int64)
    result = Liar(claim, by_record)(Step(), x, y, linf(0.2))
    assert not result.success.any()
    assert torch.equal(result.inputs, x)
    assert torch.isinf(result.distance).all()


def test_true_claims_are_believed_after_the_recheck():
    x, y = torch.full((3, 4), 0.5), torch.zeros(3, dtype=torch.int64)
    result = Liar("too far")(Step(), x, y, linf(0.3))
    assert result.success.all()
    torch.testing.assert_close(result.distance, torch.full((3,), 0.3))


def test_a_point_outside_the_threat_does_not_hide_a_later_one_inside():
    @dataclass(frozen=True)
    class Wanderer(Attack):
        def search(self, run: Run) -> Tensor | None:
            run.look(run.x + 0.4)
            run.drop_solved()
            return run.x + 0.2

    x, y = torch.full((3, 4), 0.5), torch.zeros(3, dtype=torch.int64)
    assert Wanderer()(Step(), x, y, linf(0.2)).success.all()


def test_clean_mistakes_count_at_distance_zero_and_cost_no_gradient():
    x, y = torch.full((3, 4), 0.5), torch.tensor([0, 1, 0])
    result = PGD()(Step(), x, y, linf(0.01))
    assert result.success.tolist() == [False, True, False]
    assert result.distance[1] == 0
    assert result.backwards[1] == 0
    assert torch.equal(result.inputs, x)


class Neighbors(nn.Module):
    """Wrong where the mean over the whole batch is above 0.57."""

    def forward(self, x: Tensor) -> Tensor:
        score = (0.57 - x.mean() + 0 * x[:, :1]) * 10
        return torch.cat([score, -score], 1)


def test_what_only_holds_among_its_neighbors_does_not_count():
    x, y = torch.full((6, 4), 0.5), torch.zeros(6, dtype=torch.int64)
    threat = linf(0.1)
    assert (Neighbors()(FGSM().perturb(Neighbors(), x, y, threat)).argmax(1) == 1).all()
    for attack in (FGSM(), BIM(), PGD()):
        assert not attack(Neighbors(), x, y, threat).success.any()
        assert not attack(Neighbors(), x[:1], y[:1], threat).success.any()


def test_the_judge_sees_each_candidate_beside_the_clean_inputs():
    seen: list[Tensor] = []

    class Watched(Step):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return super().forward(x)

    x = torch.rand(4, 3) / 2
    candidates = x + 0.4
    considered = torch.tensor([True, True, False, True])
    success, passes = judge(Watched(), x, candidates, torch.zeros(4).long(), linf(0.4), None, considered)
    halves = [torch.tensor([3, 1]), torch.tensor([0])]
    for batch, part in zip(seen, halves, strict=True):
        assert torch.equal(batch, torch.cat([candidates[part], x[part]]))
    assert passes.tolist() == [2, 2, 0, 2]
    assert torch.equal(success, considered & (candidates[:, 0] > 0.65))


# Passes


@pytest.mark.parametrize("restarts", [1, 3])
def test_a_sample_that_resists_costs_one_forward_and_backward_per_step(restarts):
    # forwards: the clean look, one per step, a last look per restart; the judge has nothing to see.
    model, x = nets.build("mlp"), nets.inputs(5)
    with torch.no_grad():
        model[-1].weight *= 1e-4
        y = model(x).argmax(1)
    with gates.counted(model) as passes:
        result = PGD(restarts=restarts)(model, x, y, linf(0.1))
    assert not result.success.any()
    assert result.forwards.tolist() == [1 + restarts * 41] * 5
    assert result.backwards.tolist() == [restarts * 40] * 5
    assert passes == {
        "forwards": 1 + restarts * 41,
        "samples": 5 * (1 + restarts * 41),
        "backwards": restarts * 40,
        "samples_back": restarts * 40 * 5,
    }


@pytest.mark.parametrize(
    ("attack", "forwards", "backwards"),
    [(FGSM(), 3, 1), (BIM(steps=7), 9, 7), (PGD(steps=7), 9, 7), (RandomNoise(draws=7), 8, 0)],
)
def test_the_cost_of_the_simple_attacks(attack, forwards, backwards):
    model, x = nets.build("mlp"), nets.inputs(2)
    with torch.no_grad():
        model[-1].weight *= 1e-4
        y = model(x).argmax(1)
    result = attack(model, x, y, linf(0.1))
    assert result.forwards.tolist() == [forwards] * 2
    assert result.backwards.tolist() == [backwards] * 2


@pytest.mark.parametrize("eps", [None, 0.08])
@pytest.mark.parametrize("attack", [FGSM(), BIM(), PGD(steps=10, restarts=2), RandomNoise()], ids=str)
def test_the_recorded_passes_are_those_of_the_model(digits, attack, eps):
    model, x, y = digits
    x, y = x[:30], y[:30]
    with gates.counted(model) as passes:
        result = attack(model, x, y, linf(eps))
    assert passes["samples"] == result.forwards.sum()
    assert passes["samples_back"] == result.backwards.sum()


def test_no_weight_gradient_is_ever_computed():
    model, x = nets.build("conv"), nets.inputs(4)
    required: list[bool] = []
    model.register_forward_pre_hook(lambda m, _: required.extend(p.requires_grad for p in m.parameters()))
    y = torch.zeros(4, dtype=torch.int64)
    PGD(steps=3)(model, x, y, linf(0.1))
    PGD(steps=3).perturb(model, x, y, linf(0.1))
    PGD(steps=3)(model, x, y, linf())
    assert required
    assert not any(required)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_attacks_work_where_gradients_are_switched_off(lively):
    model, x, y = lively()
    with torch.no_grad():
        off = PGD(steps=5)(model, x, y, linf(0.05))
    on = PGD(steps=5)(model, x, y, linf(0.05))
    assert torch.equal(off.inputs, on.inputs)


# Samples that leave


class Everybody(Run):
    """A run that no sample leaves."""

    @property
    def settled(self) -> Tensor:
        return torch.zeros_like(self.solved)


@dataclass(frozen=True)
class Whole(PGD):
    """PGD in which no sample leaves the batch."""

    def _run(self, case) -> AttackResult:
        run = Everybody(case, self.ascends)
        run.begin()
        last = self.search(run)
        assert last is not None
        run.look(last)
        return run.result()


def test_solved_samples_leave_and_cost_nothing_more(digits):
    model, x, y = digits
    threat = linf(0.12)
    with gates.counted(model) as active:
        dropped = PGD()(model, x, y, threat)
    with gates.counted(model) as all_along:
        kept = Whole()(model, x, y, threat)
    assert 0.8 < dropped.success.float().mean() < 0.92
    assert torch.equal(dropped.success, kept.success)
    torch.testing.assert_close(dropped.inputs, kept.inputs)
    cost, full = (p["samples"] + p["samples_back"] for p in (active, all_along))
    assert full >= 2.5 * cost


@pytest.mark.parametrize("attack", [BIM(), PGD(steps=11, restarts=2), RandomNoise(draws=8)], ids=str)
def test_polling_less_often_gives_the_same_result(digits, attack, monkeypatch):
    model, x, y = digits
    x, y, threat = x[:80], y[:80], linf(torch.linspace(0.02, 0.2, 80))
    every = attack(model, x, y, threat)
    original = Run.__init__

    def seldom(self, *args, **kwargs):
        original(self, *args, **kwargs)
        self._poll_every = 5

    monkeypatch.setattr(Run, "__init__", seldom)
    fifth = attack(model, x, y, threat)
    assert torch.equal(every.success, fifth.success)
    torch.testing.assert_close(every.inputs, fifth.inputs)
    torch.testing.assert_close(every.distance, fifth.distance)
    assert (fifth.forwards >= every.forwards).all()
    assert (fifth.forwards <= every.forwards + 8).all()


# Radii and targets


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_one_radius_per_sample_equals_separate_calls(lively, norm):
    model, x, y = lively()
    eps = torch.linspace(0.0, 0.2, len(x), dtype=x.dtype)
    seeds, attack = torch.arange(len(x)), PGD(steps=5, restarts=2)
    together = attack(model, x, y, Threat(norm, eps), generator=seeds)
    assert 0 < together.success.sum() < len(x)
    for i in range(len(x)):
        row = slice(i, i + 1)
        alone = attack(model, x[row], y[row], Threat(norm, float(eps[i])), generator=seeds[row])
        torch.testing.assert_close(alone.inputs[0], together.inputs[i])
        assert alone.forwards[0] == together.forwards[i]


def test_named_targets_are_never_the_label():
    logits = torch.tensor([[3.0, 1.0, 2.0, -9.0], [1.0, 9.0, -5.0, 2.0], [0.0, 1.0, 2.0, -3.0]])
    y = torch.tensor([0, 2, 3])
    seeds = torch.arange(3)
    assert resolve_target("least-likely", logits, y, seeds).tolist() == [3, 0, 0]
    assert resolve_target("second-best", logits, y, seeds).tolist() == [2, 1, 2]
    assert resolve_target(None, logits, y, seeds) is None
    assert resolve_target(torch.tensor([1, 1, 1], dtype=torch.int32), logits, y, seeds).tolist() == [1, 1, 1]


@pytest.mark.parametrize("classes", [2, 5])
def test_random_targets_are_even_over_the_other_classes(classes):
    y = torch.zeros(4000, dtype=torch.int64)
    seeds = randomness.sample_seeds(4000, None)
    drawn = resolve_target("random", torch.zeros(4000, classes), y, seeds)
    counts = drawn.bincount(minlength=classes) / 4000
    assert counts[0] == 0
    torch.testing.assert_close(counts[1:], torch.full((classes - 1,), 1 / (classes - 1)), atol=0.03, rtol=0)


def test_a_random_target_just_below_one_is_not_rounded_to_the_label(monkeypatch):
    monkeypatch.setattr(randomness, "uniform", lambda seeds, like, draw: torch.full_like(like, 1 - 2**-24))
    y = torch.arange(10)
    assert (resolve_target("random", torch.zeros(10, 10), y, torch.arange(10)) != y).all()


@pytest.mark.parametrize("target", ["second-best", "least-likely", "random", "labels"])
def test_targeted_success_means_the_target_is_predicted(digits, target):
    model, x, y = digits
    x, y = x[:40], y[:40]
    seeds = torch.arange(40)
    goal = (y + 3) % 10 if target == "labels" else resolve_target(target, model(x), y, seeds)
    result = PGD()(model, x, y, linf(0.2), target=goal if target == "labels" else target, generator=seeds)
    assert result.success.float().mean() > 0.3
    assert (model(result.inputs).argmax(1) == goal)[result.success].all()


# Inputs and models of any kind


@pytest.mark.parametrize("name", [row.name for row in ATTACKS])
@pytest.mark.parametrize("shape", [(20,), (1, 8, 8), (3, 4, 4), (2, 3)])
def test_inputs_of_any_shape(name, shape):
    x = nets.inputs(5, shape=shape)
    entries = x[0].numel()
    model = nn.Sequential(nn.Flatten(), nn.Linear(entries, 4))
    y = model(x).argmax(1)
    for norm in ATTACKS[name].norms:
        settings = {"square": {"queries": 8}, "standard": {"queries": 8, "steps": 3}}.get(name, {})
        result = ATTACKS[name].method(**settings)(model, x, y, Threat(norm, 2.0))
        assert result.inputs.shape == x.shape
        assert result.distance.shape == (5,)


@pytest.mark.parametrize("classes", [2, 3, 4, 100])
@pytest.mark.parametrize("loss", ["margin", "dlr", "ce", "kl"])
def test_any_number_of_classes(lively, classes, loss):
    model, x, y = lively(classes=classes)
    # The divergence also grows towards more certainty, which fools nothing.
    assert PGD(loss=loss)(model, x, y, linf(0.3)).success.float().mean() > (0.3 if loss == "kl" else 0.7)
    if loss != "kl":
        assert PGD(loss=loss)(model, x, y, linf(0.5), target="second-best").success.any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_type_of_the_inputs_is_kept(lively, dtype):
    model, x, y = lively(dtype=dtype)
    with torch.no_grad():
        y = model(x).argmax(1)
    for norm, eps in (("linf", 0.1), ("l2", 0.4), ("l1", 0.8)):
        result = PGD()(model, x, y, Threat(norm, eps))
        assert result.inputs.dtype == dtype
        assert result.success.any()
        assert not torch.isnan(result.distance).any()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_labels_of_any_integer_type(lively, dtype):
    model, x, y = lively()
    expected = PGD(steps=3)(model, x, y, linf(0.05))
    found = PGD(steps=3)(model, x, y.to(dtype), linf(0.05))
    assert torch.equal(found.inputs, expected.inputs)


def test_vanishing_gradients_are_reported():
    class Rectified(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([(x[:, :1] - 0.5).relu(), 1 + 0 * x[:, :1]], 1)

    x, y = torch.tensor([[0.2, 0.1], [0.8, 0.1], [0.45, 0.1]]), torch.ones(3, dtype=torch.int64)
    assert FGSM()(Rectified(), x, y, linf(0.1)).zero_gradient.tolist() == [True, False, True]
