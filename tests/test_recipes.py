"""Every recipe that ships builds, trains, says what it is for, and aims where harden points it."""

from __future__ import annotations

from pathlib import Path

import pytest

import fits
from steadygrad import recipes
from steadygrad.attacks import FGSM
from steadygrad.defenses import AdversarialTraining
from steadygrad.errors import UsageError
from steadygrad.recipes import RECIPES
from steadygrad.registry import describe
from steadygrad.training import fit
from steadygrad.training.train_plan import TrainPlan

NAMES = [recipe.name for recipe in RECIPES]


@pytest.mark.parametrize("recipe", RECIPES, ids=NAMES)
def test_a_recipe_trains(recipe: recipes.Recipe) -> None:
    plan = TrainPlan.resolve(Path(recipe.name), {"settings": {"epochs": 1}})
    data = fits.dataset(40), fits.dataset(20, seed=1)
    result = fit(fits.classifier("norm"), plan.objective(), *data, settings=plan.fitting())
    assert result.epochs_done == 1
    assert recipe.path.read_text(encoding="utf-8").startswith("# ")
    assert 20 < len(recipe.summary) < 115


def test_the_common_defenses_have_a_recipe() -> None:
    used = {describe(member)["name"] for r in RECIPES for member in TrainPlan.read(r.plan).objective().members}
    assert used >= {"plain", "adversarial", "trades", "input_gradient", "distillation", "parseval", "deep_defense"}


def test_a_radius_is_aimed_and_nothing_else_is() -> None:
    both = next(r for r in RECIPES if r.name == "penalty_and_adversarial").plan["defense"]
    aimed = TrainPlan(defense=recipes.retarget(both, "l2", 0.5)).objective()
    adversarial, penalty = aimed.members
    assert adversarial == AdversarialTraining(
        eps=0.5, norm="l2", attack=FGSM("ce"), clean_weight=0.5, label="predicted"
    )
    assert penalty.norm == "l2"  # its own setting, which has that name too
    assert TrainPlan(defense=both).objective().members[0].norm == "linf"
    untouched = next(r for r in RECIPES if r.name == "certainty_penalty").plan["defense"]
    assert recipes.retarget(untouched, "l1", 0.5) == untouched
    assert recipes.retarget("plain", "l1", 0.5) == "plain"


def test_a_file_of_the_user_wins_and_a_folder_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pgd").mkdir()
    assert recipes.find("pgd")[1]
    Path("pgd").rmdir()
    Path("pgd").write_text("defense = 'plain'\n")
    assert recipes.find("pgd") == (Path("pgd"), False)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pdg", "there is no recipe or configuration file 'pdg'; did you mean 'pgd'"),
        ("none.toml", "there is no configuration file none.toml"),
        ("some/none", "there is no configuration file some/none"),
    ],
)
def test_a_recipe_that_is_not_there(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        recipes.find(name)
