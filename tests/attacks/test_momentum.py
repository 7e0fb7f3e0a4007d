"""MI-FGSM against the formulas, sample by sample, with and without its two averages."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import gates
import nets
from oracles import momentum as oracle
from steadygrad import randomness
from steadygrad.attacks import BIM, MIFGSM
from steadygrad.errors import UsageError
from steadygrad.threat import Threat, linf

EPS = {"linf": 0.05, "l2": 0.2}
IMAGES = [
    {},
    {"diversity": 0.6, "shrink": 0.5},
    {"translation": 3},
    {"diversity": 1.0, "shrink": 0.6, "translation": 5, "loss": "ce"},
]


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("settings", IMAGES, ids=str)
def test_points_equal_the_formula(lively, settings, norm, targeted):
    model, x, y = lively(count=5, shape=(2, 6, 6))
    goals = model(x).argsort(1, descending=True)[:, 1] if targeted else None
    found = MIFGSM(steps=4, step=0.25, decay=0.8, **settings).perturb(
        model, x, y, Threat(norm, EPS[norm]), target=goals
    )
    seeds = randomness.sample_seeds(len(x), None)
    draws = torch.stack([randomness.uniform(seeds, torch.empty(5, 4), i) for i in range(4)], 1).double().numpy()
    for i, row in enumerate(x.numpy()):
        point = oracle.climb(
            *(model, row, int(y[i]), int(goals[i]) if targeted else None),
            eps=EPS[norm],
            norm=norm,
            steps=4,
            decay=0.8,
            loss=settings.get("loss", "margin"),
            draws=draws[i] if settings.get("diversity") else None,
            probability=settings.get("diversity", 0.0),
            shrink=settings.get("shrink", 1.0),
            kernel=settings.get("translation", 0),
        )
        torch.testing.assert_close(found[i], torch.from_numpy(point))


def test_without_memory_it_is_bim(lively):
    model, x, y = lively()
    for norm in EPS:
        threat = Threat(norm, EPS[norm])
        torch.testing.assert_close(
            MIFGSM(step=0.1, decay=0.0).perturb(model, x, y, threat),
            BIM(loss="margin").perturb(model, x, y, threat),
            rtol=1e-12,
            atol=1e-12,
        )


def test_steps_that_cross_the_ball_find_more(digits):
    model, x, y = digits
    shares = [attack(model, x, y, linf(0.08)).success.float().mean() for attack in (MIFGSM(step=0.1), MIFGSM())]
    assert shares[1] > shares[0] + 0.01


def test_gradients_are_accumulated_not_their_signs():
    # The slope on the first entry is large once and then small the other way: a sum of signs would turn back.
    class Bent(nn.Module):
        def forward(self, x):
            first, second = x[:, 0], x[:, 1]
            rise = torch.where(first < 0.55, 100 * first, -first) + second
            return torch.stack([torch.full_like(rise, 1e3), rise], 1)

    x = torch.tensor([[0.5, 0.5]])
    points = MIFGSM(steps=4, step=0.25).perturb(Bent(), x, torch.tensor([0]), linf(0.3))
    # Normalized slopes (0.99, 0.01), (-0.5, 0.5), (-0.5, 0.5), (-0.5, 0.5): sums 0.99, 0.49, -0.01, -0.51.
    assert points[0].tolist() == pytest.approx([0.5, 0.8], abs=1e-6)


@pytest.mark.parametrize("settings", IMAGES[1:], ids=str)
def test_a_batch_equals_its_samples_even_with_slopes_of_very_different_size(lively, settings):
    model, x, y = lively(count=4)

    class Uneven(nn.Module):
        def forward(self, x):
            return model(x) * x.flatten(1)[:, :1] ** 12

    def points(x, y, index):
        return MIFGSM(steps=3, **settings).perturb(
            Uneven(), x, y, Threat("l2", 0.1), generator=gates.generator_at(index, 3)
        )

    gates.assert_batch_invariant(points, x, y, torch.arange(4))


def test_views_are_random_by_sample_and_seed():
    model, x = nets.build("conv", shape=(1, 8, 8)), nets.inputs(1, shape=(1, 8, 8)).expand(3, 1, 8, 8)
    attack, y = MIFGSM(steps=2, diversity=1.0, shrink=0.4), torch.zeros(3).long()
    points = attack.perturb(model, x, y, linf(0.1))
    assert not torch.equal(points[0], points[1])
    assert torch.equal(points, attack.perturb(model, x, y, linf(0.1)))
    again = attack.perturb(model, x, y, linf(0.1), generator=torch.Generator().manual_seed(5))
    assert not torch.equal(points, again)


def test_views_are_padded_with_the_lower_bound(lively):
    # Inputs from -1 to 1 instead of 0 to 1: the same attack.
    model, x, y = lively(count=4)

    class Wide(nn.Module):
        def forward(self, x):
            return model((x + 1) / 2)

    attack = MIFGSM(steps=3, diversity=1.0, shrink=0.5)
    narrow = attack.perturb(model, x, y, linf(0.1))
    wide = attack.perturb(Wide(), 2 * x - 1, y, Threat("linf", 0.2, bounds=(-1.0, 1.0)))
    torch.testing.assert_close((wide + 1) / 2, narrow)


def test_it_transfers_better_than_bim(digits):
    source, x, y = digits
    other = copy.deepcopy(source)
    with torch.no_grad():  # another model: the same one with noise on its weights
        for parameter in other.parameters():
            parameter += 0.25 * parameter.std() * torch.randn(parameter.shape)
    threat = linf(0.15)
    shares = [(other(a.perturb(source, x, y, threat)).argmax(1) != y).float().mean() for a in (BIM(), MIFGSM())]
    assert shares[1] >= shares[0] - 0.02
    assert shares[1] > (other(x).argmax(1) != y).float().mean() + 0.1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_half_precision_and_double_find_as_many(digits, dtype):
    net, x, y = digits
    expected = MIFGSM(diversity=0.5, translation=3)(net, x, y, linf(0.06))
    model = copy.deepcopy(net).to(dtype)
    got = MIFGSM(diversity=0.5, translation=3)(model, x.to(dtype), y, linf(0.06))
    assert abs(float(got.success.float().mean() - expected.success.float().mean())) < 0.05
    assert torch.equal(got.zero_gradient, expected.zero_gradient)


def test_a_radius_for_each_sample(digits):
    model, x, y = digits
    eps = torch.linspace(0, 0.1, 20)
    points = MIFGSM().perturb(model, x[:20], y[:20], linf(eps))
    torch.testing.assert_close((points - x[:20]).flatten(1).abs().amax(1), eps)


def test_one_forward_and_one_backward_per_step(lively):
    model, x, y = lively(count=6)
    with gates.counted(model) as passes:
        MIFGSM(steps=5, diversity=0.5, translation=3).perturb(model, x, y, linf(0.05))
    assert (passes["forwards"], passes["backwards"]) == (5, 5)


@pytest.mark.parametrize("settings", [{"diversity": 0.5}, {"translation": 3}])
def test_views_and_kernels_need_images(settings):
    model, x = nn.Linear(20, 3), torch.rand(4, 20)
    y = torch.tensor([0, 1, 2, 0])
    assert MIFGSM().perturb(model, x, y, linf(0.1)).shape == (4, 20)
    with pytest.raises(UsageError, match=r"for images \(N, C, H, W\), got inputs of shape \(4, 20\)"):
        MIFGSM(**settings).perturb(model, x, y, linf(0.1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"step": 0.0}, "step must be positive"),
        ({"decay": -1.0}, "decay must be at least 0 and finite, got -1.0"),
        ({"diversity": 1.5}, "diversity must be a probability"),
        ({"shrink": 0.0}, "shrink must be a share"),
        ({"translation": 4}, "translation must be an odd side"),
        ({"translation": -3}, "translation must be an odd side"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        MIFGSM(**settings)
