"""Where other libraries are wrong: the very case, with their answer written down and ours beside it.

A library that mends a defect fails its test here, and the line is to be taken out.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from benchmarks.attacks.race import median_interval
from steadygrad.attacks import APGD, FMN, JSMA, MIFGSM, PGD, CarliniWagner, DeepFool
from steadygrad.attacks.attack_result import judge
from steadygrad.threat import Threat, l0, l1, l2, linf


class Changed(nn.Module):
    """A model whose inputs are divided, and whose logits are multiplied and shifted."""

    def __init__(self, model: nn.Module, *, inputs: float = 1.0, scale: float = 1.0, shift: float = 0.0) -> None:
        super().__init__()
        self.model, self.inputs, self.scale, self.shift = model, inputs, scale, shift
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x / self.inputs) * self.scale + self.shift


def _success(model, x, y, points, threat):
    return judge(model, x, points, y, threat)[0]


# Smallest changes


def test_unsolved_samples_of_carlini_wagner(digits, foolbox):
    model, x, y = digits
    short = {"binary_search_steps": 1, "steps": 3, "initial_const": 1e-6}
    attack = foolbox.attacks.L2CarliniWagnerAttack(**short)
    _, theirs, said = attack(foolbox.PyTorchModel(model, (0, 1)), x, y, epsilons=None)
    black = (theirs == 0).flatten(1).all(1)
    assert black.sum() > 90, "foolbox returns black images where it found nothing"
    assert said[black].any(), "and calls those successes that the model takes for another class"
    mine = CarliniWagner(search_steps=1, steps=1, initial_constant=1e-6)(model, x, y, l2())
    assert not mine.success.any()
    assert torch.equal(mine.inputs, x)


def test_projection_of_fmn(digits, foolbox):
    model, x, y = digits
    far, radius = x + 0.5, torch.full((len(x),), 0.1)
    import eagerpy

    theirs = foolbox.attacks.L2FMNAttack().project(*map(eagerpy.astensor, (far, x, radius))).raw
    assert torch.equal(theirs, x + (far - x)), "foolbox projects nothing onto the ball"
    size = l2().distance(l2(radius).project(far - x))
    torch.testing.assert_close(size, radius)
    # And so its points are farther away in as many steps.
    attack = foolbox.attacks.L2FMNAttack(steps=50)
    points = attack(foolbox.PyTorchModel(model, (0, 1)), x, y, epsilons=None)[1]
    found = FMN(steps=50)(model, x, y, l2())
    assert found.success.all()
    assert l2().distance(points - x).median() > 1.1 * found.distance.median()


def test_deepfool_and_the_range_of_the_inputs(digits, art, wrapped):
    net, x, y = digits
    wide, bounds = Changed(net, inputs=255.0), (0.0, 255.0)

    def theirs(model, inputs, bounds):
        attack = art.DeepFool(wrapped(model, inputs, bounds=bounds), 50, 0.02, batch_size=100, verbose=False)
        return l2().distance(torch.from_numpy(attack.generate(inputs.numpy())) - inputs).median().item()

    assert theirs(wide, x * 255, bounds) > 2 * 255 * theirs(net, x, (0.0, 1.0)), "art multiplies steps by the range"
    small, large = DeepFool()(net, x, y, l2()), DeepFool()(wide, x * 255, y, Threat("l2", None, bounds))
    torch.testing.assert_close(large.distance, 255 * small.distance, rtol=1e-3, atol=0.0)


def test_deepfool_found_again_in_another_batch(digits, torchattacks):
    model, x, y = digits[0], digits[1][:30], digits[2][:30]
    again = _success(model, x, y, torchattacks.DeepFool(model, steps=15)(x, y), l2())
    assert again.float().mean() < 0.8, "torchattacks leaves points on the boundary"
    mine = DeepFool()(model, x, y, l2())
    assert _success(model, x, y, mine.inputs, l2()).all()


def test_background_moves_under_carlini_wagner(digits, torchattacks):
    model, x, y = digits
    background, points = x == 0, torchattacks.CW(model, c=5, steps=100)(x, y)
    assert (points != x).any()
    assert (points == x)[background].all(), "torchattacks never moves entries at a bound"
    assert (CarliniWagner(search_steps=2, steps=50)(model, x, y, l2()).inputs != x)[background].float().mean() > 0.2


def test_carlini_wagner_with_negative_logits(digits, torchattacks):
    net, x, y = digits
    low = Changed(net, shift=-100.0)
    attack = {"c": 5, "steps": 100}
    assert _success(net, x, y, torchattacks.CW(net, **attack)(x, y), l2()).float().mean() > 0.9
    points = torchattacks.CW(low, **attack)(x, y)
    assert not _success(low, x, y, points, l2()).any(), "torchattacks takes 0 for the best other logit"
    mine = CarliniWagner(search_steps=2, steps=50)
    assert mine(low, x, y, l2()).success.all()


def test_neighbors_in_the_batch_of_carlini_wagner(digits, torchattacks):
    model, x, y = digits[0], digits[1][:8], digits[2][:8]

    def theirs(inputs, labels):
        return torchattacks.CW(model, c=1, steps=50, lr=0.2)(inputs, labels)

    alone = torch.cat([theirs(x[i : i + 1], y[i : i + 1]) for i in range(8)])
    assert (theirs(x, y) - alone).abs().max() > 1e-3, "torchattacks stops a sample when the sum over the batch rises"
    mine = CarliniWagner(search_steps=1, steps=40)
    alone = torch.cat([mine(model, x[i : i + 1], y[i : i + 1], l2()).inputs for i in range(8)])
    torch.testing.assert_close(mine(model, x, y, l2()).inputs, alone, atol=1e-4, rtol=0)


def test_what_nothing_was_found_for_is_not_zero(digits, art, wrapped):
    from art.metrics import empirical_robustness

    _, x, y = digits
    last = nn.Linear(64, 10)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    last.bias.data[3] = 5
    deaf, x, y = nn.Sequential(nn.Flatten(), last), x[y == 3], y[y == 3]
    score = empirical_robustness(wrapped(deaf, x), x.numpy(), "fgsm", {"eps": 0.1, "eps_step": 0.1})
    assert score == 0.0, "art scores a model that cannot be broken as if no change were needed"
    mine = DeepFool()(deaf, x, y, l2())
    assert torch.isinf(mine.distance).all()
    assert median_interval(mine.distance.tolist())["value"] is None


# Fixed radius


@pytest.mark.parametrize("name", ["foolbox", "torchattacks", "art"])
def test_certain_models_do_not_hide(name, digits, request):
    library, (net, x, y) = request.getfixturevalue(name), digits
    eps, sure = 0.1, Changed(net, scale=1000.0)

    def theirs(model):
        if name == "foolbox":
            attack = library.attacks.LinfPGD(steps=40, random_start=False)
            return attack(library.PyTorchModel(model, (0, 1)), x, y, epsilons=eps)[1]
        if name == "torchattacks":
            return library.PGD(model, eps=eps, alpha=eps / 10, steps=40, random_start=False)(x, y)
        wrapped = request.getfixturevalue("wrapped")(model, x)
        attack = library.ProjectedGradientDescent(wrapped, eps=eps, eps_step=eps / 10, max_iter=40, batch_size=100)
        return torch.from_numpy(attack.generate(x.numpy(), y.numpy()))

    plain, scaled = (_success(m, x, y, theirs(m), linf(eps)).float().mean().item() for m in (net, sure))
    assert scaled < plain - 0.15, f"the gradient of {name}'s cross-entropy vanishes where the model is certain"
    found = [PGD()(model, x, y, linf(eps)).success.float().mean().item() for model in (net, sure)]
    assert found[1] == pytest.approx(found[0], abs=0.011)
    assert found[0] >= plain - 0.011


def test_momentum_averages_normalized_gradients(digits, foolbox):
    # The same model, but for the scale of its loss: a sum of normalized gradients does not see it.
    net, x, y = digits
    model, x, eps = copy.deepcopy(net).double(), x.double(), 0.1
    attack = foolbox.attacks.LinfMomentumIterativeFastGradientMethod(abs_stepsize=eps / 10, steps=10)
    theirs = attack(foolbox.PyTorchModel(model, (0, 1)), x, y, epsilons=eps)[1]
    mine = MIFGSM(loss="ce", steps=10, step=0.1).perturb(model, x, y, linf(eps))
    points, average = x, torch.zeros_like(x)
    for _ in range(10):
        leaf = points.clone().requires_grad_()
        (slope,) = torch.autograd.grad(nn.functional.cross_entropy(model(leaf), y, reduction="sum"), leaf)
        average = average + slope / slope.abs().sum((1, 2, 3), keepdim=True)
        points = (points + eps / 10 * average.sign()).clamp(x - eps, x + eps).clamp(0, 1)
    assert (mine - points).abs().max() < 1e-9
    assert (theirs - points).abs().gt(1e-3).float().mean() > 0.02, "foolbox sums the gradients as they are"


def test_two_classes(digits, torchattacks):
    net, x, _ = digits
    model = nn.Sequential(net, nn.Linear(10, 2, bias=False))
    model[1].weight.data = torch.eye(10)[[3, 8]]
    labels = model(x).argmax(1)
    with pytest.raises(IndexError):
        torchattacks.APGD(model, eps=0.1, loss="dlr")(x, labels)
    assert APGD(steps=20, loss="dlr")(model, x, labels, linf(0.1)).success.any()


def test_steps_in_l1(digits, foolbox):
    model, x, y = digits
    eps = 1.5
    attack = foolbox.attacks.L1ProjectedGradientDescentAttack(steps=50)
    theirs = _success(model, x, y, attack(foolbox.PyTorchModel(model, (0, 1)), x, y, epsilons=eps)[1], l1(eps))
    mine = PGD(steps=50)(model, x, y, l1(eps)).success
    assert mine.float().mean() > theirs.float().mean() + 0.1, "foolbox divides the gradient by its l1 norm"


def test_the_best_pair_of_jsma(art, wrapped):
    # Entries 0 and 1 raise the goal most, but raise the others more; 2 and 3 raise it alone.
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False))
    model[1].weight.data = torch.tensor([[9.0, 9.0, -1.0, -1.0], [3.0, 3.0, 2.0, 2.0], [9.0, 9.0, 0.0, 0.0]])
    model[1].bias = nn.Parameter(torch.tensor([3.0, 0.0, 0.0]))
    x, y, goal = torch.zeros(1, 1, 2, 2), torch.tensor([0]), torch.tensor([1])
    attack = art.SaliencyMapMethod(wrapped(model, x, classes=3), theta=1.0, gamma=0.4, verbose=False)
    points = torch.from_numpy(attack.generate(x.numpy(), goal.numpy()))
    assert points.flatten().tolist() == [1, 1, 0, 0], "art looks at the goal's gradient alone"
    mine = JSMA(gamma=0.5)(model, x, y, l0(2), target=goal)
    assert mine.success.all()
    assert mine.inputs.flatten().tolist() == [0, 0, 1, 1]


# Leave no trace


def test_the_model_and_the_random_numbers_stay_as_they_are(digits, foolbox, torchattacks, art, wrapped):
    net, x, y = digits
    model = copy.deepcopy(net)
    foolbox.attacks.LinfPGD(steps=2)(foolbox.PyTorchModel(model, (0, 1)), x, y, epsilons=0.1)
    assert all(p.grad is not None for p in model.parameters()), "foolbox fills the gradients of the weights"
    model = copy.deepcopy(net).train()
    art.FastGradientMethod(wrapped(model, x), eps=0.1).generate(x.numpy(), y.numpy())
    assert not model.training, "art leaves the model in evaluation mode"
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        torchattacks.Square(net, eps=0.1, n_queries=2, seed=0)(x, y)
        states.append(torch.get_rng_state())
    assert torch.equal(*states), "torchattacks seeds the global generator"
    model, before = copy.deepcopy(net).train(), torch.get_rng_state()
    for attack in (PGD(steps=2), CarliniWagner(search_steps=1, steps=2)):
        attack(model, x, y, linf(0.1) if isinstance(attack, PGD) else l2())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)
