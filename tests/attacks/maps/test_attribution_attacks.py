"""Attacks on explanations: right slopes, an honest verdict, the prediction kept, no trace, passes counted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import digits_explanations
import gates
import nets
from oracles import attribution_attacks as oracle
from steadygrad import derivatives, registry, smoothing
from steadygrad.attacks.maps.attribution_attacks import (
    ATTRIBUTION_ATTACKS,
    IFIA,
    AttributionNoise,
    AttributionPGD,
    ExplanationAttack,
)
from steadygrad.attacks.maps.map_losses import MAP_LOSSES, Reference
from steadygrad.attacks.maps.map_run import AttributionResult, ExplanationRun
from steadygrad.attributions import Attribution, InputXGradient, IntegratedGradients, Saliency, SmoothGrad
from steadygrad.attributions import similarity as sim
from steadygrad.attributions.attribution import Forward
from steadygrad.classifier import Classifier
from steadygrad.errors import Failure, UsageError
from steadygrad.randomness import sample_seeds
from steadygrad.threat import Threat, l2, linf

pytestmark = pytest.mark.slow

KINDS = ("conv", "residual", "attention")
SMALL: dict[str, Any] = {"steps": 3, "restarts": 2, "noise_draws": 2}
ATTACKS: dict[str, ExplanationAttack] = {
    "attribution_noise": AttributionNoise(draws=3),
    "top-k": IFIA(k=0.25, **SMALL),
    "mass-center": IFIA(goal="mass-center", **SMALL),
    "target-map": IFIA(goal="target-map", **SMALL),
    "euclidean": AttributionPGD(**SMALL),
    "cosine": AttributionPGD(distance="cosine", attribution=IntegratedGradients(3, baseline=0.1, chunk=4), **SMALL),
    "input x gradient": IFIA(attribution=InputXGradient(), **SMALL),
}
THREATS = [linf(0.1), l2(0.4)]
by_attack = pytest.mark.parametrize("name", ATTACKS)
by_threat = pytest.mark.parametrize("threat", THREATS, ids=str)


def _case(
    kind: str = "conv",
    count: int = 5,
    dtype: torch.dtype = torch.float64,
    activation: type[nn.Module] = nn.GELU,
) -> tuple[nn.Module, Tensor]:
    """A network whose predictions differ and change within small radii."""
    net = nets.build(kind, activation=activation, dtype=torch.float64)
    x = nets.inputs(count, dtype=torch.float64)
    with torch.no_grad():
        last = [m for m in net.modules() if isinstance(m, nn.Linear)][-1]
        logits = net(x)
        last.bias -= logits.mean(0)
        spread = net(x).std(0).mean()
        last.weight /= spread
        last.bias /= spread
    return net.to(dtype), x.to(dtype)


def _aim(x: Tensor, attack: ExplanationAttack) -> Tensor | None:
    if attack.objective != "target-map":
        return None
    aim = torch.zeros_like(x[0])
    aim[..., :2] = 1
    return aim


def _far_out(x: Tensor, threat: Threat, seeds: Tensor) -> Tensor:
    """A random point of each sample, as far from it as the threat and the bounds allow."""
    change = threat.random(x, seeds, 0) - x
    size = change.flatten(1).norm(dim=1).view(-1, *[1] * (x.ndim - 1))
    return threat.constrain(x, x + threat.radius(x)[0] * (change.sign() if threat.norm == "linf" else change / size))


# The slopes


@pytest.mark.parametrize("measure", MAP_LOSSES)
@pytest.mark.parametrize("method", [Saliency(), IntegratedGradients(3, baseline=0.1, chunk=4)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_through_the_attribution_has_the_slope_of_its_differences(
    kind: str, method: Attribution, measure: str
) -> None:
    model, x = _case(kind, 3)
    target = torch.tensor([0, 2, 1])
    aim = torch.rand(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    reference = Reference(method(model, x, target), 0.25, aim)
    near = (x + 0.05 * torch.rand_like(x)).clamp(0, 1)
    gates.assert_gradient(
        lambda p: MAP_LOSSES[measure].loss(method(model, p, target, create_graph=True), reference), near
    )


@pytest.mark.parametrize("measure", MAP_LOSSES)
def test_losses_and_deviations_equal_their_formulas(measure: str) -> None:
    generator = torch.Generator().manual_seed(2)
    clean, maps, aim = (torch.randn(4, 2, 5, 6, generator=generator, dtype=torch.float64) for _ in range(3))
    reference = Reference(clean, 0.2, aim)
    for n in range(4):
        want = [f(measure, maps[n], clean[n], 6, aim[n]) for f in (oracle.loss, oracle.deviation)]
        assert MAP_LOSSES[measure].loss(maps, reference)[n].item() == pytest.approx(want[0])
        assert MAP_LOSSES[measure].deviation(maps, reference)[n].item() == pytest.approx(want[1])
    torch.testing.assert_close(
        MAP_LOSSES[measure].deviation(clean, reference), torch.zeros(4, dtype=torch.float64), atol=1e-12, rtol=0
    )


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("measure", ["top-k", "mass-center", "euclidean", "cosine"])
def test_one_ascent_is_that_of_the_oracle(measure: str, norm: str) -> None:
    model, x = _case(count=4)
    threat, seeds = Threat(norm, {"linf": 0.15, "l2": 0.5}[norm]), sample_seeds(4, None)
    settings: dict[str, Any] = {"steps": 4, "restarts": 1, "noise_draws": 0}
    attack: ExplanationAttack = (
        AttributionPGD(distance=measure, **settings)
        if measure in ("euclidean", "cosine")
        else IFIA(goal=measure, k=0.25, **settings)
    )
    result = attack(model, x, None, threat, generator=seeds)
    start = _far_out(x, threat, seeds)
    for n in range(4):
        point, deviation = oracle.ascend(
            *(model, x[n : n + 1], start[n : n + 1], measure),
            norm=norm,
            eps=float(threat.eps),
            steps=4,
            count=4,
        )
        torch.testing.assert_close(result.inputs[n], point[0] if deviation > 0 else result.inputs[n], atol=1e-4, rtol=0)
        assert result.deviation[n].item() == pytest.approx(deviation, abs=1e-4)
    assert bool((result.deviation > 0).any())


@pytest.mark.parametrize("method", [Saliency(), IntegratedGradients(4, baseline=-1.0)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_tiny_ball_is_used_up_to_the_largest_singular_value(kind: str, method: Attribution) -> None:
    """To first order the worst l2 deviation is eps times the largest singular value of the maps' Jacobian."""
    model, x = _case(kind, 3)
    x, eps = 0.3 + 0.4 * x, 1e-4
    result = AttributionPGD(method, steps=60, restarts=4, noise_draws=3)(model, x, None, l2(eps))
    for n in range(3):
        target = result.target[n : n + 1]
        columns = []
        for index in range(16):
            shift = torch.zeros(1, 16, dtype=x.dtype)
            shift[0, index] = 1e-5
            ends = [method(model, x[n : n + 1] + sign * shift.view(1, 1, 4, 4), target) for sign in (1, -1)]
            columns.append((ends[0] - ends[1]).flatten() / 2e-5)
        largest = eps * float(torch.linalg.matrix_norm(torch.stack(columns, 1), 2))
        assert 0.95 * largest < float(result.deviation[n]) < 1.01 * largest
        assert result.noise is not None
        assert float(result.noise.deviation[n]) < 0.9 * largest


