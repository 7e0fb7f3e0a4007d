"""DDN and FMN against their algorithms written out, sample by sample, and against bisection with PGD."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gates
import nets
from oracles import minimum_norm as oracle
from steadygrad.attacks import DDN, FMN, PGD
from steadygrad.attacks.attack import Attack
from steadygrad.errors import UsageError
from steadygrad.threat import Threat

pytestmark = pytest.mark.slow

# Steps and radii are shares of the range: far bounds are not met, and the numbers are the paper's.
WIDE, SHARE = (-50.0, 50.0), 0.01
NORMS = ["linf", "l2", "l1", "l0"]
BOTH = [(DDN, "l2"), *((FMN, norm) for norm in NORMS)]


def _smooth(classes: int = 4) -> nn.Module:
    net = nets.build("mlp", classes=classes, dtype=torch.float64)
    with torch.no_grad():
        net[-1].bias -= net(nets.inputs(40, dtype=torch.float64)).mean(0)
    return net


def _tiny(count: int = 8) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    model, x = _smooth(), nets.inputs(count, dtype=torch.float64)
    y = model(x).argmax(1)
    assert len(y.unique()) > 1
    return model, x, y


@pytest.mark.parametrize("target", [None, "second-best"])
@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_ddn_is_the_algorithm_of_the_paper(loss, target):
    model, x, y = _tiny()
    result = DDN(steps=30, radius=SHARE, loss=loss)(
        model, x, y, Threat("l2", bounds=(-0.5 / SHARE, 0.5 / SHARE)), target=target
    )
    aims = model(x).argsort(1)[:, -2]
    for n in range(len(x)):
        best, found = oracle.ddn(
            model,
            x[n].flatten().numpy(),
            int(y[n]),
            int(aims[n]) if target else None,
            steps=30,
            alpha=1 / SHARE,
            loss=loss,
            bounds=WIDE,
        )
        assert float(result.distance[n]) == pytest.approx(best, rel=1e-6)
        if best < float("inf"):
            torch.testing.assert_close(result.inputs[n].flatten(), torch.from_numpy(found), rtol=1e-6, atol=1e-8)
    assert result.success.float().mean() > 0.7


@pytest.mark.parametrize("target", [None, "second-best"])
@pytest.mark.parametrize("loss", ["margin", "ce"])
@pytest.mark.parametrize("norm", NORMS)
def test_fmn_is_the_algorithm_of_the_paper(norm, loss, target):
    model, x, y = _tiny()
    result = FMN(steps=40, step=SHARE, last=1e-5 * SHARE, loss=loss)(
        model, x, y, Threat(norm, bounds=WIDE), target=target
    )
    aims = model(x).argsort(1)[:, -2]
    for n in range(len(x)):
        aim = int(aims[n]) if target else None
        best, found = oracle.fmn(model, x[n].flatten().numpy(), int(y[n]), norm, aim, steps=40, loss=loss, bounds=WIDE)
        assert float(result.distance[n]) == pytest.approx(best, rel=1e-6)
        if best < float("inf"):
            torch.testing.assert_close(result.inputs[n].flatten(), torch.from_numpy(found), rtol=1e-6, atol=1e-8)
    assert result.success.float().mean() > 0.7


@pytest.mark.parametrize(("attack", "norm"), BOTH)
def test_bounds_that_bite_cost_no_more_than_in_the_paper(digits, attack, norm):
    model, x, y = digits[0], digits[1][:24], digits[2][:24]
    ours = attack(steps=40, loss="margin")(model, x, y, Threat(norm)).distance
    flat = nn.Sequential(*(_double(layer) for layer in model))
    theirs = []
    for n in range(len(x)):
        start, label = x[n].double().flatten().numpy(), int(y[n])
        if attack is DDN:
            theirs.append(oracle.ddn(flat, start, label, steps=40, loss="margin")[0])
        else:
            theirs.append(oracle.fmn(flat, start, label, norm, steps=40)[0])
    expected = torch.tensor(theirs)
    assert ours.mean() <= 1.02 * expected.mean()
    assert ours.median() <= 1.02 * expected.median()


def _double(layer: nn.Module) -> nn.Module:
    if not isinstance(layer, nn.Linear):
        return layer
    twin = nn.Linear(layer.in_features, layer.out_features).double()
    twin.load_state_dict(layer.state_dict())
    return twin


@pytest.mark.parametrize(("attack", "norm"), BOTH)
def test_the_nearest_wrong_point_that_was_seen_is_kept(digits, attack, norm):
    model = digits[0]
    threat = Threat(norm)
    for n in range(6):
        x, y = digits[1][n : n + 1], digits[2][n : n + 1]
        seen = []
        handle = model.register_forward_hook(lambda module, args, out, s=seen: s.append((args[0].detach(), out)))
        result = attack(steps=30)(model, x, y, threat)
        handle.remove()
        sizes = [threat.distance(p - x) for p, z in seen if len(p) == 1 and z.argmax(1) != y]
        assert len(sizes) > 3
        assert result.distance == min(sizes)


@pytest.mark.parametrize(("attack", "norm"), BOTH)
def test_projections_bring_changes_into_the_ball_and_leave_those_inside(digits, attack, norm, monkeypatch):
    model, x, y = digits[0], digits[1][:40], digits[2][:40]
    seen = []
    constrain = Threat.constrain

    def watched(self, x, x_adv):
        out = constrain(self, x, x_adv)
        seen.append((self.radius(x), self.distance(x_adv - x), self.distance(out - x), (out - x_adv).abs().amax()))
        return out

    monkeypatch.setattr(Threat, "constrain", watched)
    looked = []
    handle = model.register_forward_hook(lambda module, args, out: looked.append(args[0].detach()))
    attack(steps=30)(model, x, y, Threat(norm))
    handle.remove()
    assert min(float(p.min()) for p in looked) >= 0
    assert max(float(p.max()) for p in looked) <= 1
    if attack is DDN:
        assert not seen  # it sets the length itself
        return
    assert len(seen) == 30
    shrunk = 0
    for radius, before, after, _ in seen:
        assert (after <= before * (1 + 1e-5) + 1e-6).all()
        assert (after <= radius * (1 + 1e-5) + 1e-6).all()
        inside = before <= radius
        torch.testing.assert_close(after[inside], before[inside], rtol=1e-5, atol=1e-6)
        shrunk += int((~inside).sum())
    assert shrunk > 100


# Bisection resolves 1.6 % of a distance. The slack is what a hundred steps leave open.
@pytest.mark.parametrize(
    ("attack", "norm", "slack"), [(DDN, "l2", 1.01), (FMN, "linf", 1.0), (FMN, "l2", 1.005), (FMN, "l1", 1.03)]
)
def test_distances_are_those_of_bisection_with_pgd_for_a_fraction_of_the_passes(digits, attack, norm, slack):
    model, x, y = digits
    ours, theirs = (a(model, x, y, Threat(norm)) for a in (attack(), PGD()))
    assert ours.success.all()
    assert ours.distance.median() <= slack * theirs.distance.median()
    assert ours.backwards.sum() < 0.4 * theirs.backwards.sum()


@pytest.mark.parametrize(("attack", "norm"), BOTH)
def test_a_batch_equals_its_samples_with_a_clean_mistake_and_radii_of_their_own(lively, attack, norm):
    model, x, y = lively(count=6)
    y = y.clone()
    y[2] = (y[2] + 1) % 3
    radii = torch.tensor([0.02, 0.1, 0.3, 0.6, 1.0, 2.0], dtype=torch.float64)
    radii = radii.ceil() if norm == "l0" else radii
    method = attack(steps=12)
    gates.assert_batch_invariant(lambda x, y: method(model, x, y, Threat(norm)), x, y)
    gates.assert_batch_invariant(lambda x, y, r: method(model, x, y, Threat(norm, r)), x, y, radii)
    result = method(model, x, y, Threat(norm))
    assert result.distance[2] == 0
    assert torch.equal(result.inputs[2], x[2])


@pytest.mark.parametrize("scale", [1e-3, 1e3])
@pytest.mark.parametrize(("attack", "norm"), BOTH)
def test_the_scale_of_the_logits_does_not_matter(digits, attack, norm, scale):
    model, x, y = digits[0], digits[1][:60], digits[2][:60]

    class Scaled(nn.Module):
        def forward(self, z):
            return scale * model(z)

    ours, theirs = (attack(steps=40)(m, x, y, Threat(norm)).distance for m in (model, Scaled()))
    assert ((theirs - ours).abs() <= 0.01 * ours).float().mean() > 0.95
    torch.testing.assert_close(theirs.median(), ours.median(), rtol=0.01, atol=0)


def test_vanishing_logits_are_no_obstacle():
    model, x, y = _tiny()

    class Faint(nn.Module):
        def forward(self, z):
            return 1e-15 * model(z)

    for norm in NORMS:
        ours, theirs = (FMN(steps=30)(m, x, y, Threat(norm, bounds=(-5.0, 5.0))) for m in (model, Faint()))
        assert torch.equal(ours.success, theirs.success)
        torch.testing.assert_close(theirs.distance, ours.distance, rtol=1e-2, atol=0)


@pytest.mark.parametrize(("attack", "norm"), BOTH)
def test_the_range_of_the_inputs_is_a_matter_of_units(digits, attack, norm):
    model, x, y = digits[0], digits[1][:40], digits[2][:40]

    class Bytes(nn.Module):
        def forward(self, z):
            return model(z / 255)

    unit = 1 if norm == "l0" else 255
    ours = attack(steps=40)(model, x, y, Threat(norm)).distance
    theirs = attack(steps=40)(Bytes(), 255 * x, y, Threat(norm, bounds=(0.0, 255.0))).distance / unit
    assert ((theirs - ours).abs() <= 0.01 * ours).float().mean() > 0.9
    torch.testing.assert_close(theirs.median(), ours.median(), rtol=0.01, atol=0)


@pytest.mark.parametrize(("attack", "norm"), BOTH)
def test_a_radius_decides_success_and_lets_samples_leave(digits, attack, norm):
    model, x, y = digits[0], digits[1][:60], digits[2][:60]
    free = attack(steps=40)(model, x, y, Threat(norm))
    eps = float(free.distance.median()) * (1 if norm == "l0" else 1.001)
    held = attack(steps=40)(model, x, y, Threat(norm, eps))
    assert torch.equal(held.success, free.distance <= eps)
    assert 0.3 < held.success.float().mean() < 0.95
    assert (held.distance[held.success] <= eps).all()
    assert (held.backwards[~held.success] == 40).all()
    assert held.backwards[held.success].float().mean() < 30


@pytest.mark.parametrize(("attack", "norm"), BOTH)
def test_a_step_costs_one_forward_and_one_backward(digits, attack, norm):
    model, x, y = digits[0], digits[1][:30], digits[2][:30].clone()
    y[4] = (y[4] + 1) % 10
    with gates.counted(model) as spent:
        result = attack(steps=7)(model, x, y, Threat(norm))
    mistakes = result.distance == 0
    assert mistakes[4]
    assert (result.backwards[~mistakes] == 7).all()
    assert (result.backwards[mistakes] == 0).all()
    # The clean look, the steps, the look at their end, and the judge's two where something was found.
    assert torch.equal(result.forwards[~mistakes], 9 + 2 * result.success[~mistakes].long())
    assert (result.forwards[mistakes] == 3).all()
    assert spent["samples"] == int(result.forwards.sum())
    assert spent["samples_back"] == int(result.backwards.sum())


def test_l0_follows_the_margin_unless_told_otherwise(digits):
    model, x, y = digits[0], digits[1][:40], digits[2][:40]

    def distance(norm, loss):
        return FMN(steps=30, loss=loss)(model, x, y, Threat(norm)).inputs

    assert torch.equal(distance("l0", None), distance("l0", "margin"))
    assert not torch.equal(distance("l0", None), distance("l0", "soft"))
    for norm in ("linf", "l2", "l1"):
        assert torch.equal(distance(norm, None), distance(norm, "soft"))
        assert not torch.equal(distance(norm, None), distance(norm, "margin"))


def test_l0_changes_few_entries(digits):
    model, x, y = digits
    result = FMN()(model, x, y, Threat("l0"))
    assert result.success.all()
    assert torch.equal(result.distance, (result.inputs != x).flatten(1).sum(1).float())
    assert result.distance.median() <= 3
    # A single entry, wherever one will do: all are tried for a few samples.
    for n in range(12):
        values = torch.tensor([0.0, 1.0])
        tries = x[n].flatten().repeat(128, 1)
        tries[torch.arange(128), torch.arange(128) // 2] = values.repeat(64)
        if result.distance[n] == 1:
            assert (model(tries.view(-1, 1, 8, 8)).argmax(1) != y[n]).any()


@pytest.mark.parametrize(("attack", "norm"), BOTH)
def test_a_tie_is_stepped_over(attack, norm):
    model = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.eye(2))
    result = attack()(model, torch.full((1, 2), 0.4), torch.tensor([0]), Threat(norm))
    assert result.success.all()
    assert result.distance[0] == 1 if norm == "l0" else 0 < result.distance[0] < 0.02


@pytest.mark.parametrize(("attack", "norm"), BOTH)
def test_logits_that_are_not_numbers_are_a_success_and_no_end(digits, attack, norm):
    model, x, y = digits[0], digits[1][:30], digits[2][:30]
    changed = 0.4 * Threat(norm).distance(torch.ones_like(x))

    class Broken(nn.Module):
        def forward(self, z):
            far = z.flatten(1).std(1, keepdim=True) > 0.39
            return torch.where(far, torch.nan, model(z))

    kept = x.flatten(1).std(1) < 0.385
    result, plain = (attack(steps=30)(net, x[kept], y[kept], Threat(norm)) for net in (Broken(), model))
    assert result.success[plain.success].all()
    assert torch.isfinite(model(result.inputs)).all()
    assert (result.distance[result.success] < changed[kept][result.success]).all()


@pytest.mark.parametrize(("attack", "norm"), BOTH)
@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes_of_a_table(attack, norm, classes):
    model = nn.Linear(6, classes).double()
    x = torch.rand(10, 6, dtype=torch.float64)
    y = model(x).argmax(1)
    threat = Threat(norm, bounds=(-10.0, 10.0))
    for target in (None, "least-likely"):
        result = attack()(model, x, y, threat, target=target)
        assert result.success.all()
        assert result.inputs.shape == x.shape
        if target:
            assert torch.equal(model(result.inputs).argmax(1), model(x).argmin(1))


@pytest.mark.parametrize(("attack", "norm"), BOTH)
def test_no_gradient_is_said(attack, norm):
    class Stairs(nn.Module):
        def forward(self, z):
            return torch.stack([z.sum(1) * 0 + 2, z.sum(1) * 0], 1)

    x = torch.rand(3, 4)
    result = attack(steps=5)(Stairs(), x, torch.tensor([0, 0, 1]), Threat(norm))
    assert result.zero_gradient.tolist() == [True, True, False]
    assert result.success.tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("attack", "settings"),
    [
        (DDN, {"steps": 0}),
        (DDN, {"gamma": 0.0}),
        (DDN, {"gamma": 1.0}),
        (DDN, {"radius": 0.0}),
        (DDN, {"radius": float("nan")}),
        (FMN, {"steps": 0}),
        (FMN, {"gamma": -0.1}),
        (FMN, {"gamma_last": 1.0}),
        (FMN, {"step": 0.0}),
        (FMN, {"last": -1.0}),
    ],
)
def test_settings_out_of_range_are_refused(attack, settings):
    with pytest.raises(UsageError, match=next(iter(settings))):
        attack(**settings)


@pytest.mark.parametrize("attack", [DDN, FMN])
def test_unknown_losses_are_refused(attack: type[Attack]):
    with pytest.raises(UsageError, match="sharp"):
        attack(loss="sharp")(_smooth(), nets.inputs(2, dtype=torch.float64), torch.tensor([0, 1]), Threat("l2"))


@pytest.mark.parametrize("norm", ["linf", "l1", "l0"])
def test_ddn_is_for_l2(norm):
    with pytest.raises(UsageError, match="works for l2"):
        DDN()(_smooth(), nets.inputs(2, dtype=torch.float64), torch.tensor([0, 1]), Threat(norm))
