"""What an audit found about explanations under attack and about neurons, as it stands in the summary."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import MinLen
from pydantic import Discriminator, Field, Tag, model_validator
from typing_extensions import Self

from steadygrad.audit.schema_values import (
    Count,
    Estimate,
    Mean,
    Median,
    Number,
    Pair,
    Part,
    Passes,
    Positive,
    QuantileIntervals,
    Share,
    Some,
    Threat,
    Triple,
    at_most,
)

Way = Literal["attack", "noise", "own_attack", "own_noise"]
Kind = Literal["linearized", "certified"]
Choice = Literal["most", "random", "least"]


class AttackedSample(Part):
    """A pictured sample whose map was attacked."""

    index: Count = Field(description="its place in the data")
    id: str = Field(description="its name in the data")
    label: str = Field(description="name of its class")
    prediction: str = Field(description="name of the predicted class, before and after")
    clean_confidence: Share = Field(description="probability of the prediction before")
    adversarial_confidence: Share = Field(description="the same after")
    certain: Count | None = Field(description="top pixels that are certain to stay; null where nothing is certified")
    goal: str = Field(description="what the attack raised that left the fewest top pixels in common")


class Surrogate(Part):
    """How near the softplus surrogate is to the model itself, on clean inputs."""

    same_prediction: Estimate = Field(description="share of the samples with the same prediction")
    alike: Mean = Field(description="share of the top pixels in common")


class Bound(Part):
    """How far maps can move at most, by one kind of bound."""

    bound: Median = Field(description="median over the samples that have the bound; null: it is not finite")
    count: Count = Field(description="samples that have the bound")
    ratio: QuantileIntervals | None = Field(description="attack / bound; null where every bound is 0")
    largest: Number | None = Field(description="the largest of these ratios")
    points: Count = Field(description="points that were compared with the bound")
    over: Count = Field(description="how many of them lie above it: for certified bounds 0, or a defect")
    _over = at_most("over", "points")


class Deviation(Part):
    """How far the signed maps move in one distance."""

    attack: Median = Field(description="median over the samples of what attacks reached")
    linearized: Bound | None = Field(description="an upper bound to first order, or null")
    certified: Bound | None = Field(description="a bound that holds for every point, or null")
    values: dict[Kind | Literal["attack"], list[Number | None]] = Field(
        description="one number per sample, for the attack and for each bound there is"
    )


class Deviations(Part):
    """How far the signed maps move, in two distances."""

    euclidean: Deviation = Field(description="in lengths of the clean map")
    cosine: Deviation = Field(description="1 - cosine, at most 2")


class Certain(Part):
    """Top pixels that no allowed change can drive out of the top."""

    mean: Mean = Field(description="such pixels per sample")
    any: Estimate = Field(description="share of the samples that have any")


class Randomization(Part):
    """Whether maps depend on what the model has learned: its layers are randomized from the output down."""

    refused: str | None = Field(description="null, or why that could not be done")
    layers: list[str] = Field(description="names, from the output down; none where refused")
    similarity: list[Mean] = Field(
        description="rank correlation with the trained model's map after each; near 1 it explains the input alone"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.layers) != len(self.similarity) or bool(self.layers) != (self.refused is None):
            raise ValueError("expected either a refusal, or a similarity for each layer")
        return self


class RefusedMap(Part):
    """An attribution that could not be measured."""

    name: str = Field(description="label of the attribution")
    refused: str = Field(description="why maps could not be attacked")
    randomization: Randomization = Field(description="the maps of a model with random layers")
    samples: list[AttackedSample] = Field(description="empty", max_length=0)


class AttackedMap(Part):
    """What was found for one model and attribution."""

    name: str = Field(description="label of the attribution")
    refused: None = Field(description="null: it was measured")
    similarity: dict[str, dict[Way, Mean]] = Field(
        description="the worst per sample over all attacks (`attack`) or random points (`noise`), then the mean; "
        "`own_attack`, `own_noise`: of maps of the model itself where a surrogate was attacked"
    )
    moved: dict[Way, Estimate] = Field(description="samples of which a top pixel was replaced, the prediction not")
    surrogate: Surrogate | None = Field(description="the surrogate against the model; null where there is none")
    points: Count = Field(description="points of unchanged prediction that all attacks and searches left")
    deviation: Deviations = Field(description="how far the signed maps move")
    why: Pair[Kind, str | None] = Field(description="why there is no bound of a kind; null where there is one")
    certain: Certain | None = Field(description="pixels that are certain to stay; null where nothing is certified")
    faithful: dict[str, Pair[Literal["map", "chance"], Mean]] | None = Field(
        description="[faithfulness](concepts/faithfulness.md) of clean maps, and of random ones; null for no image"
    )
    passes: Passes = Field(description="of all attacks and random points")
    randomization: Randomization = Field(description="the maps of a model with random layers")
    samples: list[AttackedSample] = Field(description="the first ones, as pictured")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        ways = {"attack", "noise"} | (set() if self.surrogate is None else {"own_attack", "own_noise"})
        for name, found in self.similarity.items():
            if set(found) != ways:
                raise ValueError(f"similarity.{name}: expected {', '.join(sorted(ways))}, found {', '.join(found)}")
        for name, deviation in self.deviation:
            for kind, why in self.why.items():
                if (getattr(deviation, kind) is None) != (why is not None):
                    raise ValueError(f"deviation.{name}.{kind} and why.{kind}: expected exactly one of them to be null")
        return self


def _member(row: Any) -> str:
    refused = row.get("refused") if isinstance(row, dict) else getattr(row, "refused", None)
    return "(measured)" if refused is None else "(refused)"


class AttackedMaps(Part):
    """The attributions of one model."""

    beta: Number | None = Field(description="null, or that of the softplus surrogate that was attacked")
    attributions: list[
        Annotated[
            Annotated[AttackedMap, Tag("(measured)")] | Annotated[RefusedMap, Tag("(refused)")],
            Discriminator(_member),
        ]
    ] = Field(description="one row per attribution")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for row in self.attributions:
            if isinstance(row, AttackedMap) and (row.surrogate is None) != (self.beta is None):
                raise ValueError(f"{row.name}: expected both or neither of beta and surrogate to be null")
        return self


class Explained(Part):
    """Explanations under attack: how far maps can be moved while the prediction stays."""

    threat: Threat = Field(description="the allowed changes; the prediction must stay")
    samples: Count = Field(description="so many, the first ones of the draw")
    pixels: Pair[Literal["all", "top"], Count] = Field(description="of a map, and of its top 10 %")
    goals: list[str] = Field(description="what the attacks raise")
    steps: Count = Field(description="steps of each attack")
    restarts: Count = Field(description="starts of each attack")
    draws: Count = Field(description="random points beside each attack")
    similarities: list[str] = Field(description="names of the similarities that were measured")
    models: dict[str, AttackedMaps] = Field(description="by name of the model")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, model in self.models.items():
            for row in model.attributions:
                if isinstance(row, RefusedMap):
                    continue
                if set(row.similarity) != set(self.similarities):
                    raise ValueError(f"models.{name}: {row.name} has other similarities than {self.similarities}")
                for _, deviation in row.deviation:
                    if any(len(values) != self.samples for values in deviation.values.values()):
                        raise ValueError(f"models.{name}: {row.name} has values of other samples than {self.samples}")
        return self


class Neuron(Part):
    """A sensitive neuron."""

    neuron: Count = Field(description="its index in the layer")
    sensitivity: Positive = Field(description="its mean change")


class Layer(Part):
    """One layer under attack. The neurons are chosen on the other half of the samples."""

    name: str = Field(description="name of the activation module")
    neurons: Some = Field(description="how many it has")
    held: Some = Field(description="how many of them are held")
    change: Mean = Field(description="mean sensitivity: how far outputs move between a sample and its partner")
    relative: Mean | None = Field(description="the change over the mean size of the output; null for a silent layer")
    most: Annotated[list[Neuron], MinLen(1)] = Field(description="the five most sensitive neurons")
    restored: Triple[Choice, Estimate] | None = Field(
        description="judged samples that are right again with neurons held; null where none was turned"
    )
    gain: Mean | None = Field(description="most minus random, paired by sample; null likewise")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if max(self.held, len(self.most)) > self.neurons:
            raise ValueError(f"expected at most {self.neurons} neurons to be held and named")
        if (self.restored is None) != (self.gain is None):
            raise ValueError("restored and gain: expected both or neither to be null")
        return self


class ModelNeurons(Part):
    """The layers of one model."""

    refused: str | None = Field(description="null, or why nothing could be measured")
    fooled: Count | None = Field(description="samples that the attack turned; null where refused")
    judged: Count | None = Field(description="those of them on which neurons were held; null where refused")
    layers: list[Layer] = Field(description="in the order of the network; none where refused")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        measured = self.refused is None
        if {self.fooled is not None, self.judged is not None, bool(self.layers)} != {measured}:
            raise ValueError("expected either a refusal, or fooled, judged and layers")
        for layer in self.layers:
            if (layer.restored["most"].count if layer.restored is not None else 0) != self.judged:
                raise ValueError(f"layers.{layer.name}.restored: expected shares of the {self.judged} judged samples")
        return self


class Neurons(Part):
    """Which neurons an attack moves, and what holding them restores."""

    attack: str = Field(description="label of the attack that made the adversarial partners")
    threat: Threat = Field(description="the allowed changes")
    samples: Count = Field(description="so many, the first ones of the draw")
    share: Share = Field(description="share of a layer's neurons that are held")
    draws: Count = Field(description="draws of as many random ones")
    models: dict[str, ModelNeurons] = Field(description="by name of the model")
