"""What people said of adversarial images and maps: `people.json`, which may lie in the run folder of an audit."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from steadygrad.audit.schema_values import Count, Flag, Interval, Number, Part, Positive, Share, Some, Stored

Score = Literal["fooled", "reasonable"]


class AnswerShare(Interval[Share]):
    """A share of answers; its 95 % interval allows for answers that hang together by person and by image."""

    count: Some = Field(description="answers behind it")
    persons: Some = Field(description="who gave them")
    images: Some = Field(description="source images that they are about")
    independent: Positive = Field(description="answers that would tell as much if each stood alone")
    wilson: tuple[Share, Share] = Field(description="Wilson interval, were each answer independent")
    by_persons: tuple[Share, Share] = Field(description="interval of a bootstrap over persons alone")


class Between(Interval[Number]):
    """A value with its 95 % interval."""


class Odds(Interval[Positive]):
    """A ratio of odds with its 95 % interval."""


class Judged(Part):
    """The judgements of the adversarial images of one model."""

    model: str = Field(description="name of the model")
    attack: str | None = Field(description="of one attack; null for all together")
    answers: Count = Field(description="judgements")
    persons: Count = Field(description="persons who gave them")
    images: Count = Field(description="source images")
    hits: dict[Score, Count] = Field(description="how many judgements were fooled, and reasonable")
    fooled: AnswerShare | None = Field(description="the predicted label was named the most plausible; null: too few")
    reasonable: AnswerShare | None = Field(
        description="the predicted label was among the plausible ones, or the image unrecognizable; null: too few"
    )


class Contrast(Part):
    """One model compared with another."""

    first: str = Field(description="a model")
    second: str = Field(description="the other model")
    score: Score = Field(description="what is compared")
    difference: Between | None = Field(description="share of the first minus that of the second; null: too few")
    odds: Odds | None = Field(description="ratio of the odds, by the mixed logit; null: none")
    note: str = Field(description="why there is no ratio, else empty")


class Spread(Part):
    """How much persons and images differ, by the mixed logit."""

    score: Score = Field(description="of what")
    persons: Positive = Field(description="standard deviation of the persons, as a logarithm of odds")
    images: Positive = Field(description="that of the images shown")


class Agreement(Part):
    """Krippendorff's alpha, over stimuli that several persons judged."""

    about: Literal["fooled", "reasonable", "best"] = Field(description="the score, or the most plausible label itself")
    stimuli: Count = Field(description="stimuli judged by two persons or more")
    answers: Count = Field(description="judgements of them")
    alpha: Between | None = Field(
        description="1 agreement, 0 chance; interval by bootstrap over stimuli; null: too few, or all said the same"
    )


class Preference(Part):
    """Two maps beside each other: which explains the prediction better."""

    first: str = Field(description="a model or an attribution method")
    second: str = Field(description="the other one")
    answers: Count = Field(description="answers")
    undecided: Count = Field(description="of these, no difference")
    preferred: Count = Field(description="of these, for the first")
    share: AnswerShare | None = Field(description="for the first, among those that prefer one; null: too few")
    persons_for_first: Count = Field(description="persons who preferred the first more often")
    persons_for_second: Count = Field(description="persons who preferred the second more often")
    p: Share = Field(description="sign test over persons: probability of so uneven a split, were both as likely")


class Rank(Interval[Share]):
    """A place on the Bradley-Terry scale: the chance to be preferred to the middle one; interval over persons."""

    name: str = Field(description="a model or an attribution method")
    scale: Count = Field(description="number of the scale: what was never compared is on another one")


class Control(Part):
    """Unchanged images, whose right label is known."""

    answers: Count = Field(description="answers")
    right: Count = Field(description="of these, right")
    correct: AnswerShare | None = Field(description="share of right answers; null: too few")


class LeftOut(Part):
    """Who and what was left out, by rules fixed before anybody answered."""

    rules: dict[str, Any] = Field(description="the rules, as the study's file says them")
    fixed: Flag = Field(description="whether they are those of the study's file")
    persons: dict[str, Count] = Field(description="persons by reason; each counts under the first that holds")
    answers: Count = Field(description="single answers of the others that were too quick")


class People(Stored):
    """The judgements of a study: a pure function of its table of answers and its rules."""

    FILE: ClassVar[str] = "people.json"
    AGAIN: ClassVar[str] = "run `steadygrad study report` again"

    title: str = Field(description="what the study is called")
    languages: list[str] = Field(description="languages that were answered in")
    persons: Count = Field(description="persons who stay")
    answers: Count = Field(description="their answers, without practice")
    seconds: Positive | None = Field(description="median time of an answer; null for none")
    models: list[Judged] = Field(description="each model, and where there are several attacks each of these as well")
    contrasts: list[Contrast] = Field(description="each pair of models")
    spreads: list[Spread] = Field(description="how much persons and images differ")
    agreement: list[Agreement] = Field(description="how much persons agree")
    preferences: list[Preference] = Field(description="each pair of maps")
    ranks: list[Rank] = Field(description="three or more of them on one scale, the strongest first")
    left: AnswerShare | None = Field(
        description="how often the left map was preferred, among preferences; null: too few"
    )
    clean: Control | None = Field(description="unchanged images, as controls; null for none")
    excluded: LeftOut = Field(description="who and what was left out")
