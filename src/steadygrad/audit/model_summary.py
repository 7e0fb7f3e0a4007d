"""What an audit found for one model: its entry in `summary.json`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from steadygrad.attacks import Attack
from steadygrad.audit.answers import Unanswered, unanswered
from steadygrad.audit.audit_plan import AuditPlan
from steadygrad.audit.certified import Certificate
from steadygrad.audit.checks.validity import Subject, checks
from steadygrad.audit.checks.verdict import UNCHECKED, Verdict, attack_verdict, too_few, verdict
from steadygrad.audit.records import accuracy, fallen, records, records_of_curve, robust_accuracy, success_rate
from steadygrad.audit.smoothed import smoothed
from steadygrad.audit.suspicions import suspicions
from steadygrad.files import key
from steadygrad.measuring.measure import settings_of
from steadygrad.measuring.measures import MEASURES
from steadygrad.measuring.measures.attacked import NEAREST, Attacked
from steadygrad.measuring.measures.curve import Curve, fitted_grid
from steadygrad.measuring.measures.gradient_norms import GradientNorms
from steadygrad.measuring.measures.map_stability import SIMILARITY_OF_MAPS, WAYS, MapStability
from steadygrad.measuring.measures.rho2 import Rho2, mean_ratio
from steadygrad.measuring.runner import Tables
from steadygrad.measuring.statistics import mean, quantile_intervals, quantiles, share_of
from steadygrad.measuring.table import Array, Table
from steadygrad.registry import describe, label_of


@dataclass(frozen=True)
class ModelSummary:
    """One model under a plan.

    Attributes:
        tables: where measurements come from.
        name: of the model.
        about: file, architecture, draws, gradients, parameters, weights.
        data: samples, classes and shape of the data.
        keep: places of the samples whose adversarial inputs are kept.
    """

    tables: Tables
    plan: AuditPlan
    name: str
    about: Mapping[str, Any]
    data: Mapping[str, Any]
    keep: tuple[int, ...]

    @cached_property
    def unanswered(self) -> Unanswered:
        """The samples to which it gives no answer; what looks into the model leaves them out."""
        return unanswered(self.tables, self.name)

    @property
    def answered(self) -> tuple[int, ...]:
        """Places of the samples to which it gives one."""
        return self.unanswered.left(range(int(self.data["samples"])))

    @property
    def gradients(self) -> bool:
        """Whether the model gives any; what needs them is left out where it does not."""
        return bool(self.about["gradients"])

    @cached_property
    def suite(self) -> tuple[Attack, ...]:
        """The attacks of the plan, or those that need no gradient."""
        return self.plan.suite_of_attacks(self.gradients)

    @property
    def lead(self) -> Attack:
        """The attack that draws curves and pictures and is what the checks test."""
        return self.suite[0]

    @cached_property
    def attacked(self) -> dict[str, Table]:
        """The table of each attack of the suite, by label."""
        return {
            label_of(attack): self.tables.run(
                Attacked(attack, self.plan.threat),
                self.name,
                keep=self.keep if attack == self.lead or self.plan.keep_inputs else (),
            )
            for attack in self.suite
        }

    @property
    def leading(self) -> Table:
        """The table of the leading attack."""
        return self.attacked[label_of(self.lead)]

    @property
    def checked(self) -> range:
        """Places of the samples on which checks run."""
        return range(min(self.plan.checked, int(self.data["samples"])))

    @property
    def looked(self) -> tuple[int, ...]:
        """Those of them with an answer, into which checks can look."""
        return self.unanswered.left(self.checked) or self.answered[:1]

    @cached_property
    def nearest_found(self) -> Array:
        """(N,) the nearest change that an attack of the suite, or a search for the smallest, found; 0 for a mistake."""
        known: Array = np.min(
            [np.where(t["success"], t["distance"], np.inf) for t in self.attacked.values()], axis=0
        )  # fmt: skip
        rows, free = self.checked, self.plan.threat.at(None)
        if self.gradients and self.plan.distances:
            searched = self.tables.run(Attacked(NEAREST, free), self.name, rows=rows)
            known[rows] = np.minimum(known[rows], searched["distance"])
        return known

    @cached_property
    def curve(self) -> Table | None:
        """The search of the curve, which counts what other attacks found, if it is asked for."""
        if not self.plan.curve:
            return None
        stood: Array = np.where(self.leading["success"], 0.0, self.plan.eps)
        return self.tables.run(self._curve, self.name, given={"known": self.nearest_found, "stood": stood})

    @cached_property
    def _curve(self) -> Curve:
        plan = self.plan
        if plan.grid is not None:
            return Curve(self.lead, plan.threat, tuple(plan.eps * factor for factor in plan.grid))
        return Curve(self.lead, plan.threat, fitted_grid(plan.threat, self.nearest_found[self.checked]))

    @cached_property
    def records(self) -> Table:
        """What the suite and the search of the curve found: the headline is the share that none of them changed."""
        plan, found = self.plan, self.attacked
        parts = [records(found[label_of(a)], Attacked(a, plan.threat), self.name) for a in self.suite]
        if self.curve is not None:
            parts.append(records_of_curve(self.curve, self._curve, self.name, plan.eps))
        return Table.join(parts)

    def summary(self, shared: Mapping[str, Array]) -> tuple[dict[str, Any], dict[str, Array]]:
        """The entry, and the distributions that are drawn."""
        plan, lead, rows = self.plan, self.leading, list(self.answered)
        worst = robust_accuracy(self.records)
        judged = self._verdict()
        confidence = {"clean": lead["clean_confidence"], "adversarial": lead["confidence"]}
        confidence = {state: values[~np.isnan(values)] for state, values in confidence.items()}
        arrays = {f"confidence_{state}": values for state, values in confidence.items()}
        followed: dict[str, Any] = {"distances": None, "rho2": None, "gradient_norm": None, "explanations": []}
        if self.gradients:
            norms = self.tables.run(GradientNorms(), self.name, rows=self._rows)
            arrays |= {"gradient_norms": norms["norm"], "next_gradient_norms": norms["next_norm"]}
            followed = {
                "distances": self._distances() if plan.distances else None,
                "rho2": self._rho2(shared),
                "gradient_norm": {"quantiles": quantiles(norms["norm"]), "next_class": quantiles(norms["next_norm"])},
                "explanations": self._stability(),
            }
        entry = {
            "name": self.name,
            **{key: value for key, value in self.about.items() if key != "notes"},
            "findings": [
                *map(dict, self.about["notes"]),
                *self._failures(),
                *suspicions(self.tables, self.name, lead.select(rows), self.looked, self.data["classes"]),
            ],
            "samples": len(lead),
            "clean": share_of(lead["clean_prediction"] == lead["label"]).plain(),
            "robust": worst.plain(),
            "verdict": judged.plain(),
            "by_class": self._by_class(),
            "certified": None if self.certificate is None else self.certificate.summary(),
            "smoothed": smoothed(
                self.tables,
                self.name,
                self.about.get("smoothed"),
                plan.threat,
                self.data["shape"],
                fallen([self.records]),
            ),
            "eligibility": judged.eligibility(),
            "attacks": [self._attack(a, worst.value) for a in self.suite],
            "broken_by": self._broken_by(),
            "curve": self._points(),
            "confidence": {state: quantiles(values) for state, values in confidence.items()},
            "further": self._further(),
            **followed,
        }
        if self.certificate is not None:
            entry["findings"] += self.certificate.findings()
        return entry, {kind: values.astype(np.float32) for kind, values in arrays.items()}

    @cached_property
    def certificate(self) -> Certificate | None:
        """What is certified of the samples that the attacks saw, if that is asked for."""
        if not self.plan.certify:
            return None
        lead, nearest, curve = self.leading, self.nearest_found, self.curve
        if curve is not None:
            nearest = np.minimum(nearest, curve["radius"])
        return Certificate(
            self.tables, self.plan, self.name, self.about, self.answered, lead["clean_prediction"] == lead["label"],
            np.isin(lead["sample"], list(fallen([self.records]))), nearest, self.checked if self.gradients else (),
            None if curve is None else (self._curve, curve),
        )  # fmt: skip

    def _verdict(self) -> Verdict:
        """What the checks say of the robust accuracy."""
        threat, looked = self.plan.threat, self.looked
        labels, classes = self.leading.select(list(looked))["label"].tolist(), self.data["classes"]
        if not self.plan.checks:
            few = too_few(labels, classes)
            return Verdict("too few", few) if few else UNCHECKED
        known = {key(settings_of(Attacked(a, threat))): self.attacked[label_of(a)] for a in self.suite}
        subject = Subject(
            self.tables, self.name, int(self.about["draws"]), self.lead, threat, self.leading.select(list(looked)),
            looked, len(self.data["classes"]), tuple(self.data["shape"]), fallen(self.attacked.values()),
            self.gradients, known,
        )  # fmt: skip
        return verdict(checks(subject), labels, classes, gradients=self.gradients)

    def _points(self) -> dict[str, Any] | None:
        """Accuracy at each radius of the curve."""
        if self.curve is None:
            return None
        radii = self.curve["radius"]
        points = [{"eps": e, "accuracy": share_of(radii > e).plain()} for e in (0.0, *self._curve.grid)]
        return {"attack": label_of(self.lead), "points": points}

    @property
    def _rows(self) -> tuple[int, ...] | None:
        return self.answered if self.unanswered else None

    def _failures(self) -> list[dict[str, Any]]:
        texts = []
        if self.unanswered:
            texts.append(
                f"{self.unanswered.text}; they count as wrong, and are left out of all that looks into the model"
            )
        lost = np.any([table["prediction"] == -1 for table in self.attacked.values()], axis=0)
        lost &= self.leading["clean_prediction"] >= 0
        if lost.any():
            texts.append(
                f"attacks led {lost.sum()} of {len(lost)} samples to inputs without an answer, which is wrong too"
            )
        return [{"about": "answers", "warning": True, "text": text} for text in texts]

    def _rho2(self, shared: Mapping[str, Array]) -> dict[str, Any]:
        score = self.tables.run(Rho2(), self.name, rows=self._rows, shared=shared)
        ratios = {"pixels": mean_ratio(score), "centered": mean_ratio(score, "centered_norm")}
        return {
            "attack": label_of(Rho2().attack),
            **{name: None if ratio is None else ratio.plain() for name, ratio in ratios.items()},
            "turned": share_of(score["turned"]).plain(),
        }

    def _attack(self, attack: Attack, worst: float) -> dict[str, Any]:
        table = self.attacked[label_of(attack)]
        rate = success_rate(table)
        # One member that does without a gradient makes up for those that stand still.
        needy = all(member.needs_gradient for _, member in attack.members())
        judged = attack_verdict(table, worst, getattr(attack, "steps", 1) > 1, needy)
        described = describe(attack)
        return {
            "name": described.pop("name"),
            "label": label_of(attack),
            "settings": described,
            "accuracy": accuracy(table).plain(),
            "success_rate": rate.plain() if rate is not None else None,
            "after_rounding": accuracy(table, "rounded_success").plain(),
            **{name: float(table[name].mean()) for name in ("zero_gradient", "forwards", "backwards")},
            "median_distance": quantiles(table["distance"], at=(0.5,))["0.5"],
            "verdict": {"state": judged.state, "text": judged.text},
        }

    def _by_class(self) -> list[dict[str, Any]]:
        """Clean and robust accuracy of the samples of each class, the worst class first."""
        stood = ~np.isin(self.leading["sample"], list(fallen([self.records])))
        right, labels = self.leading["clean_prediction"] == self.leading["label"], self.leading["label"]
        rows = []
        for label in np.unique(labels):
            clean, robust = (share_of(hits[labels == label]).plain() for hits in (right, stood))
            rows.append({"name": self.data["classes"][label], "clean": clean, "robust": robust})
        return sorted(rows, key=lambda row: (row["robust"]["value"], row["clean"]["value"]))

    def _broken_by(self) -> list[dict[str, Any]]:
        """How many samples each attack, or each member of a suite, broke, and how many nothing else did."""
        broken = {label: table["broken_by"] != "" for label, table in self.attacked.items()}
        times = np.sum(list(broken.values()), axis=0)
        rows = []
        for attack in self.suite:
            label, members = label_of(attack), [name for name, _ in attack.members()]
            for member in members:
                hit = self.attacked[label]["broken_by"] == member
                alone = int((hit & (times == 1)).sum())
                named = member if len(members) > 1 else None
                rows.append({"attack": label, "member": named, "samples": int(hit.sum()), "alone": alone})
        return rows

    def _distances(self) -> dict[str, Any]:
        """Quantiles of the smallest changes found, among the checked samples that were right before."""
        rows, found = self.leading.select(self.checked), self.smallest()
        sizes = found["distance"][rows["clean_prediction"] == rows["label"]]
        return {
            "attack": label_of(NEAREST),
            "count": len(sizes),
            "censored": int(np.isinf(sizes).sum()),
            "limit": float(self.plan.threat.largest(torch.empty(1, *self.data["shape"]))[0]),
            "quantiles": quantile_intervals(sizes),
        }

    def smallest(self) -> Table:
        """The smallest `distance` that was found for each checked sample: 0 for a mistake, infinite for none.

        Beside it, where that was asked for, the radius within which it is `certified`: 0 for a mistake, NaN if refused.
        """
        rows = self.checked
        sizes: Array = self.nearest_found[rows]
        if self.curve is not None:
            sizes = np.minimum(sizes, self.curve["radius"][rows])
        about = {"model": np.array([self.name] * len(rows)), "sample": self.leading["sample"][rows]}
        if self.certificate is not None:
            about["certified"] = self.certificate.reached(rows)
        return Table({**about, "distance": sizes})

    def _further(self) -> dict[str, Any]:
        """What measures of every audit say, by their registered name, each with its settings."""
        found = {}
        for row in MEASURES:
            if (measure := row.method.for_audit(self.plan.threat)) is not None:
                table = self.tables.run(measure, self.name, rows=self.looked)
                table = table.select(_all_finite(table))  # near a sample, too, there may be no answer
                if not len(table):
                    continue
                means = {name: estimate.plain() for name, estimate in measure.summarize(table).items()}
                settings = {k: v for k, v in settings_of(measure).items() if k != "name"}
                found[row.name] = {"settings": settings, "means": means}
        return found

    @property
    def mapped(self) -> tuple[int, ...]:
        """Places of the samples whose maps are compared: those with an answer, also after the attack."""
        places = range(min(self.plan.mapped, int(self.data["samples"])))
        return tuple(place for place in places if self.leading["prediction"][place] >= 0)

    def _stability(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        if not self.plan.maps or not self.mapped or not self.plan.attributions:
            return rows
        measure = MapStability(self.plan.attributions, self.lead, self.plan.threat)
        table = self.tables.run(measure, self.name, rows=self.mapped)
        for attribution, way in itertools.product(measure.attributions, WAYS):
            for name, similarity in SIMILARITY_OF_MAPS.items():
                found = mean(table[measure.column(attribution, way, name)]).within(*similarity.range)
                rows.append({"attribution": label_of(attribution), "under": way, "measure": name} | found.plain())
        return rows


def _all_finite(table: Table) -> Array:
    """Which rows (N,) have finite numbers only."""
    finite: Array = np.ones(len(table), dtype=bool)
    for values in (table[name] for name in table.columns):
        if values.dtype.kind == "f":
            finite &= np.isfinite(values.reshape(len(table), -1)).all(1)
    return finite
