"""Where other libraries are right, ours agrees with them: entry by entry, or in what is found."""

from __future__ import annotations

import copy

import pytest
import torch

from steadygrad.attacks import APGD, BIM, DDN, FGSM, JSMA, MIFGSM, CarliniWagner, DeepFool, Square
from steadygrad.attacks.attack_result import judge
from steadygrad.threat import l0, l2, linf

EPS = 0.1
STEPPED = {"loss": "ce", "steps": 10, "step": 0.1}


def _agreement(mine: torch.Tensor, theirs: torch.Tensor) -> float:
    """The share of entries that are equal up to rounding: the sign of a slope near zero is a matter of rounding."""
    return (mine - theirs).abs().le(1e-5).float().mean().item()


def _found(model, x, y, points, threat, target=None):
    """How many of the points count, and their distances where they do."""
    success, _ = judge(model, x, points, y, threat, target)
    return success, torch.where(success, threat.distance(points - x), torch.inf)


# The same points


@pytest.mark.parametrize("name", ["foolbox", "torchattacks", "art"])
def test_fgsm(name, digits, request):
    library, (model, x, y) = request.getfixturevalue(name), digits
    if name == "foolbox":
        theirs = library.attacks.LinfFastGradientAttack()(library.PyTorchModel(model, (0, 1)), x, y, epsilons=EPS)[1]
    elif name == "torchattacks":
        theirs = library.FGSM(model, eps=EPS)(x, y)
    else:
        attack = library.FastGradientMethod(request.getfixturevalue("wrapped")(model, x), eps=EPS, batch_size=100)
        theirs = torch.from_numpy(attack.generate(x.numpy(), y.numpy()))
    assert _agreement(FGSM(loss="ce").perturb(model, x, y, linf(EPS)), theirs) > 0.999


@pytest.mark.parametrize("name", ["foolbox", "torchattacks", "art"])
def test_bim_step_by_step(name, digits, request):
    library, (model, x, y) = request.getfixturevalue(name), digits
    if name == "foolbox":
        attack = library.attacks.LinfBasicIterativeAttack(abs_stepsize=EPS / 10, steps=10)
        theirs = attack(library.PyTorchModel(model, (0, 1)), x, y, epsilons=EPS)[1]
    elif name == "torchattacks":
        theirs = library.PGD(model, eps=EPS, alpha=EPS / 10, steps=10, random_start=False)(x, y)
    else:
        wrapped = request.getfixturevalue("wrapped")(model, x)
        attack = library.BasicIterativeMethod(wrapped, EPS, EPS / 10, 10, batch_size=100, verbose=False)
        theirs = torch.from_numpy(attack.generate(x.numpy(), y.numpy()))
    assert _agreement(BIM(**STEPPED).perturb(model, x, y, linf(EPS)), theirs) > 0.995


def test_momentum_step_by_step(digits, torchattacks):
    net, x, y = digits
    model, x = copy.deepcopy(net).double(), x.double()
    theirs = torchattacks.MIFGSM(model, eps=EPS, alpha=EPS / 10, steps=10)(x, y)
    assert _agreement(MIFGSM(**STEPPED).perturb(model, x, y, linf(EPS)), theirs) > 0.999


def test_jsma_takes_the_same_pairs(digits, torchattacks):
    # In black and white every step is a whole one, and the map is the paper's without our weight for what is left.
    model, x = digits[0], (digits[1][:40] > 0.5).float()
    y = model(x).argmax(1)
    target, budget = (y + 1) % 10, 12
    attack = torchattacks.JSMA(model, theta=1.0, gamma=(budget - 0.5) / 64)
    attack.set_mode_targeted_by_label(quiet=True)
    theirs = attack(x.clone(), target)
    mine = JSMA(gamma=(budget + 0.5) / 64)(model, x, y, l0(budget), target=target)
    success, _ = _found(model, x, y, theirs, l0(budget), target)
    assert 5 < mine.success.sum() < 40
    assert torch.equal(mine.success, success)
    same = (mine.inputs - theirs).abs().flatten(1).amax(1)[success] < 1e-6
    assert same.float().mean() > 0.9


# The same strength


@pytest.mark.parametrize("name", ["foolbox", "art"])
def test_deepfool_finds_as_near_points(name, digits, request):
    library, (model, x, y) = request.getfixturevalue(name), digits
    if name == "foolbox":
        theirs = library.attacks.L2DeepFoolAttack()(library.PyTorchModel(model, (0, 1)), x, y, epsilons=None)[1]
    else:
        wrapped = request.getfixturevalue("wrapped")(model, x)
        attack = library.DeepFool(wrapped, max_iter=50, epsilon=0.02, batch_size=100, verbose=False)
        theirs = torch.from_numpy(attack.generate(x.numpy()))
    mine = DeepFool(candidates=9)(model, x, y, l2())
    success, distance = _found(model, x, y, theirs, l2())
    assert mine.success.all()
    assert success.float().mean() > 0.95
    assert mine.distance.median() == pytest.approx(distance.median().item(), rel=0.05)


def test_ddn_finds_at_least_as_near_points(digits, foolbox):
    model, x, y = digits
    theirs = foolbox.attacks.DDNAttack(steps=100)(foolbox.PyTorchModel(model, (0, 1)), x, y, epsilons=None)[1]
    _, distance = _found(model, x, y, theirs, l2())
    mine = DDN(steps=100)(model, x, y, l2())
    assert mine.success.all()
    assert 0.9 * distance.median() < mine.distance.median() < 1.01 * distance.median()


def test_carlini_wagner_finds_at_least_as_near_points(digits, foolbox):
    model, x, y = digits
    attack = foolbox.attacks.L2CarliniWagnerAttack(5, 100, stepsize=0.05, initial_const=1.0)
    _, distance = _found(model, x, y, attack(foolbox.PyTorchModel(model, (0, 1)), x, y, epsilons=None)[1], l2())
    mine = CarliniWagner(search_steps=5, steps=100)(model, x, y, l2())
    assert mine.success.all()
    assert 0.8 * distance.median() < mine.distance.median() <= distance.median()


@pytest.mark.parametrize("name", ["torchattacks", "art"])
def test_apgd_breaks_as_many(name, digits, request):
    library, (model, x, y) = request.getfixturevalue(name), digits
    if name == "torchattacks":
        theirs = library.APGD(model, norm="Linf", eps=EPS, steps=30)(x, y)
    else:
        attack = library.AutoProjectedGradientDescent(
            request.getfixturevalue("wrapped")(model, x), eps=EPS, eps_step=2 * EPS, max_iter=30, nb_random_init=1,
            batch_size=100, loss_type="cross_entropy", verbose=False,
        )  # fmt: skip
        theirs = torch.from_numpy(attack.generate(x.numpy(), y.numpy()))
    success, _ = _found(model, x, y, theirs, linf(EPS))
    mine = APGD(steps=30)(model, x, y, linf(EPS)).success
    assert 20 < mine.sum() < 90
    assert abs(int(mine.sum()) - int(success.sum())) <= 3


def test_square_breaks_as_many(digits, torchattacks):
    # Random searches: their counts differ by chance, by less than three standard deviations of a binomial.
    model, x, y = digits
    theirs = torchattacks.Square(model, norm="Linf", eps=EPS, n_queries=300)(x, y)
    success, _ = _found(model, x, y, theirs, linf(EPS))
    mine = Square(queries=300)(model, x, y, linf(EPS)).success
    assert 10 < mine.sum() < 90
    assert int(mine.sum()) > int(success.sum()) - 3 * 5
