"""The explorer's addresses: its page, what is seen at a step of the slider, and a picture that is brought."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import Body, FastAPI, HTTPException, Query
from fastapi.responses import HTMLResponse

from steadygrad.errors import Failure, UsageError
from steadygrad.explore.latest import Superseded
from steadygrad.explore.live import STEPS, Live, Reached
from steadygrad.explore.uploads import BODY
from steadygrad.registry import label_of
from steadygrad.report import png
from steadygrad.report.wording import budget, norm, number, percent, spaced
from steadygrad.serving.app import make_app
from steadygrad.serving.limits import Limits
from steadygrad.serving.pages import Pages

_HERE = Path(__file__).parent
_SHOWN = 24
_SIDE = 256
"""Pixels of a side of a picture that is sent, about: larger ones are averaged."""
_Name = Annotated[str, Query(max_length=300)]


def app_of(live: Live) -> FastAPI:
    """The app of a run."""
    limits = Limits(rate=60.0, burst=600, body=BODY)
    app = make_app("Explore", static=_HERE / "static", limits=limits)
    pages, show = Pages(_HERE / "templates"), _Shown(live)

    @app.get("/")
    def page() -> HTMLResponse:
        return pages.page("explore.html.j2", **show.page())

    @app.get("/reached")
    def reached(
        image: _Name,
        attack: _Name,
        step: Annotated[int, Query(ge=0, le=STEPS)],
        page: Annotated[str, Query(max_length=40)],
        turn: int,
    ) -> dict[str, Any]:
        try:
            found = live.reached(image, attack, step, live.latest.entered(page, turn))
        except Superseded:
            raise HTTPException(409, "A later request came.") from None
        except KeyError:
            raise HTTPException(410, "This picture is not here any more: bring it again.") from None
        except (UsageError, Failure) as error:
            raise HTTPException(422, str(error)) from None
        return show.reached(image, step, found)

    @app.post("/picture")
    def picture(content: Annotated[bytes, Body(media_type="application/octet-stream")]) -> dict[str, str]:
        try:
            name = live.uploads.add(content)
        except (UsageError, Failure) as error:
            raise HTTPException(422, str(error)) from None
        return {"image": name, "source": show.thumbnail(name), "said": "your picture"}

    @app.get("/sample")
    def sample(image: _Name) -> dict[str, str]:
        try:
            return {"image": image, "source": show.thumbnail(image), "said": show.said(image)}
        except KeyError:
            raise HTTPException(404, "There is no such picture in this run.") from None
        except (UsageError, Failure) as error:
            raise HTTPException(422, str(error)) from None

    return app


class _Shown:
    """What is computed, as pictures and words."""

    def __init__(self, live: Live) -> None:
        self.live, self.run = live, live.run
        _, *size = self.run.data.shape
        self.factor = max(1, round(max(size) / _SIDE))
        self.bounds = self.run.data.bounds

    def page(self) -> dict[str, Any]:
        """All that the page is made from."""
        data, plan = self.run.data, self.run.plan
        shown = list(dict.fromkeys(sample for rows in self.run.gallery().values() for sample in rows)) or list(data.ids)
        return {
            "title": f"Explore {', '.join(self.run.models)} on {data.name}",
            "heading": f"{', '.join(self.run.models)} on {data.name}",
            "models": [{"name": name, "maps": self._maps(name)} for name in self.run.models],
            "attacks": list(self.live.attacks),
            "pictures": [(name, self.said(name), self.thumbnail(name)) for name in shown[:_SHOWN]],
            "samples": [(name, self.said(name)) for name in data.ids],
            "norm": norm(plan.norm), "eps": budget(plan.eps), "steps": STEPS, "middle": STEPS // 2,
            "radii": [number(self.live.radius(step)) for step in range(STEPS + 1)], "largest": self.live.radius(STEPS),
        }  # fmt: skip

    def _maps(self, model: str) -> list[str]:
        return [spaced(label_of(a)) for a in self.live.attributions] if self.run.gradients[model] else []

    def said(self, image: str) -> str:
        """A picture in words."""
        place = self.live.places.get(image)
        if place is None:
            return "your picture"
        return f"{image}, label {self.run.data.classes[int(self.run.data.labels[place])]}"

    def thumbnail(self, image: str) -> str:
        """A picture as it is."""
        return self._image(self.live.image(image).x.numpy())

    def _image(self, inputs: png.Array) -> str:
        return png.image(png.reduce(inputs, self.factor), *self.bounds)

    def reached(self, image: str, step: int, found: dict[str, Reached]) -> dict[str, Any]:
        """What the page shows of a step of the slider."""
        eps, classes = self.live.radius(step), self.run.data.classes
        models = []
        for name, at in found.items():
            before = at.before or at
            delta = at.inputs - before.inputs
            largest = float(np.abs(delta).max())
            end = self.live.radius(STEPS) if self.run.plan.norm == "linf" else largest
            maps = [
                {
                    "before": png.map_(png.reduce(before.maps[kind], self.factor), float(before.maps[kind].max())),
                    "after": png.map_(png.reduce(at.maps[kind], self.factor), float(at.maps[kind].max())),
                    "said": f"largest {number(float(before.maps[kind].max()))} → {number(float(at.maps[kind].max()))}",
                }
                for kind in before.maps
            ]
            models.append(
                {
                    "name": name,
                    "clean": f"{classes[before.prediction]} · {percent(before.confidence)}",
                    "said": f"{classes[at.prediction]} · {percent(at.confidence)}",
                    "changed": at.prediction != before.prediction,
                    "confidence": at.confidence,
                    "image": self._image(at.inputs),
                    "change": png.change(png.reduce(delta, self.factor), end),
                    "largest": f"up to ±{number(largest)}" if largest else "none",
                    "maps": maps,
                    "tables": at.tables,
                    **dataclasses.asdict(self.live.radii(name, image)),
                }
            )
        return {"eps": number(eps), "models": models}