@pytest.mark.parametrize("chunk", [1, 3, 4, 7])
def test_chunks_change_neither_slopes_nor_results(chunk: int) -> None:
    model, x = _case("residual")
    whole, parts = (IntegratedGradients(3, baseline=0.1, chunk=c) for c in (64, chunk))
    slopes = []
    for method in (whole, parts):
        run = ExplanationRun(AttributionPGD(method), model, x, None, linf(0.1), sample_seeds(5, None))
        slopes.append(run.gradient((x + 0.02).clamp(0, 1)))
    torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-8, atol=1e-10)
    found = [AttributionPGD(m, **SMALL)(model, x, None, linf(0.1)) for m in (whole, parts)]
    for name, value in gates.tensors_of(found[0]).items():
        torch.testing.assert_close(gates.tensors_of(found[1])[name], value, rtol=1e-6, atol=1e-9)


def test_the_graph_holds_no_more_points_than_the_chunk_or_one_path() -> None:
    model, x = _case()
    with gates.counted(model):
        sizes: list[int] = []
        model.register_forward_hook(lambda module, args, output: sizes.append(len(output)))
        attack = AttributionPGD(IntegratedGradients(3, chunk=7), distance="cosine")
        run = ExplanationRun(attack, model, x, None, linf(0.1), sample_seeds(5, None))
        sizes.clear()
        run.gradient(x + 0)
    # Two samples of three points at once, each followed by a look at the label; then the last sample.
    assert sizes == [6, 2, 6, 2, 3, 1]


