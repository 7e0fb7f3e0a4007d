"""The plan of an audit: its arguments in Python, its flags on the command line and its `config.toml`, one type."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from steadygrad import masks
from steadygrad.attacks import PGD, Attack
from steadygrad.attacks.expectation import DRAWS
from steadygrad.attacks.suites import SUITES, blind, suite_of
from steadygrad.attributions import Attribution, IntegratedGradients, Saliency
from steadygrad.engines import Engine, Local
from steadygrad.errors import UsageError, unknown_name
from steadygrad.measuring.measures.curve import GRID, Curve
from steadygrad.memory import size_of
from steadygrad.plans import AsNumber, Count, Plan, Radius, Seed, method, methods, read_method
from steadygrad.quick import Precision
from steadygrad.registry import describe, label_of
from steadygrad.threat import Threat, check_radius


def _mask(given: Any) -> str | None:
    """A mask as the text of a configuration file, which stands for itself in other folders."""
    return (
        None if given is None else masks.text(masks.parsed(given) if isinstance(given, str) else masks.boolean(given))
    )


OF_ENGINES = ("workers", "address", "gpus_per_task")
"""Settings of engines that are flags of their own."""


class AuditPlan(Plan):
    """Everything that an audit's numbers depend on besides models and data, and how it is computed.

    >>> AuditPlan(eps="8/255", attacks=["fgsm"]).suite_of_attacks()
    (FGSM(loss='soft'),)
    """

    what: ClassVar[str] = "an audit"

    norm: Literal["linf", "l2", "l1", "l0"] = Field("linf", description="Norm of a change.")
    eps: Radius = Field(8 / 255, description="Radius in units of the data (0 to 1), e.g. 0.1 or 8/255.")
    bounds: tuple[float, float] = Field((0.0, 1.0), description="Smallest and largest value of an input.")
    mask: Annotated[str | None, BeforeValidator(_mask)] = Field(
        None, description="File (.npy, or a black and white .png) that is 1 or white where an input may change."
    )
    samples: Count | None = Field(
        None, description="Samples to attack, drawn in equal numbers from each class; all if not given."
    )
    suite: Literal["fast", "standard", "blind"] = Field("fast", description="Attacks by the name of their suite.")
    attacks: Annotated[tuple[Attack, ...], methods("attack")] = Field(
        (), description="An attack instead of the suite, e.g. pgd:steps=100; may be repeated, the leading one first."
    )
    attributions: Annotated[tuple[Attribution, ...], methods("attribution")] = Field(
        (Saliency(), IntegratedGradients()), description="An attribution whose maps are shown; may be repeated."
    )
    checked: Count = Field(300, description="Of these, samples for the validity checks and the smallest changes.")
    checks: bool = Field(True, description="Check whether the number may be believed; without, it is called unchecked.")
    distances: bool = Field(True, description="Search the smallest changes of the checked samples.")
    curve: bool = Field(True, description="Search the radius at which each sample falls.")
    certify: bool = Field(
        False,
        description="Certify samples, a lower bound of robust accuracy, and how far; takes long, see --plan.",
    )
    maps: bool = Field(True, description="Compute maps: for the pictures, and for their stability.")
    mapped: Annotated[int, Field(ge=0)] = Field(
        100, description="Samples for the stability of maps under the attack on the prediction; 0 for none."
    )
    gallery: Annotated[int, Field(ge=0)] = Field(6, description="Pictures per model; 0 for none.")
    sliders: Annotated[int, Field(ge=0)] = Field(
        6,
        description="Of these, pictures with a slider along the radius, to twice the audit's; 0 for none.",
    )
    grid: Annotated[tuple[float, ...], Field(min_length=1)] | None = Field(
        None, description="Radii of the curve as multiples of the audit's; by default they fit the smallest changes."
    )
    classes_of_data_only: bool = Field(
        False, description="Judge among the classes of the data only, where a model has more."
    )
    transfer: bool = Field(True, description="Try the adversarial inputs of each model on the others.")
    explanations: bool = Field(False, description="Attack the maps too, and bound how far they can move; takes long.")
    explanation_samples: Count = Field(20, description="Samples whose maps are attacked.")
    explanation_certified: Annotated[int, Field(ge=0)] = Field(
        10, description="Of these, samples with certified bounds."
    )
    explanation_eps: Radius | None = Field(None, description="Radius for the maps, if it is not that of the audit.")
    explanation_steps: Count = Field(20, description="Steps of each attack on a map.")
    explanation_restarts: Count = Field(2, description="Restarts of each attack on a map.")
    explanation_draws: Count = Field(10, description="Random points beside each attack on a map.")
    explanation_beta: Radius = Field(50.0, description="Of the softplus that stands in for rectifiers.")
    neurons: bool = Field(False, description="Measure which neurons the attack moves, layer by layer.")
    neuron_samples: Annotated[int, Field(ge=2)] = Field(200, description="Samples whose neurons are looked at.")
    neuron_share: Annotated[float, AsNumber, Field(gt=0, le=1)] = Field(
        0.1, description="Share of a layer that is held."
    )
    neuron_draws: Count = Field(5, description="Sets of random neurons that are held.")
    neuron_attack: Annotated[Attack, method("attack")] = Field(
        PGD(steps=20), description="What makes the adversarial partners."
    )
    neuron_layers: tuple[str, ...] | None = Field(
        None, description="Pattern of layer names, by default the activation modules; may be repeated."
    )
    corruptions: str | None = Field(None, description="Folder in the layout of CIFAR-10-C, to be measured on too.")
    draws: Count = Field(DRAWS, description="Over which the predictions of a randomized model are averaged.")
    keep_inputs: bool = Field(False, description="Keep the adversarial inputs of all samples, as data to load again.")
    seed: Seed = Field(0, description="Seed of everything random.")
    precision: Precision = Field(
        "float32",
        description="In which attacks search, where a trial finds the same as in float32; what they find is judged in "
        "float32.",
    )
    compile: bool = Field(
        False, description="Have attacks search a model compiled, where that is faster; does not change the result."
    )
    batch_size: Count = Field(
        200, description="Samples per batch at most, fewer that hold much; does not change the result."
    )
    memory: Annotated[float | None, BeforeValidator(size_of), Field(gt=0, allow_inf_nan=False)] = Field(
        None, description="For what passes hold at a time, e.g. 2GB, per process; does not change the result."
    )
    engine: Annotated[Engine, method("engine")] = Field(
        Local(),
        description="local, shared (with all processes and machines that are given this command) or ray (a cluster).",
    )
    workers: Count | None = Field(None, description="Processes on this machine, 1 by default.")
    address: str | None = Field(None, description="Of the Ray cluster, auto by default; local starts one here.")
    gpus_per_task: Annotated[float, AsNumber] | None = Field(None, description="GPUs of a piece of work on Ray.")
    shard: Count | None = Field(
        None,
        description="Samples per piece, by default 200, of several processes 50, fewer of large ones; keep it midway.",
    )
    device: str | None = Field(None, description="Where to compute; by default where the models are.")
    version: str = Field("", description="Stands for the models' code where that cannot be read.")

    @model_validator(mode="before")
    @classmethod
    def _named_suite(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("attacks"), str):
            name = values["attacks"]
            if name not in SUITES:
                raise unknown_name("suite", name, SUITES)
            return {**{k: v for k, v in values.items() if k != "attacks"}, "suite": name}
        return values

    @model_validator(mode="before")
    @classmethod
    def _engine_with_its_settings(cls, values: Any) -> Any:
        given = {name: values[name] for name in OF_ENGINES if isinstance(values, dict) and values.get(name) is not None}
        if not given:
            return values
        engine = read_method("engine", values.get("engine", Local()))
        for name in given if isinstance(engine, Engine) else ():
            if name not in {field.name for field in dataclasses.fields(engine)}:
                flag = f"--{name.replace('_', '-')}"
                kind = describe(engine)["name"]
                raise UsageError(f"{name} ({flag}) is no setting of the engine {kind}: leave it out, or choose another")
        return {**values, "engine": dataclasses.replace(engine, **given)}

    @classmethod
    def of(cls, threat: Threat, settings: Mapping[str, Any]) -> AuditPlan:
        """The plan of these settings under a threat.

        Raises:
            UsageError: a setting that does not exist or does not fit, named with what came and what is expected.
        """
        if not isinstance(threat.eps, float | int) or threat.eps <= 0:
            raise UsageError("an audit needs a threat with one positive radius, e.g. sg.linf(8 / 255)")
        check_radius(threat, share=0.5)  # with more, any input may become gray
        own = {"norm": threat.norm, "eps": float(threat.eps), "bounds": threat.bounds, "mask": threat.mask}
        return cls.read({**settings, **own})

    @model_validator(mode="after")
    def _checked(self) -> AuditPlan:
        suite = self.suite_of_attacks()
        Curve(suite[0], self.threat, self.grid or GRID)
        for part, word in (("explanation", "explanations"), ("neuron", "neurons")):
            for name in type(self).model_fields if not getattr(self, word) else ():
                if name.startswith(f"{part}_") and getattr(self, name) != type(self).model_fields[name].default:
                    flag = f"--{name.replace('_', '-')}"
                    raise UsageError(
                        f"{name} ({flag}) changes nothing unless {word} are measured: add {word}=True (--{word})"
                    )
        if self.grid is not None and not self.curve:
            raise UsageError("grid gives the radii of the curve: leave it out, or curve=False")
        if self.certify and self.norm not in ("linf", "l2", "l1"):
            raise UsageError(f"certify (--certify) works within linf, l2 or l1, not within {self.norm}: leave it out")
        if self.explanations and self.norm not in ("linf", "l2"):
            raise UsageError(f"explanations are attacked and bounded within linf or l2, not within {self.norm}")
        if self.neurons and self.norm not in self.neuron_attack.norms:
            known = ", ".join(self.neuron_attack.norms)
            raise UsageError(f"neuron_attack works within {known}, not within {self.norm}")
        return self

    @property
    def threat(self) -> Threat:
        """The allowed changes."""
        mask = None if self.mask is None else masks.parsed(self.mask)
        return Threat(self.norm, self.eps, self.bounds, mask)

    def described(self, eps: float) -> dict[str, Any]:
        """The threat at a radius, as the summary holds it."""
        share = None if self.mask is None else float(masks.parsed(self.mask).float().mean())
        return {"norm": self.norm, "eps": float(eps), "bounds": list(self.bounds), "mask": share}

    def suite_of_attacks(self, gradients: bool = True) -> tuple[Attack, ...]:
        """The attacks, the leading one first; for a model without gradients those that need none."""
        suite = suite_of(self.attacks if "attacks" in self.model_fields_set else self.suite, self.threat)
        return suite if gradients else blind(suite, self.threat)

    def check_blind(self, model: str) -> None:
        """Refuse attacks that were chosen one by one and need a gradient, for a model that gives none."""
        suite = self.suite_of_attacks()
        if needing := [label_of(attack) for attack in suite if attack.needs_gradient and suite not in SUITES.values()]:
            raise UsageError(
                f"{model} gives no gradient, and {', '.join(needing)} would need one: give attacks that need none "
                "(attacks=[sg.attacks.Square()], --attacks square), or none, for the suite that searches blind"
            )

    def given(self) -> dict[str, Any]:
        """The fields that were set, besides those of the threat, as arguments of an audit."""
        return {name: getattr(self, name) for name in self.model_fields_set - {"norm", "eps", "bounds", "mask"}}

    def plain(self) -> dict[str, Any]:
        """All that the numbers depend on, as plain data; `AuditPlan.read` takes it back."""
        changes_nothing = {
            "batch_size",
            "memory",
            "device",
            "version",
            "suite",
            "shard",
            "compile",
            "engine",
            *OF_ENGINES,
        }
        values = {name: getattr(self, name) for name in type(self).model_fields if name not in changes_nothing}
        values["attacks"] = self.suite_of_attacks()
        return {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Attack | Attribution):
        return describe(value)
    return [_plain(v) for v in value] if isinstance(value, tuple) else value
