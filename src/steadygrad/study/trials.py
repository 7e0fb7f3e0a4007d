"""The trials as a browser asks for them, and the answers: each is taken once, in order, if it can be one."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException
from fastapi import Path as InPath
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.requests import Request
from starlette.responses import FileResponse

from steadygrad.study.database_tables import Answer, Person
from steadygrad.study.design import Trial
from steadygrad.study.folder import PICTURES
from steadygrad.study.served import CODE, IS_CODE, Served

_Name = Annotated[str, StringConstraints(max_length=200)]


class Given(BaseModel):
    """An answer as a browser sends it.

    Attributes:
        stimulus: id of what was shown at the position.
        chosen: plausible classes; `best` is one of them; none where `unrecognizable`.
        preferred: of maps, the side; None for no difference.
        seconds: from showing to answer.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    stimulus: Annotated[str, StringConstraints(max_length=32)]
    chosen: Annotated[list[_Name], Field(max_length=100)] = []
    best: _Name | None = None
    unrecognizable: bool = False
    preferred: Literal["left", "right"] | None = None
    seconds: Annotated[float, Field(ge=0, le=24 * 3600, allow_inf_nan=False)]


def refusal_of(trial: Trial, given: Given) -> str:
    """Why an answer cannot be one to this trial; "" where it can."""
    if trial.stimulus.kind == "maps":
        plain = not given.chosen and given.best is None and not given.unrecognizable
        return "" if plain else "this trial asks for a side"
    if given.preferred is not None:
        return "this trial has no sides"
    if len(set(given.chosen)) < len(given.chosen) or not set(given.chosen) <= set(trial.options):
        return "chosen must be different ones of the options"
    if given.unrecognizable:
        return "" if not given.chosen and given.best is None else "what cannot be recognized has no plausible classes"
    return "" if given.best in given.chosen else "best must be one of chosen, which is not empty"


def answer_of(trial: Trial, person: Person, given: Given) -> Answer:
    """The row of an answer that was accepted."""
    stimulus, (left, right) = trial.stimulus, trial.sides
    judged: dict[str, Any] = {}
    if trial.kind == "labels":
        judged["fooled"] = given.best == stimulus.predicted
        judged["reasonable"] = given.unrecognizable or stimulus.predicted in given.chosen
    elif trial.kind in ("clean", "practice"):
        judged["correct"] = given.best == stimulus.label
    elif trial.kind == "attention":
        judged["correct"] = given.best == stimulus.told
    return Answer(
        person=person.id,
        position=trial.position,
        block=person.block,
        kind=trial.kind,
        stimulus=stimulus.id,
        sample=stimulus.sample,
        model=stimulus.model,
        attack=stimulus.attack,
        threat=stimulus.threat,
        left=left,
        right=right,
        label=stimulus.label,
        predicted=stimulus.predicted,
        options=list(trial.options),
        chosen=[option for option in trial.options if option in given.chosen],
        best=given.best,
        unrecognizable=given.unrecognizable,
        preferred={"left": left, "right": right}.get(given.preferred or ""),
        seconds=given.seconds,
        language=person.language,
        **judged,
    )


def _public(trial: Trial) -> dict[str, Any]:
    """What a browser is told of a trial: nothing that gives the model, the label or the prediction away."""
    stimulus = trial.stimulus
    image, *maps = stimulus.images
    told = {"told": stimulus.told} if trial.kind == "attention" else {}
    if stimulus.kind == "maps":
        told = {"predicted": str(stimulus.predicted), "maps": maps[::-1] if trial.flipped else maps}  # type: ignore[dict-item]
    return {
        "position": trial.position,
        "kind": trial.kind if trial.kind in ("practice", "maps") else "labels",
        "stimulus": stimulus.id,
        "image": image,
        "options": list(trial.options),
        **told,
    }


def routes(served: Served) -> APIRouter:
    """The routes of trials, pictures and answers."""
    router = APIRouter()

    @router.get("/api/trials")
    def trials(request: Request) -> dict[str, Any]:
        """All trials of a person, where to go on, and the texts."""
        person, position = served.somebody(request)
        found = [_public(trial) for trial in served.trials(person.number)]
        return {"next": position, "trials": found, "text": served.texts[person.language]}

    @router.get("/pictures/{name}.png")
    def picture(name: str) -> FileResponse:
        """A picture, whose name says nothing of it."""
        if name not in served.pictures:
            raise HTTPException(404)
        # A name has one content for ever, and a person's browser asks for it once.
        headers = {"cache-control": "private, max-age=86400, immutable"}
        return FileResponse(served.folder / PICTURES / f"{name}.png", media_type="image/png", headers=headers)

    @router.put("/api/answers/{position}")
    def answer(request: Request, position: Annotated[int, InPath(ge=0, le=10_000)], given: Given) -> dict[str, Any]:
        """Take an answer, once: what comes again changes nothing, and is told where to go on."""
        person, following = served.somebody(request)
        trials = served.trials(person.number)
        if position >= len(trials):
            raise HTTPException(404)
        trial = trials[position]
        if position > following:
            raise HTTPException(409, f"Position {following} comes first.")
        if given.stimulus != trial.stimulus.id:
            raise HTTPException(409, "This is not what was shown at this position.")
        if why := refusal_of(trial, given):
            raise HTTPException(422, f"This cannot be an answer here: {why}.")
        last = position == len(trials) - 1
        stored = position == following and served.database.store(answer_of(trial, person, given), last=last)
        if last and IS_CODE.fullmatch(code := request.cookies.get(CODE, "")):
            # Also when it comes again: the server may have ended in between.
            served.database.recruited(code, finished=True)
        following = max(following, position + 1)
        label = {"label": trial.stimulus.label, "correct": given.best == trial.stimulus.label}
        return {"stored": stored, "next": following, **(label if trial.kind == "practice" else {})}

    return router
