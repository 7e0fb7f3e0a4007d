"""`study.toml`: what whoever runs a study says about it, and the texts, which are data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from steadygrad.errors import UsageError, one_of
from steadygrad.files import read_toml, write_text
from steadygrad.plans import Plan
from steadygrad.study.exclusions import Rules

FILE = "study.toml"
TEXTS = Path(__file__).parent / "texts"

_TEMPLATE = """\
# Read by `steadygrad study serve`. Fill in at least who is responsible before you invite people.

# What the pages are headed with.
title = "What do you see?"

# Who is responsible, with a way to reach them; shown where consent is asked for.
contact = ""

# The version of the text to which people consent; change it whenever the text changes.
consent = "1"

# Days after which a person and all answers are deleted.
retention_days = 365

# About how long it takes.
minutes = 10

# The languages that are offered, the usual one first: files of this name in the package, or tables below.
languages = ["en", "de"]

# The name of the recruitment id in the link, such as PROLIFIC_PID; it is kept apart from the answers.
recruitment = "code"

# Whose answers do not count. What stands here when the study is first served is what counts, whatever is written later.
[rules]
finished = true  # leave out whoever did not finish
attention = 0  # the most wrong attention checks of a person who stays
fastest = 0.5  # leave out answers quicker than this, in seconds
quick = 0.1  # leave out whoever has a larger share of these

# Any text of the pages, by its name, in any language; all names are in steadygrad/study/texts/en.toml.
# [texts.en]
# consent = ["The first paragraph.", "The second one."]
"""


class Settings(Plan):
    """The contents of `study.toml`.

    >>> Settings(contact="someone@example.org").language_for("de-CH,en;q=0.5")
    'de'
    """

    what = "a study"

    title: str = "What do you see?"
    contact: str = ""
    consent: Annotated[str, Field(min_length=1, max_length=32)] = "1"
    retention_days: Annotated[int, Field(ge=1, le=36500, strict=True)] = 365
    minutes: Annotated[int, Field(ge=1, strict=True)] = 10
    languages: Annotated[tuple[str, ...], Field(min_length=1)] = ("en", "de")
    recruitment: Annotated[str, Field(min_length=1)] = "code"
    rules: Rules = Rules()
    texts: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @field_validator("languages")
    @classmethod
    def _there(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"languages must be different, got {', '.join(value)}")
        return value

    def language_for(self, accepted: str) -> str:
        """The language of a person whose browser accepts these, as in the header `Accept-Language`."""
        ranked = []
        for part in accepted.split(","):
            name, _, quality = part.partition(";q=")
            try:
                ranked.append((-float(quality or 1), name.strip().partition("-")[0].lower()))
            except ValueError:
                continue
        return next(
            (name for _, name in sorted(ranked, key=lambda r: r[0]) if name in self.languages), self.languages[0]
        )

    def text(self, language: str) -> dict[str, Any]:
        """The texts of a language, with what the study says in the place of {title}, {contact}, ...

        Raises:
            UsageError: the language has no file and no full table, or a text has no such name or another form.
        """
        own, usual = self.texts.get(language, {}), read_toml(TEXTS / "en.toml")
        path = TEXTS / f"{language}.toml"
        found = read_toml(path) if language.isalnum() and path.is_file() else {}
        for name, value in own.items():
            one_of(f"text in texts.{language} of {FILE}", name, usual)
            if _form(value) != _form(usual[name]):
                raise UsageError(f"{name} in texts.{language} of {FILE} must be {_form(usual[name])}, got {value!r}")
        found = {**found, **own}
        missing = [name for name in usual if name not in found]
        if missing:
            raise UsageError(
                f"languages of {FILE} names {language!r}, which lacks {len(missing)} texts, such as {missing[0]}: give "
                f"them in [texts.{language}], or take it out"
            )
        about = {name: getattr(self, name) for name in ("title", "contact", "minutes", "retention_days", "consent")}
        return {name: _filled(value, about) for name, value in found.items()}


def read(folder: str | Path) -> Settings:
    """The settings of a study folder, whose texts are all there.

    Raises:
        UsageError: a setting or text does not exist or does not fit, or the file is missing.
    """
    path = Path(folder) / FILE
    settings = Settings.read(read_toml(path), str(path))
    for language in settings.texts:
        one_of(f"language in texts of {path}", language, settings.languages)
    for language in settings.languages:
        settings.text(language)
    return settings


def template(path: Path) -> None:
    """Write the usual settings, where there are none yet."""
    if not path.exists():
        write_text(path, _TEMPLATE)


def _form(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return "a list of texts"
    return "a text" if isinstance(value, str) else "something else"


def _filled(value: Any, about: dict[str, Any]) -> Any:
    """A text with what the study says; other names in braces are filled in where it is shown."""
    if isinstance(value, list):
        return [_filled(part, about) for part in value]
    for name, word in about.items():
        value = value.replace(f"{{{name}}}", str(word))
    return value
