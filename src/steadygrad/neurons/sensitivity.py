"""How much the output of each neuron changes from a benign to an adversarial input."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from steadygrad import randomness
from steadygrad.arguments import Inputs, arithmetic, public
from steadygrad.classifier import bounds_of, check_inputs, frozen
from steadygrad.errors import UsageError, at_least_one
from steadygrad.neurons.recording import Layers, by_neuron, recorded
from steadygrad.values import Count, Seed, Share

CHUNK = 256


@arithmetic
def change(benign: Tensor, adversarial: Tensor) -> Tensor:
    """Mean absolute difference (N, neurons) of two outputs (N, *) of a layer over the entries of each neuron."""
    gap = by_neuron(adversarial) - by_neuron(benign)
    return (gap.float() if gap.dtype.itemsize < 4 else gap).abs().mean(2)


@public
def changes(
    model: nn.Module, x: Inputs, x_adv: Inputs, *, layers: Layers = None, chunk: Count = CHUNK
) -> dict[str, Tensor]:
    """The `change` of each neuron for each pair of inputs (N, *), by layer (N, neurons); the model is left as it was.

    Args:
        layers: see `recorded`.
        chunk: pairs per forward; the values do not depend on it.

    Raises:
        UsageError: inputs that are no pairs, or outside the bounds; layers as in `recorded`.
    """
    parts = list(_parts(model, [(x, x_adv)], layers, chunk))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


@public
def sensitivity(
    model: nn.Module, x: Inputs, x_adv: Inputs, *, layers: Layers = None, chunk: Count = CHUNK
) -> dict[str, Tensor]:
    """The sensitivity of each neuron (neurons,), by layer: its mean change over the pairs.

    sigma(m) = 1/N sum_i ||F_m(x_i) - F_m(x'_i)||_1 / dim F_m (Zhang et al. 2021, arXiv 1909.06978).
    Arguments and errors as in `changes`.

    >>> model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 2))
    >>> _ = model[0].weight.data.copy_(torch.tensor([[1.0], [-3.0]]))
    >>> sensitivity(model, torch.tensor([[0.5]]), torch.tensor([[1.0]]))
    {'1': tensor([0.5000, 0.0000], dtype=torch.float64)}
    """
    return stream(model, [(x, x_adv)], layers=layers, chunk=chunk)


@arithmetic
def stream(
    model: nn.Module, pairs: Iterable[tuple[Tensor, Tensor]], *, layers: Layers = None, chunk: Count = CHUNK
) -> dict[str, Tensor]:
    """The sensitivity of each neuron over batches of pairs (x, x_adv), which may be made as they are taken.

    >>> model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    >>> batches = [torch.rand(5, 3) for _ in range(2)]
    >>> stream(model, ((x, 1 - x) for x in batches))["1"].shape
    torch.Size([4])
    """
    total: dict[str, Tensor] = {}
    count = 0
    for part in _parts(model, pairs, layers, chunk):
        for name, values in part.items():
            # In float64 on the CPU, so that the order of the pairs does not show.
            rows = values.cpu().double().sum(0)
            total[name] = total[name] + rows if name in total else rows
        count += len(values)
    if not count:
        raise UsageError("pairs is empty: sensitivity needs at least one pair (x, x_adv)")
    return {name: value / count for name, value in total.items()}


def _parts(
    model: nn.Module, pairs: Iterable[tuple[Tensor, Tensor]], layers: Layers, chunk: int
) -> Iterator[dict[str, Tensor]]:
    at_least_one(chunk=chunk)
    if layers is not None and not layers:
        raise UsageError("layers is empty: give at least one pattern, or None for all activation modules")
    for x, x_adv in pairs:
        if x.shape != x_adv.shape:
            raise UsageError(f"x and x_adv must be of one shape, got {tuple(x.shape)} and {tuple(x_adv.shape)}")
        for inputs in (x, x_adv):
            check_inputs(inputs, None, bounds_of(model) or (-math.inf, math.inf))
        for start in range(0, len(x), chunk):
            with frozen(model) as model, torch.no_grad(), recorded(model, layers) as outputs:
                model(x[start : start + chunk])
                benign = dict(outputs)
                model(x_adv[start : start + chunk])
                found = {name: change(value, outputs[name]) for name, value in benign.items()}
            yield found


@arithmetic
def select(
    sigma: Mapping[str, Tensor],
    share: Share = 0.1,
    which: Literal["most", "least", "random"] = "most",
    *,
    seed: Seed = 0,
) -> dict[str, Tensor]:
    """The indices of a share of each layer's neurons, at least one: the most or least sensitive, or random ones.

    >>> select({"conv": torch.tensor([0.1, 0.7, 0.3, 0.2])}, 0.5)
    {'conv': tensor([1, 2])}
    """
    generator = randomness.fresh(seed)
    chosen = {}
    for name, values in sigma.items():
        count = math.ceil(share * len(values) - 1e-9)
        if which == "random":
            order = torch.randperm(len(values), generator=generator)
        else:
            # Stable: of equal neurons the first ones, on every machine.
            order = torch.sort(values, descending=which == "most", stable=True).indices
        chosen[name] = order[: max(1, count)]
    return chosen


@arithmetic
def curve(sigma: Mapping[str, Tensor]) -> dict[str, float]:
    """The mean sensitivity of each layer, in the order of the layers."""
    return {name: float(values.cpu().double().mean()) for name, values in sigma.items()}


@arithmetic
def spectrum(sigma: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The sensitivities of each layer in falling order."""
    return {name: values.sort(descending=True).values for name, values in sigma.items()}
