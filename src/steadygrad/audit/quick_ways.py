"""The way in which searches run a model of an audit: the one that is asked for, where a trial on samples allows it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from steadygrad.attacks.expectation import draws_of
from steadygrad.audit.audited_models import Note
from steadygrad.calling import samples_may_fail, unwrap
from steadygrad.classifier import frozen
from steadygrad.data import Dataset
from steadygrad.derivatives import gradient
from steadygrad.errors import out_of_memory
from steadygrad.measuring.runner import borrowed
from steadygrad.memory import at_once
from steadygrad.quick import USUAL, Precision, Way, taking
from steadygrad.randomness import sample_seeds
from steadygrad.registry import label_of

if TYPE_CHECKING:
    from steadygrad.audit.audit_plan import AuditPlan

_PREDICTED, _ATTACKED = 64, 16
"""Samples whose predictions, and those for which what an attack finds, must be the same."""
_FASTER = 1.05
_CLOSE: dict[Precision, float] = {"float32": 1e-3, "tf32": 1e-2, "bfloat16": 5e-2}
"""How far compiled logits and gradients may be from the others, as a share of the largest."""


def way_for(model: nn.Module, data: Dataset, plan: AuditPlan, *, gradients: bool) -> tuple[Way, list[Note]]:
    """How searches run a model under a plan, and what has to be told about that.

    Args:
        gradients: whether the model gives any.
    """
    notes = []
    with borrowed([model], plan.device) as device:
        x, y = (part.to(device) for part in data.batch(range(min(_PREDICTED, len(data)))))
        way = Way(plan.precision)
        if plan.precision != "float32":
            reason, found = _unequal(model, x, y, way, plan, gradients)
            if reason:
                way, found = Way(), f"{plan.precision} was asked for, and float32 taken: {reason}"
            notes.append(Note("precision", False, found))
        count = at_once(plan.batch_size, data.shape, device)
        if device.type == "cuda" and gradients:
            way.channels_last = _better_last(model, x[:count], way)
        if plan.compile:
            notes.append(Note("compiled", False, _compiled(model, x[:count], way, gradients)))
    return way, notes


def _unequal(model: nn.Module, x: Tensor, y: Tensor, way: Way, plan: AuditPlan, gradients: bool) -> tuple[str, str]:
    """Why a type is not taken, empty if it is; and what was compared."""
    kind = next((p.dtype for p in model.parameters()), None)
    if kind != torch.float32:
        return f"the weights are not of float32 ({kind})", ""
    if way.precision == "tf32" and x.device.type != "cuda":
        return f"TF32 is a type of CUDA devices, and not of {x.device.type}", ""
    seeds, attack = sample_seeds(len(x), None), plan.suite_of_attacks(gradients)[0]
    try:
        with samples_may_fail():
            usual, narrow = (_predicted(model, x, one, plan.batch_size, seeds) for one in (USUAL, way))
            if turned := int((usual != narrow).sum()):
                return f"{turned} of {len(x)} predictions are others", ""
            rows = (usual == y).nonzero().squeeze(1)[:_ATTACKED]
            if not len(rows):
                return f"none of {len(x)} samples is right, on which an attack could be tried", ""
            parts = torch.split(rows, at_once(plan.batch_size, x.shape[1:], x.device))
            fallen = []
            for one in (USUAL, way):
                with taking([(model, one)]):
                    found = [attack(model, x[p], y[p], plan.threat, generator=seeds[p.cpu()]).success for p in parts]
                fallen.append(torch.cat(found))
            if other := int((fallen[0] != fallen[1]).sum()):
                return f"{label_of(attack)} finds something else for {other} of {len(rows)} samples", ""
    except Exception as error:
        if out_of_memory(error):
            raise
        return f"the model fails in it ({_said(error)})", ""
    return "", (
        f"attacks search it in {way.precision}: the predictions of {len(x)} samples, and what {label_of(attack)} finds "
        f"for {len(rows)} of them, are those in float32, in which all that is found is judged; one that falls "
        "only when it is searched in float32 stands"
    )


def _predicted(model: nn.Module, x: Tensor, way: Way, batch_size: int, seeds: Tensor) -> Tensor:
    parts = torch.split(x, at_once(batch_size, x.shape[1:], x.device))
    with frozen(model, seeds) as subject, torch.no_grad(), way.searching():
        return torch.cat([way.run(subject, part).argmax(1) for part in parts])


def _better_last(model: nn.Module, x: Tensor, way: Way) -> bool:
    """Whether passes of images with their channels last are faster, as those of convolutions on a GPU may be."""
    if x.ndim != 4:
        return False
    last = Way(way.precision, channels_last=True)
    with samples_may_fail(), frozen(model) as subject:
        seconds = [min(_passes(subject, x, one)[1] for _ in range(3)) for one in (way, last)]
    return seconds[1] * _FASTER < seconds[0]


def _compiled(model: nn.Module, x: Tensor, way: Way, gradients: bool) -> str:
    """Have a way run a model compiled, if that gives the same and is faster; says what came of it."""
    if reason := _not_compiled(model, x, way, gradients):
        way.as_written()
        return f"it was to be compiled, and is run as it is written: {reason}"
    return "attacks search it compiled, which a trial found to be faster with the same results"


def _not_compiled(model: nn.Module, x: Tensor, way: Way, gradients: bool) -> str:
    if draws_of(model) > 1:
        return "it draws random numbers, and would draw others"
    if unwrap(model) is not model or any(unwrap(m) is not m for m in model.modules()):
        return "it comes compiled or parallel"
    if not gradients:
        return "it gives no gradients"
    sizes = [x, x[: max(1, len(x) // 2)]]  # samples that are done leave a batch
    try:
        with frozen(model) as subject:
            written, usual = zip(*[_passes(subject, part, way) for part in [*sizes, x, x]])
            way.compile(model)
            compiled, quick = zip(*[_passes(subject, part, way) for part in [*sizes, x, x]])
    except Exception as error:
        if out_of_memory(error):
            raise
        return f"it cannot be ({_said(error)})"
    for before, after in zip(written, compiled):
        if not torch.equal(before[0].argmax(1), after[0].argmax(1)):
            return "its predictions would be others"
        if any((a - b).abs().max() > _CLOSE[way.precision] * a.abs().max() for a, b in zip(before, after)):
            return "its logits or gradients would be others"
    usual_time, quick_time = min(usual[-2:]), min(quick[-2:])
    if quick_time * _FASTER > usual_time:
        return f"it takes {1000 * quick_time:.3g} ms for {len(x)} samples, and {1000 * usual_time:.3g} ms as written"
    return ""


def _passes(model: nn.Module, x: Tensor, way: Way) -> tuple[tuple[Tensor, Tensor], float]:
    """Logits (N, K) and a gradient (N, *), and the seconds that a forward alone, and one with a backward, take."""
    began = time.perf_counter()
    with way.searching():
        with torch.no_grad():
            logits = way.run(model, x)
        slope = gradient(lambda inputs: way.run(model, inputs).logsumexp(1), x)[1]
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)
    return (logits, slope), time.perf_counter() - began


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