def test_a_changed_prediction_is_led_back() -> None:
    model, x = _case(count=6)
    run = ExplanationRun(IFIA(Saliency()), model, x, None, linf(1.0), sample_seeds(6, None))
    points = x[[3, 1, 2, 0, 4, 5]]  # some of another label, some of their own
    label = model(points).argmax(1)
    slope = run.gradient(points)
    for n in range(6):
        own = run.prediction[n : n + 1]

        def lead(p: Tensor, own: Tensor = own) -> Tensor:
            logits = model(p)
            return logits[:, own[0]] - logits.scatter(1, own[:, None], -torch.inf).amax(1)

        back = derivatives.gradient(lead, points[n : n + 1])[1][0]
        assert torch.allclose(slope[n], back) == bool(label[n] != own[0])
    assert 0 < int((label != run.prediction).sum()) < 6


# The verdict


@by_threat
@by_attack
def test_results_are_allowed_keep_the_prediction_and_are_what_they_say(name: str, threat: Threat) -> None:
    model, x = _case(count=8)
    attack = ATTACKS[name]
    aim = _aim(x, attack)
    result = attack(model, x, None, threat, aim=aim)
    assert bool(threat.allows(x, result.inputs).all())
    label = model(x).argmax(1)
    assert len(label.unique()) > 1
    for values in (result.prediction, result.target, model(result.inputs).argmax(1)):
        assert torch.equal(values, label)
    for value, points in ((result.clean_maps, x), (result.maps, result.inputs)):
        torch.testing.assert_close(value, attack.attribution(model, points, label))
    torch.testing.assert_close(result.distance, threat.distance(result.inputs - x))
    count = max(1, round(getattr(attack, "k", 0.1) * 16))
    for n in range(8):
        want = oracle.deviation(attack.objective, result.maps[n], result.clean_maps[n], count, aim)
        assert result.deviation[n].item() == pytest.approx(max(0.0, want), abs=1e-7)
    assert torch.equal(result.moved, result.deviation > 0)
    assert bool(result.moved.any())
    assert torch.equal(result.inputs[~result.moved & (result.distance == 0)], x[~result.moved & (result.distance == 0)])
    torch.testing.assert_close(result.similarity(sim.cosine), sim.cosine(result.clean_maps, result.maps))


@by_attack
def test_points_that_change_the_prediction_never_count(name: str) -> None:
    """A radius at which most random points have another label."""
    model, x = _case(count=8)
    attack, threat = ATTACKS[name], linf(0.6)
    changed = (model(threat.random(x, sample_seeds(8, None))).argmax(1) != model(x).argmax(1)).float().mean()
    assert changed > 0.2
    result = attack(model, x, None, threat, aim=_aim(x, attack))
    assert torch.equal(model(result.inputs).argmax(1), model(x).argmax(1))


