"""The section on attacked explanations: every number, one color scale, certain pixels, and what was refused."""

from __future__ import annotations

import base64
import io
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from report.fake_summary import EPS, NAMES, digit, draw, estimate, full, reread
from steadygrad.errors import Failure
from steadygrad.report.samples import MARKS
from steadygrad.report.scatter import limits, scatter
from steadygrad.report.sections import explained_section as explained

TOP, SAMPLES = 26, 12  # of 16 x 16 pixels
WHY = "there is no certified bound for LayerNorm (net.norm)"


def _median(value: float) -> dict[str, float]:
    return {"value": value, "low": 0.8 * value, "high": 1.25 * value}


def _deviation(rng: np.random.Generator, certified: bool) -> dict[str, Any]:
    attack = rng.uniform(0.2, 0.8, SAMPLES)
    values = {"attack": attack.tolist(), "linearized": (attack / rng.uniform(0.5, 1.3, SAMPLES)).tolist()}
    found: dict[str, Any] = {"attack": _median(float(np.median(attack))), "certified": None, "values": values}
    if certified:
        values["certified"] = (40 * attack).tolist()
    for kind, over in (("linearized", 7), ("certified", 0)):
        if kind in values:
            ratio = attack / np.array(values[kind])
            levels = {str(q): _median(float(np.quantile(ratio, q))) for q in (0.05, 0.25, 0.5, 0.75, 0.95)}
            bound = _median(float(np.median(values[kind])))
            found[kind] = {
                "bound": bound,
                "ratio": levels,
                "largest": float(ratio.max()),
                "over": over,
                "count": SAMPLES,
                "points": 118,
            }
    return found


def _faithful() -> dict[str, Any]:
    def around(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.04, "high": value + 0.04, "count": SAMPLES}

    return {name: {"map": around(0.55 + i / 50), "chance": around(0.19)} for i, name in enumerate(explained.FAITHFUL)}


def _row(rng: np.random.Generator, name: str, beta: float | None, certified: bool) -> dict[str, Any]:
    ways = ("attack", "noise", *(("own_attack", "own_noise") if beta else ()))
    share = rng.uniform(0.4, 0.6)
    similar = {
        way: {"value": share + i / 10, "low": share, "high": 0.9, "count": SAMPLES} for i, way in enumerate(ways)
    }
    alike = {"value": 0.87, "low": 0.8, "high": 0.9, "count": SAMPLES}
    certain = {"mean": {"value": 3.4, "low": 2.1, "high": 4.7, "count": SAMPLES}, "any": estimate(0.75, SAMPLES)}
    return {
        "name": name,
        "refused": None,
        "similarity": dict.fromkeys(explained.SIMILARITIES, similar),
        "moved": {"attack": estimate(1.0, SAMPLES), "noise": estimate(0.5, SAMPLES)},
        "surrogate": {"same_prediction": estimate(0.75, SAMPLES), "alike": alike} if beta else None,
        "points": 118,
        "deviation": {d: _deviation(rng, certified) for d in ("euclidean", "cosine")},
        "why": {"linearized": None, "certified": None if certified else WHY},
        "certain": certain if certified else None,
        "faithful": _faithful() if certified else None,
        "passes": {"forwards": 500.0, "backwards": 800.0},
        "randomization": {"refused": None, "layers": ["head", "stem"], "similarity": [alike, alike]},
        "samples": [
            {"index": k, "id": f"digits-test-{k:05d}", "label": "7", "prediction": "7", "clean_confidence": 0.99,
             "adversarial_confidence": 0.9 - 0.1 * k, "goal": "top-k", "certain": 5 if certified else None}
            for k in range(2)
        ],
    }  # fmt: skip


