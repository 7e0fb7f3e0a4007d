"""All values of a network over a ball, forwards, and all slopes, backwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from steadygrad.bounds.network import Network
from steadygrad.bounds.spans import Span, total

__all__ = ["Sweep", "backward"]


@dataclass(frozen=True)
class Sweep:
    """Spans of the values (by place) and of the slopes of the score with respect to them.

    `seed` is the slope with respect to the logits, `bare_seed` the same as if these left nothing out.
    """

    network: Network
    spans: list[Span]
    slopes: dict[int, Span]
    seed: Span
    bare_seed: Span


def backward(
    network: Network, spans: list[Span], seed: Span, narrow: Callable[[int, Span], Span] = lambda _, span: span
) -> dict[int, Span]:
    """Slopes by place, from those of the logits; each is narrowed before it is carried on."""
    last = len(network.steps)
    waiting: dict[int, list[Span]] = {last: [seed]}
    slopes: dict[int, Span] = {}
    for place in range(last, -1, -1):
        got = waiting.pop(place, None)
        if got is None:
            continue
        slopes[place] = narrow(place, got[0] if len(got) == 1 else total(got))
        if place:
            layer, inputs = network.steps[place - 1]
            for i, back in zip(inputs, layer.backward(slopes[place], *(spans[i] for i in inputs))):
                waiting.setdefault(i, []).append(back)
    return slopes