def test_a_model_whose_prediction_depends_on_its_neighbors_is_not_believed() -> None:
    class Shared(nn.Module):
        """Class 0 among three samples, class 1 otherwise."""

        def forward(self, x: Tensor) -> Tensor:
            energy = x.flatten(1).square().sum(1) / 100
            return torch.stack([energy + (1 if len(x) == 3 else -1), 0 * energy], 1)

    x = nets.inputs(3, dtype=torch.float64)
    result = AttributionPGD(**SMALL)(Shared(), x, None, linf(0.05))
    assert result.moved.tolist() == [False] * 3
    assert result.deviation.tolist() == [0.0] * 3
    assert torch.equal(result.inputs, x)
    assert torch.equal(result.maps, result.clean_maps)


def test_another_class_may_be_explained_while_the_prediction_is_kept() -> None:
    model, x = _case(count=6)
    target = (model(x).argmax(1) + 1) % 3
    result = AttributionPGD(**SMALL)(model, x, target, linf(0.1))
    assert torch.equal(result.target, target)
    assert torch.equal(model(result.inputs).argmax(1), model(x).argmax(1))
    torch.testing.assert_close(result.maps, Saliency()(model, result.inputs, target))


@pytest.mark.parametrize("name", [n for n in ATTACKS if n != "attribution_noise"])
def test_more_restarts_can_only_help_and_the_baseline_is_beside(name: str) -> None:
    model, x = _case(count=6)
    attack = ATTACKS[name]
    aim, threat = _aim(x, attack), linf(0.1)
    one, four = (replace(attack, restarts=r)(model, x, None, threat, aim=aim) for r in (1, 4))  # type: ignore[call-arg]
    assert bool((four.deviation >= one.deviation - 1e-9).all())
    assert one.noise is not None
    noise = AttributionNoise(attack.attribution, attack.objective, 2, getattr(attack, "k", 0.1))
    torch.testing.assert_close(one.noise.deviation, noise(model, x, None, threat, aim=aim).deviation)
    assert one.noise.noise is None
    assert float(four.deviation.mean()) > float(one.noise.deviation.mean())
    alone = replace(attack, noise_draws=0)(model, x, None, threat, aim=aim)  # type: ignore[call-arg]
    assert alone.noise is None


def test_the_target_map_is_approached() -> None:
    model, x = _case(count=6)
    aim = torch.zeros(1, 4, 4, dtype=torch.float64)
    aim[0, 0] = 1
    result = IFIA(goal="target-map", steps=20)(model, x, None, linf(0.2), aim=aim)
    before, after = (sim.cosine(m, aim.expand_as(m)) for m in (result.clean_maps, result.maps))
    torch.testing.assert_close(after - before, result.deviation)
    assert float((after - before).mean()) > 0.02


# The gates


@by_threat
@by_attack
@pytest.mark.parametrize("kind", ["conv", "attention"])
def test_a_batch_equals_its_samples(kind: str, name: str, threat: Threat) -> None:
    model, x = _case(kind, 4)
    attack = ATTACKS[name]
    aim = _aim(x, attack)

    def call(x: Tensor, index: Tensor) -> Any:
        return attack(model, x, None, threat, aim=aim, generator=gates.generator_at(index, 3))

    gates.assert_batch_invariant(call, x, torch.arange(4))


@by_attack
def test_nothing_is_left_behind(name: str) -> None:
    net, x = _case("residual", 3, torch.float32)
    model = nn.Sequential(nn.Dropout(0.5), net)
    attack = ATTACKS[name]
    gates.assert_leaves_no_trace(
        model, lambda: attack(model, x, None, linf(0.1), aim=_aim(x, attack)), inputs=[x], failing_at=(0, 1, 5)
    )


