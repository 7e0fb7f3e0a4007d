"""J-SIGR: the Jacobian penalty is unbiased, the selective one penalizes what the masks leave, masks survive a kill."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fits
import nets
from oracles import jsigr as oracle
from steadygrad.attributions import BlurSaliency, Saliency
from steadygrad.attributions.faithfulness import energy_inside
from steadygrad.attributions.salient import salient
from steadygrad.classifier import frozen
from steadygrad.defenses import Distillation, JacobianPenalty, Plain, SelectiveGradientPenalty, State, Step
from steadygrad.defenses.selective import _packed, _unpacked
from steadygrad.errors import UsageError
from steadygrad.training import FitSettings, fit
from steadygrad.training.batches import augmented
from steadygrad.training.loop import Loop

X = nets.inputs(4, shape=(2, 5, 6), dtype=torch.float64)
Y = torch.tensor([0, 2, 1, 1])
SMALL = BlurSaliency(grid=3)


class _Net(nn.Module):
    """A network for images of two channels that are not square."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first, self.last = nn.Conv2d(2, 6, 3, dtype=torch.float64), nn.Linear(6, 3, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return 4 * self.last(torch.tanh(4 * self.first(x)).mean((2, 3)))


def _terms(defense: JacobianPenalty | SelectiveGradientPenalty, model: nn.Module, x: Tensor, **state: Any) -> Tensor:
    step = Step(model, x, torch.zeros(len(x), dtype=torch.long), State(**state), input_gradients=True)
    (values,) = defense.terms(step).values()
    return values.detach()


@pytest.mark.parametrize("of", ["logits", "probabilities"])
def test_the_exact_jacobian_penalty_is_that_of_differences(of: Any) -> None:
    model = _Net()
    want = [0.3 * size for size in oracle.jacobian_norm(model, X, of)]
    values = _terms(JacobianPenalty(0.6, projections=None, of=of), model, X)
    torch.testing.assert_close(values, torch.tensor(want, dtype=torch.float64), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("of", "projections"), [("logits", 1), ("logits", 4), ("probabilities", 1)])
def test_random_projections_are_right_in_the_mean(of: Any, projections: int) -> None:
    model, count = _Net(), 4000
    exact = float(_terms(JacobianPenalty(2.0, None, of), model, X[:1])[0])
    values = _terms(JacobianPenalty(2.0, projections, of), model, X[:1].expand(count, -1, -1, -1), seed=5)
    error = float(values.std()) / count**0.5
    # Within 3.5 standard errors (1 in 2,000 by chance), which are small against a forgotten factor.
    assert 0 < error < 0.03 * exact
    assert abs(float(values.mean()) - exact) < 3.5 * error
    # Independent projections: the variance falls as their number grows.
    one = _terms(JacobianPenalty(2.0, 1, of), model, X[:1].expand(count, -1, -1, -1), seed=6)
    assert float(values.var() / one.var()) == pytest.approx(1 / projections, rel=0.15)
    # Every step has directions of its own, and every sample.
    assert not torch.isclose(values, _terms(JacobianPenalty(2.0, projections, of), model, X[:1], seed=9)).any()


@pytest.mark.parametrize("label", ["predicted", "true"])
def test_the_selective_penalty_is_that_of_loops(label: Any) -> None:
    model = _Net()
    predicted = model(X).argmax(1)
    assert not torch.equal(predicted, Y)
    classes = predicted if label == "predicted" else Y
    masks = oracle.mask(model, X, classes, share=0.3, grid=3)
    assert masks.sum((1, 2)).tolist() == [9.0] * 4
    defense = SelectiveGradientPenalty(0.7, share=0.3, label=label, saliency=SMALL)
    want = [0.7 * v for v in oracle.selective(model, X, classes.tolist(), masks)]
    assert float(defense.loss(model, X, Y).parts["selective_gradient"]) == pytest.approx(sum(want) / 4, rel=1e-6)


def test_pixels_without_saliency_are_not_salient() -> None:
    class Corner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            value = x[:, 0, 0, 0]
            return torch.stack([value, -value], 1)

    chosen = salient(Corner(), nets.inputs(3), torch.tensor([0, 0, 0]), Saliency(), share=0.5)
    assert chosen.flatten(1).sum(1).tolist() == [1, 1, 1]
    assert bool(chosen[:, 0, 0].all())


