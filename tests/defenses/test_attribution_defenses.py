"""Defenses of explanations: their formulas, derivatives, searches, two processes, and what they do to a map."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fits
import gates
import nets
from oracles import attribution_defenses as oracle
from steadygrad import registry
from steadygrad.attacks import FGSM, PGD, RandomNoise
from steadygrad.attributions import IntegratedGradients, Saliency
from steadygrad.classifier import frozen
from steadygrad.defenses import Defense, InputGradientPenalty, Plain, State, Step, parse
from steadygrad.defenses.attribution_robustness import AttributionAlignment, AttributionCosine, IGNorm
from steadygrad.errors import UsageError
from steadygrad.threat import Threat
from steadygrad.training import FitSettings, fit

FIXED: dict[str, Defense] = {
    "norm": IGNorm(weight=0.7, eps=0.2, steps=2),
    "sum-norm": IGNorm(weight=0.7, eps=0.2, kind="sum-norm", steps=2),
    "cosine": AttributionCosine(
        weight=2.0, eps=0.2, attack=RandomNoise(draws=1), attribution=IntegratedGradients(3, chunk=4)
    ),
    "alignment": AttributionAlignment(weight=2.0, eps=0.2, steps=2),
    "together": IGNorm(weight=0.3, eps=0.2, kind="sum-norm", steps=1)
    + AttributionCosine(weight=1.0, eps=0.1, attack=RandomNoise(draws=1), attribution=Saliency("log_probability"))
    + InputGradientPenalty(0.1),
}
USUAL: dict[str, Defense] = {
    **FIXED,
    "norm": IGNorm(weight=0.7, eps=0.4, norm="l2"),
    "alignment": AttributionAlignment(eps=0.4, norm="l2"),
    "cosine": AttributionCosine(weight=2.0, eps=0.2, attribution=IntegratedGradients(3)),
}
by_name = pytest.mark.parametrize("name", FIXED)


def _setup(kind: str = "conv", dtype: torch.dtype = torch.float64, **more: Any) -> tuple[nn.Module, Tensor, Tensor]:
    return nets.build(kind, dtype=dtype, **more), nets.inputs(4, dtype=dtype), torch.tensor([0, 2, 1, 0])


@pytest.fixture
def fixed_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random points instead of those of a search, which follow the weights: the loss is then smooth in them."""
    original = Step.perturb
    monkeypatch.setattr(
        *(Step, "perturb", lambda self, attack, norm, eps, y: original(self, RandomNoise(draws=1), norm, eps, y))
    )