def test_the_generator_decides() -> None:
    model, x = _case()
    inputs = [
        AttributionNoise(draws=1)(model, x, None, linf(0.1), generator=torch.Generator().manual_seed(s)).inputs
        for s in (1, 1, 2)
    ]
    assert torch.equal(inputs[0], inputs[1])
    assert not torch.equal(inputs[0], inputs[2])


@pytest.mark.parametrize("attribution", [Saliency(), IntegratedGradients(3, chunk=7), SmoothGrad(2)], ids=str)
@pytest.mark.parametrize("activation", [nn.GELU, nn.ReLU])
def test_passes_are_counted(attribution: Attribution, activation: type[nn.Module]) -> None:
    model, x = _case(activation=activation)
    attack = IFIA(attribution, steps=4, restarts=2, noise_draws=3)
    with gates.counted(model) as passes:
        result = attack(model, x, None, linf(0.1))
    assert result.noise is not None
    # The probes of kinks and curvature are the only thing that is not counted: one sample, and eight.
    assert passes["samples"] == int((result.forwards + result.noise.forwards).sum()) + 9
    f = {"Saliency": 1, "IntegratedGradients": 3, "SmoothGrad": 2}[type(attribution).__name__]
    label = int(f > 1)  # a forward to see the label, where the attribution does not ask at the point itself
    looks, slopes = 2 + 8 * (activation is nn.ReLU), 8
    forwards = 1 + f + (slopes + looks + 2) * (f + label)
    backwards = f + looks * f + slopes * (2 * f + label) + 2 * f
    assert result.forwards.tolist() == [forwards] * 5
    assert result.backwards.tolist() == [backwards] * 5


@pytest.mark.parametrize("method", [IntegratedGradients(16, baseline=0.1), SmoothGrad(16)], ids=str)
@pytest.mark.parametrize("activation", [nn.GELU, nn.ReLU])
def test_few_points_held_at_a_time_lead_to_the_same_in_less_memory(
    method: Attribution, activation: type[nn.Module]
) -> None:
    model, x = _case(count=2, activation=activation)

    def attack(chunk: int) -> AttributionResult:
        some = replace(method, chunk=chunk)
        return IFIA(some, steps=4, restarts=2, noise_draws=0)(model, x, None, linf(0.1))

    with gates.counted(model) as passes:
        few = attack(2)
    whole = attack(64)
    for name in ("inputs", "deviation", "maps", "forwards", "backwards", "zero_gradient"):
        torch.testing.assert_close(getattr(few, name), getattr(whole, name), rtol=1e-9, atol=1e-9)
    # Beside what is counted: the probes, and once more the points of each slope of the map.
    assert 0 < passes["samples"] - int(few.forwards.sum()) - 5 <= 2 * 8 * 16
    used = [gates.peak(lambda chunk=chunk: attack(chunk)) for chunk in (2, 64)]  # type: ignore[misc]
    assert used[0] < 0.4 * used[1]


@pytest.mark.parametrize("row", list(ATTRIBUTION_ATTACKS), ids=lambda row: row.name)
def test_rows_describe_their_methods(row: registry.Row[ExplanationAttack]) -> None:
    for method in (row.method(), row.method(attribution=IntegratedGradients(5, baseline=0.5))):
        assert method.norms == row.norms
        described = registry.describe(method)
        assert registry.build("attribution attack", described.pop("name"), described) == method
        assert hash(method) == hash(replace(method))
    assert row.soundness == "attack"
    flag = registry.parse("attribution attack", f"{row.name}:attribution=smooth_grad")
    assert flag.attribution == SmoothGrad()


# What cannot be moved by derivatives


@pytest.mark.parametrize("attack", [IFIA(), AttributionPGD(IntegratedGradients(4))], ids=str)
def test_an_all_relu_network_is_followed_through_smooth_ones_and_judged_itself(attack: ExplanationAttack) -> None:
    model, x = _case("mlp", 8, activation=nn.ReLU)
    result = replace(attack, steps=10, restarts=1)(model, x, None, linf(0.2))  # type: ignore[call-arg]
    torch.testing.assert_close(result.maps, attack.attribution(model, result.inputs, result.target))
    assert bool(result.moved.any())
    smooth = smoothing.smooth(model, 20.0)
    assert bool(replace(attack, **SMALL)(smooth, x, None, linf(0.1)).moved.any())