def attacked() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A full summary whose first model is certified, whose second has a surrogate, and whose third is refused."""
    summary, arrays = full(NAMES[:3])
    rng, names = np.random.default_rng(4), NAMES[:3]
    summary["transfer"] = None
    rows = [
        [_row(rng, "Saliency", None, True), _row(rng, "IntegratedGradients", None, True)],
        [_row(rng, "Saliency", 50.0, False)],
        [
            {
                "name": "Saliency",
                "refused": "its predictions are drawn anew",
                "randomization": {"refused": "its predictions are drawn anew", "layers": [], "similarity": []},
                "samples": [],
            }
        ],
    ]
    betas = (None, 50.0, None)
    summary["explained"] = {
        "threat": {"norm": "linf", "eps": EPS / 2, "bounds": [0.0, 1.0], "mask": None},
        "samples": SAMPLES, "pixels": {"all": 256, "top": TOP}, "goals": ["top-k", "cosine", "euclidean"],
        "steps": 20, "restarts": 2, "draws": 10, "similarities": list(explained.SIMILARITIES),
        "models": {n: {"beta": b, "attributions": r} for n, b, r in zip(names, betas, rows, strict=True)},
    }  # fmt: skip
    arrays["clean_explained"] = np.stack([digit(7, rng) for _ in range(2)])
    for i, model in enumerate(rows):
        for a, row in enumerate(model):
            if row["refused"] is None:
                arrays[f"adversarial_explained_{i}_{a}"] = arrays["clean_explained"]
                before = rng.random((2, 16, 16))
                marks = np.zeros((2, 256))
                marks[:, :5], marks[:, 5:20], marks[:, 20:TOP], marks[:, TOP : TOP + 6] = 4, 3, 2, 1
                arrays[f"map_clean_explained_{i}_{a}"] = before
                arrays[f"map_adversarial_explained_{i}_{a}"] = before / 2
                arrays[f"map_marks_explained_{i}_{a}"] = marks.reshape(2, 16, 16)
                if row["faithful"]:
                    arrays[f"map_salience_explained_{i}_{a}"] = before / 4
    return summary, arrays


@pytest.fixture(scope="module")
def section() -> tuple[dict[str, Any], str]:
    summary, arrays = attacked()
    text = draw(summary, arrays)
    return summary, text[text.index('<section id="explained"') : text.index('<section id="reproduce"')]


def _words(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", text)).replace("\N{NO-BREAK SPACE}", " ")


def test_attack_and_noise_stand_beside_each_other_with_intervals(section: tuple[dict[str, Any], str]) -> None:
    summary, text = section
    words = _words(text)
    for model in summary["explained"]["models"].values():
        for row in model["attributions"]:
            for similarity, found in row.get("similarity", {}).items():
                for v in found.values():
                    digits = 3 if similarity in ("cosine", "mass_center_displacement") else 2
                    assert f"{v['value']:.{digits}f} [{v['low']:.{digits}f}, {v['high']:.{digits}f}]" in words
    for label in ("Saliency, attack", "Saliency, random noise", "Saliency, own map, attack", "own map, random noise"):
        assert label in words
    assert "ℓ∞ ≤ 0.05" in words
    assert "not measured: its predictions are drawn anew" in words


def test_a_surrogate_is_stated_and_how_near_it_is(section: tuple[dict[str, Any], str]) -> None:
    words = _words(section[1])
    assert (
        "For distilled, the numbers and pictures of this section, where they do not say otherwise, are of a surrogate"
        in words
    )
    assert "softplus (β = 50)" in words
    assert "distilled: the same prediction for 75.0 %, top 10 % in common with the model’s own Saliency 0.87." in words
    summary, arrays = attacked()
    model = summary["explained"]["models"]["distilled"]
    model["beta"] = model["attributions"][0]["surrogate"] = None
    similarity = model["attributions"][0]["similarity"]
    model["attributions"][0]["similarity"] = {
        name: {way: mean for way, mean in found.items() if not way.startswith("own")}
        for name, found in similarity.items()
    }
    assert "surrogate" not in draw(summary, arrays)


def test_bounds_say_how_sound_they_are_and_a_violation_is_marked(section: tuple[dict[str, Any], str]) -> None:
    text = section[1]
    words = _words(text)
    for word in ("Attack:", "Linearized:", "Certified:"):
        assert word in words
    assert words.count("7 of 118 above") == 6
    assert words.count("✓ 0 of 118 above") == 4
    assert "✗" not in words
    assert "3.4 [2.1, 4.7]" in words
    assert f"no certified bound: {WHY}" in words
    summary, arrays = attacked()
    summary["explained"]["models"]["plain"]["attributions"][0]["deviation"]["euclidean"]["certified"]["over"] = 2
    assert "✗ 2 of 118 above" in _words(draw(summary, arrays))


def _pixels(text: str, alt: str) -> np.ndarray:
    found = re.search(rf'src="data:image/png;base64,([^"]+)" alt="[^"]*{alt}', text)
    assert found is not None, alt
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(found[1]))).convert("RGB")).astype(int)


def test_map_before_after_and_their_difference_are_on_one_scale() -> None:
    summary, arrays = attacked()
    arrays["map_clean_explained_0_0"][0] = 0.0
    arrays["map_clean_explained_0_0"][0, 3, 4] = 2.0
    arrays["map_clean_explained_0_0"][0, 5, 5] = 1.0
    arrays["map_adversarial_explained_0_0"][0] = 0.0
    arrays["map_adversarial_explained_0_0"][0, 5, 5] = 2.0
    text = draw(summary, arrays)
    text = text[text.index('<section id="explained"') :]
    before, after, difference = (
        _pixels(text, f"{t}, largest value 2, drawn from -2 to 2") for t in ("map before", "map after", "difference")
    )
    assert (before[3, 4] == after[5, 5]).all()  # 2 is one color
    assert (before[5, 5] == difference[5, 5]).all()  # 1 is one color, in a map or as a difference
    assert (before[0, 0] == difference[0, 0]).all()
    red, blue = difference[5, 5], difference[3, 4]
    assert red[0] > red[2]
    assert blue[2] > blue[0]


def test_certain_pixels_are_marked_and_the_prediction_stated(section: tuple[dict[str, Any], str]) -> None:
    text = section[1]
    marks = _pixels(text, "the 26 largest pixels of the map, 20 of 26 stay, 5 for certain").reshape(-1, 3)
    colors = [tuple(bytes.fromhex(color[1:])) for color, _ in MARKS]
    assert [sum(tuple(p) == c for p in marks) for c in colors] == [5, 15, 6, 6]
    words = _words(text)
    assert "7 · 99.0 %" in words
    assert "still 7 · 90.0 %" in words
    assert "predicted 7 before and after; moved by the attack that raises the loss of the top 10 %" in words


def test_the_page_stays_accessible_with_it() -> None:
    text = draw(*attacked())
    ids = re.findall(r'\sid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert {"explained", "h-explained"} <= set(ids)
    assert text.count("<table") == text.count("<caption")
    assert '<a href="#explained">' in text
    assert all(len(alt) > 8 for alt in re.findall(r'<img [^>]*alt="([^"]*)"', text))
    assert "explained" not in draw(*full())


def test_the_scatter_shows_every_sample_and_what_exceeds_its_bound() -> None:
    values = {"attack": [0.1, 0.2, 0.0, 0.3], "linearized": [0.1, 0.1, 1.0, None], "certified": [1.0, 10.0, 10.0, 20.0]}
    assert limits([values]) == (-1, 2, -1, 0)
    assert limits([{"attack": [0.0]}]) is None
    drawn = scatter(values, (-1, 2, -1, 0), "all")
    assert drawn.count("<use ") == 3 + 4
    linearized = re.findall(r'<use [^>]*x="([\d.]+)" y="([\d.]+)"[^>]*0b6aa2', drawn)
    assert len(linearized) == 3
    lengths = [float(y) for _, y in linearized]
    assert lengths[1] < lengths[0] <= lengths[2] + 1e-6  # 0.2 above 0.1; no movement lies on the lower edge
    assert drawn == scatter(values, (-1, 2, -1, 0), "all")
    assert math.isclose(lengths[0], lengths[2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e.pop("pixels"), "explained: missing pixels"),
        (lambda e: e["models"].pop("distilled"), "explained.models: expected plain, distilled"),
        (lambda e: e["models"]["plain"]["attributions"][0].pop("certain"), r"attributions\[0\]: missing certain"),
        (
            lambda e: e["models"]["plain"]["attributions"][1]["deviation"].pop("cosine"),
            r"attributions\[1\].deviation: missing cosine",
        ),
        (
            lambda e: e["models"]["plain"]["attributions"][0]["similarity"]["cosine"].pop("noise"),
            r"attributions\[0\]: similarity.top_k_intersection: expected attack, noise",
        ),
        (
            lambda e: e["models"]["plain"]["attributions"][0]["why"].update(certified="none"),
            r"deviation.euclidean.certified and why.certified: expected exactly one",
        ),
    ],
)
def test_a_wrong_key_is_named(tmp_path: Path, change: Any, message: str) -> None:
    summary, _ = attacked()
    change(summary["explained"])
    with pytest.raises(Failure, match=message):
        reread(tmp_path, summary)


def test_faithfulness_stands_beside_chance(section: tuple[dict[str, Any], str]) -> None:
    text = section[1]
    words = _words(text)
    assert "Does the map point at what the model uses?" in words
    for i in range(len(explained.FAITHFUL)):
        assert f"{0.55 + i / 50:.2f} [{0.51 + i / 50:.2f}, {0.59 + i / 50:.2f}]" in words
    # Two rows of five were measured; the others say that they were not.
    assert words.count("chance 0.19") == 2 * len(explained.FAITHFUL)
    assert text.count("<span>model blurred</span>") == 2 * 2
    summary, arrays = attacked()
    for model in summary["explained"]["models"].values():
        for row in model["attributions"]:
            row |= {} if row["refused"] else {"faithful": None}
    assert "what the model uses" not in draw(summary, arrays)
