"""What every defense is: settings, and the terms that it adds to the loss of one batch.

A defense either fits the data (by cross-entropy, adversarial examples, a teacher) or is a penalty. Plain
cross-entropy is added exactly once where no member of a sum fits the data.
"""

from __future__ import annotations

import abc
import contextlib
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad import derivatives, randomness, registry
from steadygrad.arguments import Inputs, Labels, public
from steadygrad.attacks import Attack
from steadygrad.calling import called
from steadygrad.classifier import bounds_of, check_classes, check_inputs, check_logits, frozen
from steadygrad.data import Dataset
from steadygrad.errors import UsageError
from steadygrad.neurons import Layers, recorded
from steadygrad.registry import Method, Registry
from steadygrad.threat import Norm, Threat
from steadygrad.values import Positive, check_settings

DEFENSES: Registry[Defense] = Registry("defense")

SECOND_ORDER = (
    "the weight gradient of an input gradient does not survive half precision: on deep networks it was "
    "a third off in bfloat16, and in float16 most of it underflowed"
)
"""Why a loss that holds input gradients is computed in float32 (`Defense.mixed_precision`)."""


@dataclass(frozen=True)
class Loss:
    """The loss of one batch, a mean over its samples: `total` with a graph, and the parts that add up to it."""

    total: Tensor
    parts: Mapping[str, Tensor]


@dataclass(frozen=True)
class State:
    """What a loss may use besides the model and the batch.

    Args:
        teacher: the trained network that a defense with a `teacher` learns from.
        seed: all that is random in the loss follows from it; training gives every step another one.
        offset: how many samples come before these ones, where several processes share a batch.
        memory: what `Defense.remember` returned last.
        samples: positions (N,) of the samples in the training data; None outside of training.
        follow: moves maps (N, C, H, W) of the samples as augmentation has moved the inputs.
    """

    teacher: nn.Module | None = None
    seed: int = 0
    offset: int = 0
    memory: Mapping[str, Tensor] = field(default_factory=dict)
    samples: Tensor | None = None
    follow: Callable[[Tensor], Tensor] | None = None


class Step:
    """One batch and the model; what several terms need, such as the clean logits, is computed once."""

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        state: State,
        *,
        input_gradients: bool,
        watched: Sequence[Layers] = (),
    ) -> None:
        self.model, self.y, self.state = called(model), y, state
        self.x = x.detach().requires_grad_() if input_gradients else x.detach()
        self._second_order = input_gradients
        self._streams = 0
        self._outputs: dict[Layers, dict[str, Tensor]] = {layers: {} for layers in watched}

    @cached_property
    def logits(self) -> Tensor:
        """Clean logits (N, K) with a graph, in the mode the model is in; at least float32."""
        with contextlib.ExitStack() as stack:
            if self._second_order:
                stack.enter_context(derivatives.math_attention())
            for layers in self._outputs:
                self._outputs[layers] = stack.enter_context(recorded(self.model, layers))
            self._draws = randomness.state_of(self.x.device)
            logits: Tensor = self.model(self.x)
        return self._checked(logits)

    def _checked(self, logits: Tensor) -> Tensor:
        if self.state.samples is None:  # training has checked its data, and a look waits for the device
            check_inputs(self.x, self.y, (-math.inf, math.inf))
            check_logits(logits, len(self.x))
            check_classes(self.y, logits.shape[1])
        return logits

    def outputs(self, layers: Layers) -> dict[str, Tensor]:
        """The outputs of watched layers in the pass of `logits`, by name, with a graph."""
        _ = self.logits
        return self._outputs[layers]

    @cached_property
    def cross_entropy(self) -> Tensor:
        """Cross-entropy of the labels at the clean inputs (N,)."""
        return F.cross_entropy(self.logits, self.y, reduction="none")

    def input_gradient(self, values: Tensor) -> Tensor:
        """Gradient (N, *) of values (N,), made of `logits`, with a graph to the weights."""
        with derivatives.math_attention():
            (slope,) = torch.autograd.grad(values.sum(), self.x, create_graph=True)
        return slope

    def at(self, x: Tensor, *, same_dropout: bool = False) -> Tensor:
        """Logits (N, K) at other points with a graph; at least float32. Dropout may draw as in the pass of `logits`."""
        if not same_dropout:
            return self._checked(self.model(x))
        _ = self.logits  # has the state of the generator before its pass kept
        with randomness.replayed(self._draws, x.device):
            return cast(Tensor, self.model(x))

    def perturb(self, attack: Attack, norm: Norm, eps: float | None, y: Tensor) -> Tensor:
        """Points (N, *) of an attack on the model in evaluation mode, without a graph."""
        threat = Threat(norm, eps, bounds_of(self.model) or (0.0, 1.0))
        # In float16 small input gradients underflow, and with them the attack.
        narrow = torch.is_autocast_enabled(self.x.device.type)
        narrow = narrow and torch.get_autocast_dtype(self.x.device.type) != torch.float16
        with torch.autocast(self.x.device.type, enabled=narrow):
            return attack.perturb(self.model, self.x, y, threat, generator=self.seeds())

    def seeds(self) -> Tensor:
        """Seeds (N,), one per sample; other ones at each call."""
        self._streams += 1
        generator = randomness.fresh(randomness.seed_of(self.state.seed, self._streams))
        randomness.sample_seeds(self.state.offset, generator)
        return randomness.sample_seeds(len(self.x), generator)

    def logits_of(self, model: nn.Module) -> Tensor:
        """Logits (N, K) of the clean inputs by a model in evaluation mode, without a graph."""
        with frozen(model) as model, torch.no_grad():
            return cast(Tensor, model(self.x))


