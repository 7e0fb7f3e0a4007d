from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from steadygrad.errors import UsageError
from steadygrad.study.power import Power


def _differences(plan: Power, times: int, seed: int) -> np.ndarray:
    """Differences of two shares in simulated studies; two answers of a person, or to an image, are alike so often."""
    draw = np.random.default_rng(seed)
    persons, each, images = plan.persons, plan.each, plan.images
    by_person, by_image = math.sqrt(plan.person_icc), math.sqrt(plan.image_icc)
    taste = draw.random((times, persons, 1))
    shares = []
    for p in (plan.share, plan.share + plan.difference):
        # Each image is judged equally often.
        judged = np.arange(persons * each).reshape(persons, each) % images
        what = draw.random((times, persons, each))
        of_image = draw.random((times, images))[:, judged]
        values = np.where(what < by_person, taste, draw.random((times, persons, each)))
        values = np.where((what >= by_person) & (what < by_person + by_image), of_image, values)
        shares.append((values < p).mean((1, 2)))
    return shares[1] - shares[0]


@pytest.mark.parametrize(
    "plan",
    [
        Power(persons=11, each=10, images=22, share=0.3, difference=0.2),
        Power(persons=40, each=10, images=10, share=0.2, difference=0.1, person_icc=0.05, image_icc=0.2),
        Power(persons=12, each=5, images=60, share=0.5, difference=-0.3, person_icc=0.3, image_icc=0.0),
    ],
)
def test_the_formula_says_what_simulated_studies_find(plan):
    found = _differences(plan, 4000, seed=1)
    assert found.mean() == pytest.approx(plan.difference, abs=0.006)
    assert found.std() == pytest.approx(plan.error, rel=0.04)
    assert (np.abs(found) > 1.96 * plan.error).mean() == pytest.approx(plan.power, abs=0.03)


def test_few_images_are_a_limit_that_no_number_of_persons_passes():
    plan = Power(persons=10, each=10, images=10, share=0.3, difference=0.1, image_icc=0.3)
    assert plan.needed(0.8) is None
    many = dataclasses.replace(plan, images=1000)
    needed = many.needed(0.8)
    assert dataclasses.replace(many, persons=needed).power >= 0.8
    assert dataclasses.replace(many, persons=needed - 1).power < 0.8


def test_the_smallest_difference_is_found_just_so():
    plan = Power(persons=11, each=10, images=40)
    assert dataclasses.replace(plan, difference=plan.smallest(0.8)).power == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"share": 0.9, "difference": 0.2}, r"share \+ difference must be within"),
        ({"difference": 0.0}, "difference not 0"),
        ({"person_icc": 0.6, "image_icc": 0.6}, "at most 1, got 0.6 and 0.6"),
        ({"persons": 0}, "persons must be"),
    ],
)
def test_what_is_no_plan_is_refused(settings, said):
    with pytest.raises(UsageError, match=said):
        Power(**{"persons": 11, "each": 10, "images": 40, **settings})