def _points(defense: Defense, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The points that the loss of a defense is taken at."""
    seen: list[Tensor] = []
    original = Step.perturb

    def perturb(self: Step, *args: Any) -> Tensor:
        seen.append(original(self, *args))
        return seen[-1]

    Step.perturb = perturb  # type: ignore[method-assign]
    try:
        defense.loss(model, x, y, State(seed=3))
    finally:
        Step.perturb = original  # type: ignore[method-assign]
    return seen[-1].detach()


# Formulas


@pytest.mark.parametrize("kind", ["norm", "sum-norm"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_norm_of_integrated_gradients_equals_its_formula(norm: str, kind: str) -> None:
    model, x, y = _setup()
    defense = IGNorm(weight=3.0, eps=0.3, norm=norm, kind=kind, steps=2, path=8)
    points = _points(defense, model, x, y)
    parts = defense.loss(model, x, y, State(seed=3)).parts
    sizes = [oracle.path_norm(model, x[n : n + 1], points[n : n + 1], int(y[n]), 20) for n in range(4)]
    assert float(parts["attribution_norm"]) == pytest.approx(3 * sum(sizes) / 4, rel=1e-3)
    at = x if kind == "norm" else points
    losses = [oracle.cross_entropy(model, at[n : n + 1], int(y[n])) for n in range(4)]
    name = "cross_entropy" if kind == "norm" else "adversarial"
    assert float(parts[name]) == pytest.approx(sum(losses) / 4, rel=1e-9)
    assert list(parts) == [name, "attribution_norm"]


def test_the_cosine_equals_its_formula() -> None:
    model, x, y = _setup()
    defense = AttributionCosine(weight=3.0, eps=0.3, attack=FGSM("ce"), attribution=Saliency())
    points = _points(defense, model, x, y)
    parts = defense.loss(model, x, y, State(seed=3)).parts
    values = [
        1 - oracle.cosine(*(oracle.logit_gradient(model, p[n : n + 1], int(y[n])) for p in (x, points)))
        for n in range(4)
    ]
    assert list(parts) == ["cross_entropy", "attribution_cosine"]
    assert float(parts["attribution_cosine"]) == pytest.approx(3 * sum(values) / 4, rel=1e-5)
    assert min(values) > 1e-4


def test_the_alignment_equals_its_formula() -> None:
    model, x, y = _setup()
    defense = AttributionAlignment(weight=3.0, eps=0.3)
    points = _points(defense, model, x, y)
    parts = defense.loss(model, x, y, State(seed=3)).parts
    values = [oracle.triplet(model, points[n : n + 1], int(y[n])) for n in range(4)]
    losses = [oracle.cross_entropy(model, points[n : n + 1], int(y[n])) for n in range(4)]
    assert list(parts) == ["adversarial", "attribution_alignment"]
    assert float(parts["attribution_alignment"]) == pytest.approx(3 * sum(values) / 4, rel=1e-6)
    assert float(parts["adversarial"]) == pytest.approx(sum(losses) / 4, rel=1e-9)


@pytest.mark.parametrize("name", ["norm", "sum-norm", "alignment"])
def test_the_search_finds_worse_points_than_random_ones_within_the_ball(name: str) -> None:
    model, x, y = _setup("residual")
    y = model(x).argmax(1)
    for norm, eps in (("linf", 0.2), ("l2", 0.8)):
        threat = Threat(norm, eps)
        few, many = (replace(USUAL[name], norm=norm, eps=eps, steps=s) for s in (1, 12))  # type: ignore[call-arg]
        points = _points(many, model, x, y)
        assert bool(threat.allows(x, points).all())
        random = threat.random(x, torch.arange(4))
        values = []
        for found in (_points(few, model, x, y), points, random):
            with frozen(model):
                if name == "alignment":
                    rows = [oracle.triplet(model, found[n : n + 1], int(y[n])) for n in range(4)]
                else:
                    rows = [
                        0.7 * oracle.path_norm(model, x[n : n + 1], found[n : n + 1], int(y[n]), 6) for n in range(4)
                    ]
                if name == "sum-norm":
                    rows = [r + oracle.cross_entropy(model, found[n : n + 1], int(y[n])) for n, r in enumerate(rows)]
            values.append(sum(rows))
        assert values[1] >= values[0] * 0.999
        assert values[1] > values[2]


# The gates


@by_name
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", ["mlp", "conv", "residual", "attention"])
@pytest.mark.usefixtures("fixed_points")
def test_the_weight_gradient_equals_differences(kind: str, training: bool, name: str) -> None:
    model, x, y = _setup(kind)
    model.train(training)
    gates.assert_weight_gradient(lambda: FIXED[name].loss(model, x, y, State(seed=3)).total, model)


@pytest.mark.parametrize("name", ["norm", "sum-norm", "cosine", "alignment"])
@pytest.mark.usefixtures("fixed_points")
def test_the_weight_gradient_passes_rectifiers_and_max_pooling(name: str) -> None:
    model, x, y = _setup(activation=nn.ReLU)
    model[3] = nn.MaxPool2d(2)
    gates.assert_weight_gradient(lambda: FIXED[name].loss(model, x, y, State(seed=3)).total, model)


@pytest.mark.parametrize("name", USUAL)
def test_the_loss_is_the_mean_over_samples(name: str) -> None:
    model, x, y = _setup("residual")
    defense = USUAL[name]
    whole = defense.loss(model, x, y, State(seed=3))
    alone = [defense.loss(model, x[n : n + 1], y[n : n + 1], State(seed=3, offset=n)) for n in range(4)]
    for part, value in whole.parts.items():
        torch.testing.assert_close(torch.stack([a.parts[part] for a in alone]).mean(), value, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(sum(whole.parts.values()), whole.total.detach())


def test_chunks_of_the_attribution_change_nothing() -> None:
    model, x, y = _setup("attention")
    slopes = []
    for chunk in (64, 1, 4):
        defense = AttributionCosine(
            weight=1.0, eps=0.2, attack=FGSM("ce"), attribution=IntegratedGradients(3, chunk=chunk)
        )
        total = defense.loss(model, x, y).total
        slopes.append(torch.cat([s.flatten() for s in torch.autograd.grad(total, [*model.parameters()])]))
    for slope in slopes[1:]:
        torch.testing.assert_close(slope, slopes[0], rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("name", USUAL)
def test_the_loss_leaves_no_trace(name: str) -> None:
    model, x, y = _setup("attention", torch.float32)
    gates.assert_leaves_no_trace(
        model, lambda: USUAL[name].loss(model, x, y, State(seed=3)), inputs=[x, y], failing_at=(0, 2)
    )


def test_only_running_statistics_and_dropout_move_in_training_mode() -> None:
    net, x, y = _setup("residual", torch.float32)
    model = nn.Sequential(nn.Dropout(0.5), net)
    for name in ("norm", "cosine", "alignment"):
        gates.assert_leaves_no_trace(
            *(model, lambda name=name: USUAL[name].loss(model, x, y, State(seed=3))),
            inputs=[x, y],
            allow=("buffers", "random"),
        )


@pytest.mark.parametrize(
    ("defense", "forwards", "samples"),
    [
        # The clean pass; per step and at the end one pass of 4 points for each of 4 samples.
        (IGNorm(weight=1.0, eps=0.1, steps=3), 1 + 4, 4 + 4 * 16),
        (IGNorm(weight=1.0, eps=0.1, steps=3, kind="sum-norm"), 4 * 2, 4 * (4 + 16)),
        (AttributionAlignment(eps=0.1, steps=3), 4, 16),
        (AttributionCosine(weight=1.0, eps=0.1, attack=PGD(steps=2, loss="ce"), attribution=Saliency()), 5, 20),
    ],
    ids=str,
)
def test_passes(defense: Defense, forwards: int, samples: int) -> None:
    model, x, y = _setup(dtype=torch.float32)
    with gates.counted(model) as passes:
        defense.loss(model, x, y)
    assert (passes["forwards"], passes["samples"]) == (forwards, samples)


@by_name
def test_a_defense_is_a_value_and_is_refused_in_mixed_precision_with_the_reason(name: str) -> None:
    for defense in (FIXED[name], USUAL[name]):
        described = registry.describe(defense)
        assert registry.build("defense", described.pop("name"), described) == defense
    assert "half precision" in str(defense.mixed_precision)
    with pytest.raises(UsageError, match="half precision"):
        fit(fits.classifier(), defense, fits.dataset(), settings=FitSettings(epochs=1, precision="bf16"))


def test_flags_and_composition() -> None:
    assert parse("ig_norm:weight=2,eps=0.1,kind=sum-norm") == IGNorm(weight=2.0, eps=0.1, kind="sum-norm")
    assert parse("attribution_cosine:weight=2,eps=0.1,attribution=saliency").members == (
        AttributionCosine(weight=2.0, eps=0.1, attribution=Saliency()),
    )
    model, x, y = _setup()
    parts = (IGNorm(weight=1.0, eps=0.1) + AttributionCosine(weight=1.0, eps=0.1)).loss(model, x, y).parts
    assert list(parts) == ["cross_entropy", "attribution_norm", "attribution_cosine"]
    parts = (AttributionAlignment(eps=0.1) + IGNorm(weight=1.0, eps=0.1) + Plain()).loss(model, x, y).parts
    assert list(parts) == ["adversarial", "attribution_alignment", "attribution_norm", "cross_entropy"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: IGNorm(weight=-1.0, eps=0.1), "weight must be at least 0"),
        (lambda: IGNorm(weight=1.0, eps=0.0), "eps must be positive"),
        (lambda: IGNorm(weight=1.0, eps=0.1, norm="l1"), "norm must be linf or l2, .* sought, got 'l1'"),
        (lambda: IGNorm(weight=1.0, eps=0.1, kind="sum"), "did you mean 'sum-norm'"),  # type: ignore[arg-type]
        (lambda: IGNorm(weight=1.0, eps=0.1, steps=0), "steps must be at least 1"),
        (lambda: IGNorm(weight=1.0, eps=0.1, path=0), "path must be at least 1"),
        (lambda: AttributionCosine(weight=1.0, eps=0.1, norm="l0"), "PGD works for linf, l2, l1, not for 'l0'"),
        (lambda: AttributionCosine(weight=1.0, eps=-0.1), "eps must be positive"),
        (lambda: AttributionAlignment(eps=0.1, norm="l0"), "norm must be linf or l2"),
        (lambda: AttributionAlignment(eps=0.1, weight=float("nan")), "weight must be at least 0"),
    ],
)
def test_wrong_settings_are_refused(make: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make()


# Training

FLAGS = (
    "ig_norm:weight=0.5,eps=0.1,steps=2",
    "ig_norm:weight=0.5,eps=0.1,steps=2,kind=sum-norm",
    "attribution_cosine:weight=0.5,eps=0.1,attribution=input_x_gradient",
    "attribution_alignment:eps=0.1",
)
_PROGRAM = """
import sys, pathlib, torch, fits
torch.set_num_threads(1)
for number, flag in enumerate(sys.argv[2:]):
    fits.run(pathlib.Path(sys.argv[1]) / str(number), flag, **{**fits.IN_SUITE, "epochs": 1})
"""


@pytest.mark.slow
def test_two_processes_give_the_weights_of_one(tmp_path: Path) -> None:
    tests = Path(__file__).parents[1]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tests.parent / "src"), str(tests)]),
        "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    command = [sys.executable, "-c", _PROGRAM, str(tmp_path), *FLAGS]
    ranks = [
        subprocess.Popen(command, env={**environment, "RANK": str(r), "LOCAL_RANK": str(r)}, stderr=subprocess.PIPE)
        for r in range(2)
    ]
    for process in ranks:
        with process:
            _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors.decode()[-2000:]
    for number, flag in enumerate(FLAGS):
        one = fits.run(None, flag, **{**fits.IN_SUITE, "epochs": 1}).classifier.state_dict()
        both = fits.classifier("linear").load_weights(tmp_path / str(number) / "model.safetensors").state_dict()
        start = fits.classifier("linear").state_dict()
        for name, weight in one.items():
            torch.testing.assert_close(both[name], weight, rtol=1e-4, atol=1e-6)
            assert not torch.allclose(weight, start[name], rtol=1e-3, atol=1e-5), "the weights hardly moved"


@pytest.fixture(scope="module")
def plain() -> nn.Module:
    """The network that no defense has touched."""
    return _trained(Plain())


def _trained(defense: Defense) -> nn.Module:
    settings = FitSettings(epochs=20, batch_size=16, optimizer="adam", lr=0.01)
    return fit(fits.classifier("linear"), defense, fits.dataset(120), settings=settings).classifier.eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("defense", "part", "share"),
    [
        (IGNorm(weight=1.0, eps=0.1), "attribution_norm", 0.7),
        (AttributionCosine(weight=10.0, eps=0.1, attribution=IntegratedGradients(3)), "attribution_cosine", 0.5),
        (AttributionAlignment(eps=0.1, weight=10.0), "attribution_alignment", 0.95),
    ],
    ids=["norm", "cosine", "alignment"],
)
def test_training_lowers_what_the_defense_is_about(plain: nn.Module, defense: Defense, part: str, share: float) -> None:
    x, y = fits.dataset(60, seed=1).tensors()
    model = _trained(defense)
    before, after = (float(defense.loss(m, x, y, State(seed=1)).parts[part]) for m in (plain, model))
    assert after < share * before
    assert float((model(x).argmax(1) == y).float().mean()) > 0.95