@dataclass(frozen=True)
class Defense(Method, abc.ABC):
    """A training objective; `a + b` trains with both. Subclasses write `terms`.

    Class attributes:
        fits: whether the terms fit the data; else they are a penalty.
        input_gradients: whether they take input gradients of the clean logits.
        mixed_precision: True, or the reason why the loss must be computed in float32.
    """

    fits: ClassVar[bool] = False
    input_gradients: ClassVar[bool] = False
    mixed_precision: ClassVar[bool | str] = True

    def __post_init__(self) -> None:
        check_settings(self)
        attack, norm = getattr(self, "attack", None), getattr(self, "norm", None)
        if isinstance(attack, Attack) and norm not in attack.norms:
            raise UsageError(f"{type(attack).__name__} works for {', '.join(attack.norms)}, not for {norm!r}")

    @abc.abstractmethod
    def terms(self, step: Step) -> dict[str, Tensor]:
        """Named terms (N,), weighted, to be added up."""

    @public
    def loss(self, model: nn.Module, x: Inputs, y: Labels, state: State | None = None) -> Loss:
        """The loss of inputs x (N, *) with labels y (N,); the model stays in the mode it is in.

        Raises:
            UsageError: a defense with a teacher was given none.
        """
        gradients = any(d.input_gradients for d in self.members)
        watched = [layers for d in self.members for layers in d.watched]
        step = Step(model, x, y, state or State(), input_gradients=gradients, watched=watched)
        terms: dict[str, Tensor] = {}
        if not any(d.fits for d in self.members):
            terms["cross_entropy"] = step.cross_entropy
        for defense in self.members:
            for name, values in defense.terms(step).items():
                names = itertools.chain([name], (f"{name} {i}" for i in itertools.count(2)))
                terms[next(n for n in names if n not in terms)] = values
        parts = {name: values.mean() for name, values in terms.items()}
        return Loss(torch.stack(list(parts.values())).sum(), {name: value.detach() for name, value in parts.items()})

    @property
    def members(self) -> tuple[Defense, ...]:
        """The defenses that this one is a sum of: itself, for all but `Sum`."""
        return (self,)

    @property
    def watched(self) -> tuple[Layers, ...]:
        """Choices of layers for which the terms call `step.outputs`."""
        return ()

    def remember(self, epoch: int, model: nn.Module, train: Dataset, state: State) -> dict[str, Tensor]:
        """What the loss needs to know of the network or the data from this epoch (from 0) on, by unique names.

        Training calls it before every epoch, updates `State.memory` with the answer, writes it to the checkpoints
        and gives all processes that of the first.
        """
        return {}

    @property
    def teacher(self) -> Defense | None:
        """What the network in `State.teacher` must have been trained with; None for no teacher."""
        return None

    def __add__(self, other: object) -> Defense:
        return Sum((self, other)) if isinstance(other, Defense) else NotImplemented


@DEFENSES.register(
    "plain", summary="cross-entropy and nothing else", reference="baseline", cost="1 forward + 1 backward", order=0
)
@dataclass(frozen=True)
class Plain(Defense):
    """Cross-entropy of the logits divided by a temperature.

    >>> Plain()
    Plain(temperature=1.0)
    """

    temperature: Positive = 1.0
    fits = True

    def terms(self, step: Step) -> dict[str, Tensor]:
        if self.temperature == 1:
            return {"cross_entropy": step.cross_entropy}
        return {"cross_entropy": F.cross_entropy(step.logits / self.temperature, step.y, reduction="none")}


@DEFENSES.register(
    "sum",
    summary="several defenses at once, written a + b; the clean forward pass is shared",
    reference="composition rule of this library",
    cost="that of its members, less the clean forward passes they share",
    order=2,
)
@dataclass(frozen=True)
class Sum(Defense):
    """All terms of its members; cross-entropy is added once where none of them fits the data.

    >>> (Plain() + Plain(2.0) + Plain(3.0)).members
    (Plain(temperature=1.0), Plain(temperature=2.0), Plain(temperature=3.0))
    """

    parts: tuple[Defense, ...]

    def __post_init__(self) -> None:
        check_settings(self)
        object.__setattr__(self, "parts", tuple(member for part in self.parts for member in part.members))
        if not self.parts:
            raise UsageError("parts is empty: a sum of defenses needs at least one member")
        if len({part.teacher for part in self.parts} - {None}) > 1:
            raise UsageError("the defenses of a sum need different teachers, and training has one: leave one out")

    def terms(self, step: Step) -> dict[str, Tensor]:
        raise TypeError("a sum has no terms of its own: its members have")

    @property
    def members(self) -> tuple[Defense, ...]:
        return self.parts

    @property
    def teacher(self) -> Defense | None:
        return next((part.teacher for part in self.parts if part.teacher), None)

    @property
    def mixed_precision(self) -> bool | str:  # type: ignore[override]
        return next((part.mixed_precision for part in self.parts if part.mixed_precision is not True), True)


@public
def parse(text: str) -> Defense:
    """Make a defense from a flag such as `adversarial:eps=0.3` or `plain+input_gradient:weight=10`.

    >>> len(parse("plain+plain:temperature=2").members)
    2
    """
    members: list[Defense] = [registry.parse("defense", part) for part in re.split(r"\+(?=\s*[a-z_])", text)]
    return members[0] if len(members) == 1 else Sum(tuple(members))
