"""What every attack is: settings, a loop, and two verbs, judged and raw."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from steadygrad.arguments import Inputs, Labels, public
from steadygrad.attacks.attack_result import AttackResult
from steadygrad.attacks.bisection import smallest_by_bisection
from steadygrad.attacks.run import Case, Run, attacked, check_threat
from steadygrad.attacks.targets import Target
from steadygrad.calling import called, samples_may_fail
from steadygrad.classifier import check_inputs, frozen
from steadygrad.errors import UsageError
from steadygrad.randomness import Seeds, sample_seeds
from steadygrad.registry import Method, Registry, label_of
from steadygrad.threat import Threat

ATTACKS: Registry[Attack] = Registry("attack", soundness="attack")


def check_call(method: Method, model: nn.Module, x: Tensor, y: Tensor | None, threat: Threat) -> None:
    """Refuse inputs (N, *), labels and a threat that do not fit the model, each other or the norms of the method."""
    if threat.norm not in method.norms:
        raise UsageError(
            f"{type(method).__name__} works for {', '.join(method.norms)}, not for {threat.norm}: give another threat"
        )
    check_threat(model, threat)
    check_inputs(x, y, threat.bounds)
    threat.changeable(x)
    if threat.eps is not None:
        threat.radius(x)


@dataclass(frozen=True)
class Attack(Method, abc.ABC):
    """Searches for allowed inputs that change the prediction.

    With a radius it looks for any allowed wrong input; with eps=None for the nearest one, natively or, for an
    attack made for a fixed radius, by bisection per sample. Subclasses write `search`.
    """

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")
    minimum_norm: ClassVar[bool] = False
    needs_gradient: ClassVar[bool] = True

    @abc.abstractmethod
    def search(self, run: Run) -> Tensor | None:
        """Look for wrong points; returns the last points (A, *) if the run has not looked at them yet, else None."""

    @property
    def ascends(self) -> str:
        """The name of the loss whose gradient the attack follows."""
        return str(getattr(self, "loss", "margin"))

    def members(self) -> tuple[tuple[str, Attack], ...]:
        """The attacks it is made of, by name, in the order in which they run."""
        return ((label_of(self), self),)

    @public
    def __call__(
        self, model: nn.Module, x: Inputs, y: Labels, threat: Threat, *, target: Target = None, generator: Seeds = None
    ) -> AttackResult:
        """Attack inputs x (N, *) with labels y (N,) under a threat; the model is left as it was.

        Args:
            target: labels (N,) to reach, or "least-likely", "second-best", "random"; None means any wrong label.
            generator: gives one seed per sample, in order; or the seeds (N,) themselves; None means seed 0.

        Raises:
            UsageError: inputs, labels, threat, target or the model's output are not as expected.
        """
        case = self._case(model, x, y, threat, target, generator)
        with frozen(model, case.seeds):
            if case.threat.eps is None and not self.minimum_norm:
                return smallest_by_bisection(self._run, case)
            return self._run(case)

    def _run(self, case: Case) -> AttackResult:
        return attacked(self._searched, case)

    def _searched(self, case: Case) -> Run:
        run = Run(case, self.ascends, "nearest" if self.minimum_norm else "first hit")
        self._search(run)
        return run

    @public
    def perturb(
        self, model: nn.Module, x: Inputs, y: Labels, threat: Threat, *, target: Target = None, generator: Seeds = None
    ) -> Tensor:
        """Raw allowed points (N, *) for every sample, fooled or not: for training and for transfer.

        Nothing is judged, and under a fixed radius no sample leaves early. A search for the smallest change
        gives the nearest wrong point it saw, or the one that came closest to being wrong; with a radius, the
        point of the ball on the way there.

        Raises:
            UsageError: as a call; and no radius, for an attack that needs one.
        """
        case = self._case(model, x, y, threat, target, generator)
        threat, x = case.threat, case.x
        if threat.eps is None and not self.minimum_norm:
            raise UsageError("perturb needs a radius: give the threat an eps")
        with frozen(model, case.seeds):
            if self.minimum_norm:
                run = Run(case._replace(threat=threat.at(None)), self.ascends, "nearest")
                self._search(run)
                return run.found if threat.eps is None else threat.constrain(x, run.found)
            run = Run(case, self.ascends, "strongest")
            if target is not None or self.ascends in ("kl", "rivals", "dlr-targets"):
                run.begin()
            points = self.search(run)
        assert points is not None
        return points.detach()

    def _search(self, run: Run) -> None:
        run.begin()
        with samples_may_fail():  # at points of the search; the clean ones were answered
            if len(run.index):
                last = self.search(run)
                if last is not None and len(run.index):
                    run.look(last)

    def admits(self, x: Tensor, threat: Threat) -> Threat:
        """The threat under which the attack searches when it is given this one."""
        return threat

    def _case(self, model: nn.Module, x: Tensor, y: Labels, threat: Threat, target: Target, generator: Seeds) -> Case:
        check_call(self, model, x, y, threat)
        seeds = sample_seeds(len(x), generator)
        return Case(called(model), x.detach(), y, self.admits(x, threat), target, seeds)