@pytest.mark.parametrize("size", [(5, 6), (2, 4), (7, 1)])
def test_masks_are_packed_without_loss(size: tuple[int, int]) -> None:
    mask = torch.rand(9, *size) < 0.3
    packed = _packed(mask)
    assert packed.dtype == torch.uint8
    assert packed.shape == (9, -(-size[0] * size[1] // 8))
    assert torch.equal(_unpacked(packed, torch.Size(size)), mask)


@pytest.mark.parametrize(
    ("settings", "epochs"),
    [({}, [1, 6, 11]), ({"warmup": 0, "refresh": 4}, [0, 4, 8]), ({"reference": "teacher", "refresh": 1}, [0])],
)
def test_masks_are_made_when_they_are_due(settings: dict[str, Any], epochs: list[int]) -> None:
    defense = SelectiveGradientPenalty(1.0, saliency=SMALL, **settings)
    model, data, teacher = fits.classifier(), fits.dataset(6), fits.classifier(seed=1)
    made = {e: defense.remember(e, model, data, State(teacher)) for e in range(12)}
    assert [e for e, masks in made.items() if masks] == epochs
    (masks,) = made[epochs[0]].values()
    asked = teacher if "reference" in settings else model
    want = salient(asked, data.tensors()[0], None, SMALL, 0.2)
    assert torch.equal(_unpacked(masks, torch.Size((6, 6))), want)


def test_masks_move_with_their_images() -> None:
    defense = SelectiveGradientPenalty(1.0, saliency=SMALL, warmup=0)
    model, data = fits.classifier(), fits.dataset(12)
    memory = defense.remember(0, model, data, State())
    samples = torch.tensor([7, 2, 9])
    follow = functools.partial(augmented, kind="crop_flip", seed=3, count=3, part=slice(0, 3))
    x = follow(data.batch(samples)[0])
    values = _terms(defense, model, x, memory=memory, samples=samples, follow=follow)
    mask = follow(salient(model, data.batch(samples)[0], None, SMALL, 0.2)[:, None].float())
    with frozen(model):
        points = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(model(points).log_softmax(1).amax(1).sum(), points)
    torch.testing.assert_close(values, (slope * (1 - mask)).square().sum((1, 2, 3)))
    assert not torch.allclose(values, slope.square().sum((1, 2, 3)))
    # Before the first masks there is no penalty, and plain cross-entropy is all.
    early = defense.loss(model, x, data.labels[samples], State(samples=samples))
    assert float(early.parts["selective_gradient"]) == 0
    assert torch.equal(early.total, Plain().loss(model, x, data.labels[samples]).total)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [2, 5, 9])
def test_a_run_that_is_continued_finds_its_masks(steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Masks are made before epochs 1 and 3, of four steps each; the run stops within epochs 0, 1 and 2.
    looks: list[int] = []
    original = Loop.remember
    monkeypatch.setattr(Loop, "remember", lambda loop: (looks.append(loop.progress.epoch), original(loop))[1])
    fits.run(tmp_path / "whole", "jsigr", epochs=4)
    assert looks == [0, 1, 2, 3]
    with contextlib.suppress(fits.Stopped), fits.stopped_at(steps):
        fits.run(tmp_path / "parts", "jsigr", epochs=4, checkpoint_steps=1)
    looks.clear()
    fits.run(tmp_path / "parts", "jsigr", epochs=4, checkpoint_steps=1)
    assert looks == [e for e in range(4) if 4 * e > steps - 1]
    whole, parts = ((tmp_path / n / "model.safetensors").read_bytes() for n in ("whole", "parts"))
    assert whole == parts
    without = fits.run(None, "jacobian:weight=0.01", epochs=4).classifier.state_dict()
    assert not torch.equal(without["module.0.weight"], fits.classifier("norm").load_weights(
        tmp_path / "whole" / "model.safetensors"
    ).state_dict()["module.0.weight"])  # fmt: skip


@pytest.mark.slow
def test_gradients_go_where_the_masks_are() -> None:
    data, settings = fits.dataset(60), FitSettings(epochs=30, batch_size=20, lr=0.02)
    x, y = data.tensors()
    teacher = fit(fits.classifier("linear"), Plain(), data, settings=settings).classifier
    mask = salient(teacher, x, None, BlurSaliency(grid=6), 0.3)
    shares = []
    for weight in (0.0, 3.0):
        defense = SelectiveGradientPenalty(weight, share=0.3, saliency=BlurSaliency(grid=6), reference="teacher")
        model = fit(fits.classifier("linear"), defense, data, settings=settings).classifier
        assert float((model(x).argmax(1) == y).double().mean()) > 0.9
        shares.append(float(energy_inside(Saliency(of="log_probability")(model, x, y), mask).mean()))
    assert shares[1] > shares[0] + 0.1


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: JacobianPenalty(0.1, projections=0), "projections must be at least 1"),
        (lambda: JacobianPenalty(0.1, of="logit"), "there is no output 'logit'; did you mean 'logits'"),  # type: ignore[arg-type]
        (lambda: JacobianPenalty(-1.0), "weight must be at least 0"),
        (lambda: SelectiveGradientPenalty(1.0, share=1.0), r"share must be within \(0, 1\)"),
        (lambda: SelectiveGradientPenalty(1.0, refresh=0), "refresh must be at least 1"),
        (lambda: SelectiveGradientPenalty(1.0, label="first"), "there is no label 'first'"),  # type: ignore[arg-type]
        (lambda: SelectiveGradientPenalty(1.0).loss(nn.Linear(3, 2), torch.rand(2, 3), Y[:2] * 0), "is for images"),
        (
            lambda: SelectiveGradientPenalty(1.0, reference="teacher").loss(_Net(), X, Y),
            "reference='teacher' needs a teacher",
        ),
        (
            lambda: SelectiveGradientPenalty(1.0, reference="teacher") + Distillation(),
            "need different teachers",
        ),
    ],
)
def test_bad_settings_are_refused(call: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        call()