def test_steps_without_a_smooth_form_are_refused() -> None:
    class Sign(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x.flatten(1) - 0.5).sign()[:, :3] + x.flatten(1)[:, :3] ** 2

    with pytest.raises(UsageError, match="no smooth form of sign"):
        AttributionPGD()(Sign(), _case()[1], None, linf(0.1))


def _pooled(seed: int = 0) -> nn.Module:
    """Max pooling and little else: all that moves its map is the choice of other entries."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = (nn.Conv2d(1, 8, 3, padding=1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 3))
        return nn.Sequential(*layers).double()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_other_choices_of_a_pool_are_found(norm: str) -> None:
    model, x = _pooled(), nets.inputs(12, shape=(1, 8, 8), dtype=torch.float64)
    threat = Threat(norm, {"linf": 0.1, "l2": 0.5}[norm])  # type: ignore[arg-type]
    result = AttributionPGD(steps=20, restarts=1, noise_draws=0)(model, x, None, threat)
    random = AttributionNoise(measure="euclidean", draws=100)(model, x, None, threat)
    torch.testing.assert_close(result.maps, Saliency()(model, result.inputs, result.target))
    assert bool((result.deviation >= random.deviation).all())
    assert float((result.deviation / random.deviation).median()) > 1.2


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_the_scale_of_weights_and_inputs_does_not_count(factor: float) -> None:
    model, x = _pooled(), nets.inputs(4, shape=(1, 8, 8), dtype=torch.float64)
    attack = AttributionPGD(distance="cosine", steps=6, restarts=1, noise_draws=0)
    plain = attack(model, x, None, linf(0.1))
    scaled = _pooled()
    with torch.no_grad():
        scaled[0].weight *= factor
        scaled[0].bias *= factor
        scaled[3].bias *= factor
    torch.testing.assert_close(attack(scaled, x, None, linf(0.1)).inputs, plain.inputs)
    assert bool(plain.moved.all())


@by_threat
@pytest.mark.parametrize("name", [n for n in ATTACKS if n != "attribution_noise"])
def test_no_attack_finds_less_than_its_baseline(name: str, threat: Threat) -> None:
    model, x = _case(count=8, activation=nn.ReLU)
    attack = replace(ATTACKS[name], steps=1, restarts=1, noise_draws=30)  # type: ignore[call-arg]
    result = attack(model, x, None, threat, aim=_aim(x, attack))
    assert result.noise is not None
    assert bool((result.deviation >= result.noise.deviation).all())
    assert bool((result.deviation == result.noise.deviation).any())  # one step is not enough for all


class _NoSecondOrder(IntegratedGradients):
    """Integrated gradients whose mean gradient is taken for a constant, as if there were no curvature."""

    def maps(self, forward: Forward, x: Tensor, target: Tensor, *, create_graph: bool) -> Tensor:
        maps = super().maps(forward, x, target, create_graph=create_graph)
        if not create_graph:
            return maps
        away = x - self.baseline
        return away * (maps / torch.where(away == 0, 1.0, away)).detach()


def test_a_missing_second_order_term_is_seen_by_the_gate() -> None:
    model, x = _case("conv", 3)
    target, cut = torch.tensor([0, 2, 1]), _NoSecondOrder(3, baseline=-0.5)
    clean = cut(model, x, target)
    near = (x + 0.05).clamp(0, 1)
    with pytest.raises(AssertionError, match="central difference"):
        gates.assert_gradient(
            lambda p: MAP_LOSSES["euclidean"].loss(cut(model, p, target, create_graph=True), Reference(clean)), near
        )


# Errors


def _call(attack: ExplanationAttack, threat: Threat = THREATS[0], **more: Any) -> Any:
    model, x = _case()
    return attack(model, x, None, threat, **more)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: IFIA(goal="topk"), "did you mean 'top-k'"),  # type: ignore[arg-type]
        (lambda: AttributionPGD(distance="l2"), "there is no distance 'l2'"),  # type: ignore[arg-type]
        (lambda: AttributionNoise(measure="cos"), "did you mean 'cosine'"),  # type: ignore[arg-type]
        (lambda: IFIA(steps=0), "steps must be at least 1, got 0"),
        (lambda: IFIA(restarts=0), "restarts must be at least 1"),
        (lambda: IFIA(step=0.0), "step must be positive"),
        (lambda: IFIA(noise_draws=-1), "noise_draws must be at least 0"),
        (lambda: AttributionNoise(draws=0), "draws must be at least 1"),
        (lambda: _call(IFIA(k=3)), "share of the pixels"),
        (lambda: _call(IFIA(), Threat("l1", 1.0)), "IFIA works for linf, l2, not for l1"),
        (lambda: _call(IFIA(), linf()), "needs a radius"),
        (lambda: _call(IFIA(), linf(0.1, bounds=(0.9, 1.0))), "inputs must lie within"),
        (lambda: _call(IFIA(goal="target-map")), "give aim="),
        (lambda: _call(IFIA(), aim=torch.ones(1, 4, 4)), "leave aim= out"),
        (lambda: _call(IFIA(goal="target-map"), aim=torch.ones(4, 4)), r"aim must hold .* \(5, 1, 4, 4\)"),
    ],
)
def test_wrong_settings_and_calls_are_refused(make: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make()


def test_models_and_classes_that_do_not_fit_are_refused() -> None:
    model, x = _case()
    with pytest.raises(UsageError, match=r"within 0\.\.2"):
        IFIA()(model, x, torch.full((5,), 3), linf(0.1))
    with pytest.raises(UsageError, match="the classifier"):
        IFIA()(smoothing.smooth(Classifier(model, bounds=(-1.0, 1.0))), x, None, linf(0.1))
    flat = nn.Sequential(nn.Linear(4, 4), nn.Softplus(), nn.Linear(4, 2)).double()
    with pytest.raises(UsageError, match="center of mass needs"):
        IFIA(goal="mass-center")(flat, torch.rand(3, 4).double(), None, linf(0.1))

    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :3].sqrt()

    x[2] = 0
    with pytest.raises(Failure, match="infinite maps for 1 of 5 inputs"):
        AttributionNoise()(Root(), x, None, linf(0.1))


def test_an_attribution_without_a_graph_is_refused() -> None:
    class Detached(Saliency):
        def maps(self, forward: Forward, x: Tensor, target: Tensor, *, create_graph: bool) -> Tensor:
            return super().maps(forward, x, target, create_graph=create_graph).detach()

    with pytest.raises(UsageError, match="maps without a graph"):
        _call(IFIA(Detached()))


def test_feature_vectors_can_be_attacked_too() -> None:
    net = nn.Sequential(nn.Linear(6, 8), nn.Softplus(), nn.Linear(8, 3)).double()
    x = nets.inputs(4, shape=(6,), dtype=torch.float64)
    result = IFIA(k=0.5, **SMALL)(net, x, None, l2(torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)))
    assert bool((result.distance <= torch.tensor([0.1, 0.2, 0.3, 0.4]) + 1e-6).all())


# On a trained network


def test_the_right_gradient_beats_noise_and_the_one_without_second_order() -> None:
    net, x, _ = digits_explanations.network(epochs=6)
    rows = digits_explanations.compare(smoothing.smooth(net, 50.0), x[:60], InputXGradient(), linf(0.05))
    attack = rows["attack"].double()
    for other in ("noise", "second order cut"):
        gain = rows[other].double() - attack
        # By more than two standard errors of the paired differences.
        assert float(gain.mean()) > 2 * float(gain.std()) / len(gain) ** 0.5
