"""What every attribution is: a frozen value that turns a model and inputs into maps."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.arguments import Classes, Inputs, arithmetic, public
from steadygrad.calling import called
from steadygrad.classifier import bounds_of, check_inputs, check_logits, frozen
from steadygrad.derivatives import math_attention
from steadygrad.errors import Failure, UsageError
from steadygrad.registry import Method, Registry
from steadygrad.values import check_settings

Of = Literal["logit", "log_probability", "probability", "loss", "log_odds"]
Forward = Callable[[Tensor], Tensor]


@arithmetic
def score(logits: Tensor, target: Classes, of: Of) -> Tensor:
    """The number per sample (N,) that is explained, of logits (N, K) and classes (N,).

    "logit": z_t; "log_probability": log softmax(z)_t; "probability": softmax(z)_t;
    "loss": the cross-entropy, which is minus the log probability; "log_odds": log p / (1 - p). The
    gradient of the last points the way of that of the log probability and never fades.

    >>> score(torch.tensor([[1.0, 3.0]]), torch.tensor([1]), "logit")
    tensor([3.])
    """
    place = target.long()[:, None]
    own = logits.gather(1, place)[:, 0]
    if of == "logit":
        return own
    # Not softmax, whose slope 1 - p is rounded to nothing where the class leads by 17 or more.
    odds = own - logits.scatter(1, place, -torch.inf).logsumexp(1)
    if of == "log_odds":
        return odds
    loss = F.softplus(-odds)
    return loss if of == "loss" else torch.exp(-loss) if of == "probability" else -loss


@dataclass(frozen=True)
class Attribution(Method, abc.ABC):
    """A way to explain a prediction.

    By default the model runs in evaluation mode and is left as it was, after errors too, and the maps carry no
    graph. With `create_graph=True` the maps can be differentiated with respect to the weights and, if x requires
    a gradient, to x. The model then runs as the caller set it (mode, requires_grad), with attention on the math
    kernel; batch normalization in training mode sees the points that the method evaluates, and dropout draws
    for them.

    >>> from steadygrad.attributions import Saliency
    >>> model = nn.Linear(2, 3)
    >>> maps = Saliency()(model, torch.rand(5, 2), torch.zeros(5, dtype=torch.long))
    >>> maps.shape, torch.equal(maps[0], model.weight[0])
    (torch.Size([5, 2]), True)
    """

    def __post_init__(self) -> None:
        check_settings(self, of="score to explain")

    @public
    def __call__(self, model: nn.Module, x: Inputs, target: Classes, *, create_graph: bool = False) -> Tensor:
        """Maps of the shape of x (N, *) for the classes target (N,), signed.

        Raises:
            UsageError: inputs outside the bounds, targets that are not classes, no logits; with
                create_graph and an x that requires a gradient, a score without curvature.
            Failure: logits or maps that are not finite.
        """
        check_inputs(x, target, bounds_of(model) or (-math.inf, math.inf))
        model = called(model)
        forward = _checked(model, target)
        if create_graph:
            if x.requires_grad:
                self.require_curvature(model, x, target)
            with torch.enable_grad(), math_attention():
                maps = self.maps(forward, x, target, create_graph=True)
        else:
            with frozen(model):
                maps = self.maps(forward, x, target, create_graph=False)
        self.check_finite(maps.detach())
        return maps

    def check_finite(self, maps: Tensor) -> None:
        """Refuse NaN and infinite maps (N, *)."""
        finite = torch.isfinite(maps).flatten(1).all(1)
        if not bool(finite.all()):
            count = f"{int((~finite).sum())} of {len(maps)} inputs"
            name = type(self).__name__
            raise Failure(
                f"{name} gives NaN or infinite maps for {count}: the gradient of the model is not finite there"
            )

    @abc.abstractmethod
    def maps(self, forward: Forward, x: Tensor, target: Tensor, *, create_graph: bool) -> Tensor:
        """The maps (N, *) alone, without the checks and the freezing of a call."""

    def pulled_back(self, forward: Forward, x: Tensor, target: Tensor, v: Tensor) -> Tensor:
        """The gradient (N, *) at inputs (N, *) of the sum of v (N, *) times the maps, v held fixed: J^T v.

        What is made of many points overrides it, and holds the graph of a few of them at a time.

        Raises:
            UsageError: the maps are no function of the inputs that can be differentiated.
        """
        with torch.enable_grad(), math_attention():
            leaf = x.detach().requires_grad_()
            maps = self.maps(forward, leaf, target, create_graph=True)
            self.check_graph(maps)
            (product,) = torch.autograd.grad(maps, leaf, v)
        return product

    def check_graph(self, maps: Tensor) -> None:
        """Refuse maps without a graph, for who follows derivatives."""
        if not maps.requires_grad:
            refused = f"{type(self).__name__} gives maps without a graph to the input"
            raise UsageError(f"{refused}: an attack that follows gradients needs a differentiable attribution")

    def require_curvature(self, model: nn.Module, x: Tensor, target: Tensor) -> None:
        """Refuse a model whose maps cannot be moved by following derivatives; overridden where gradients are taken."""
        return


ATTRIBUTIONS: Registry[Attribution] = Registry("attribution")


def _checked(model: nn.Module, target: Tensor) -> Forward:
    # The number of classes is known only after a forward, so the first one is checked.
    checked = False

    def forward(x: Tensor) -> Tensor:
        nonlocal checked
        logits: Tensor = model(x)
        if not checked:
            check_logits(logits, len(x))
            classes, least, most = logits.shape[1], int(target.min()), int(target.max())
            if least < 0 or most >= classes:
                raise UsageError(
                    f"target must be within 0..{classes - 1} (the model has {classes} classes), got {least}..{most}"
                )
            checked = True
        return logits

    return forward
