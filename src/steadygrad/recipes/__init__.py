"""Recipes: configurations of common trainings that ship with the package, by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steadygrad.arguments import public
from steadygrad.errors import UsageError, unknown_name
from steadygrad.files import read_toml

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Recipe:
    """A configuration file; its first line is a comment that says what it is for."""

    name: str
    path: Path

    @property
    def summary(self) -> str:
        """What it is for, in one line."""
        first = self.path.read_text(encoding="utf-8").partition("\n")[0]
        return first.lstrip("# ").strip()

    @property
    def plan(self) -> dict[str, Any]:
        """The keys of the file, as `steadygrad train` reads them."""
        return read_toml(self.path)


RECIPES: tuple[Recipe, ...] = tuple(Recipe(path.stem, path) for path in sorted(_FOLDER.glob("*.toml")))


@public
def find(given: str | Path) -> tuple[Path, bool]:
    """The configuration file of that path or of the recipe of that name, and whether it is a recipe's.

    A file of the user's wins over a recipe of the same name.

    Raises:
        UsageError: there is neither (near names are given).

    >>> find("pgd")[0].name
    'pgd.toml'
    """
    path = Path(given)
    names = {recipe.name: recipe.path for recipe in RECIPES}
    if str(given) in names and not path.is_file():
        return names[str(given)], True
    if path.exists():
        return path, False
    if path.suffix or len(path.parts) > 1:
        raise UsageError(f"there is no configuration file {given}")
    raise unknown_name("recipe or configuration file", str(given), names)


def retarget(defense: Any, norm: str, eps: float) -> Any:
    """The defense of a recipe, as plain data, with the norm and radius of a threat wherever it has a radius.

    >>> retarget({"name": "trades", "eps": 0.03, "beta": 6.0}, "l2", 0.5)
    {'name': 'trades', 'eps': 0.5, 'beta': 6.0, 'norm': 'l2'}
    """
    if isinstance(defense, dict):
        aimed = {"eps": eps, "norm": norm} if "eps" in defense else {}
        return {k: retarget(v, norm, eps) for k, v in {**defense, **aimed}.items()}
    return [retarget(part, norm, eps) for part in defense] if isinstance(defense, list) else defense
