"""The documentation does what it says: snippets run, commands parse, links resolve, tables are up to date."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
import types
from pathlib import Path

import pytest

import steadygrad as sg
from benchmarks.attacks import __main__ as attacks

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^ *```(\w*)[^\n]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(text: str, *languages: str) -> list[tuple[int, str]]:
    """Fenced blocks in these languages, each with the number of the line on which its code begins."""
    found = (m for m in FENCE.finditer(text) if m[1] in languages)
    return [(text.count("\n", 0, m.start(2)) + 1, m[2]) for m in found]


def commands(text: str) -> list[str]:
    """Every line with a command, of this library or of its benchmark, in shell blocks and in code within sentences."""
    lines = [
        line for _, code in blocks(text, "", "sh", "bash", "console") for line in code.replace("\\\n", " ").splitlines()
    ]
    spans = re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    # In a sentence, a command alone is its name; in a block, it is to be run.
    lines += [f"{span} --help" if span.count(" ") == 1 else span for span in spans]
    plain = (re.sub(r"^\s*(\$ )?(\w+=\S+ )*", "", line) for line in lines)
    return [line for line in plain if re.match(r"(steadygrad|python -m benchmarks.attacks) [a-z-]", line)]


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as the usual renderers name them."""
    heads = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def _module(path: Path, name: str) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parse(line: str) -> None:
    """Read a command line as the command would, without running it: options, attacks, defenses, settings."""
    import typer.main

    from steadygrad.audit.audit_plan import AuditPlan
    from steadygrad.cli.app import app
    from steadygrad.cli.listing import _rows
    from steadygrad.cli.train import settings_of
    from steadygrad.training.train_plan import TrainPlan

    words = shlex.split(line, comments=True)[1:]
    if words[0] == "-m":
        typer.main.get_command(attacks.commands).make_context(words[1], words[2:])
        return
    group = typer.main.get_command(app)
    if words[0].startswith("-"):
        group.make_context("steadygrad", words, resilient_parsing=True)
        return
    name, command, rest = group.resolve_command(group.make_context("steadygrad", list(words)), words)
    if "--help" in rest:
        return
    values = command.make_context(name, rest).params
    given = {name: value for name, value in values.items() if value not in (None, [], ())}
    if name in ("audit", "harden"):
        AuditPlan.read({name: value for name, value in given.items() if name in AuditPlan.model_fields})
    if name in ("train", "harden"):
        settings = {"settings": settings_of(list(given.get("set_", ())), given.get("epochs"))}
        fields = {name: value for name, value in given.items() if name in TrainPlan.model_fields}
        plan = TrainPlan.read({**{k: v for k, v in fields.items() if k != "model"}, **settings})
        plan.objective()
        plan.fitting()
    if values.get("kind"):
        _rows(values["kind"])


@pytest.fixture
def own_registries(monkeypatch):
    """What a snippet registers is gone afterwards."""
    for rows in (
        sg.attacks.ATTACKS,
        sg.attacks.ATTRIBUTION_ATTACKS,
        sg.attributions.ATTRIBUTIONS,
        sg.bounds.BOUNDS,
        sg.defenses.DEFENSES,
    ):
        monkeypatch.setattr(rows, "_rows", dict(rows._rows))


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p.read_text("utf-8"), "python")], ids=_name)
def test_snippets_run(page, tmp_path, monkeypatch, own_registries):
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("snippets")
    monkeypatch.setitem(sys.modules, "snippets", module)
    for line, code in blocks(page.read_text("utf-8"), "python"):
        # The line numbers of an error are those of the page.
        exec(compile("\n" * (line - 1) + code, str(page), "exec"), module.__dict__)


LINES = [(page, line) for page in PAGES for line in commands(page.read_text("utf-8"))]


@pytest.mark.parametrize(("page", "line"), LINES, ids=lambda v: v if isinstance(v, str) else _name(v))
def test_commands_parse(page, line):
    parse(line)


def test_there_are_commands_and_snippets():
    assert len(LINES) >= 10
    assert sum(len(blocks(p.read_text("utf-8"), "python")) for p in PAGES) >= 8


@pytest.mark.parametrize(
    "line",
    [
        "steadygrad audit",
        "steadygrad audit a --epsilon 3",
        "steadygrad audit a --eps 8/x",
        "steadygrad audit a --attack pgd:stepps=3",
        "steadygrad train --defense adversarial:epss=1",
        "steadygrad train --set epoch=3",
        "steadygrad list atacks",
        "steadygrad trian",
        "python -m benchmarks.attacks --lap 3",
    ],
)
def test_a_wrong_command_is_found(line):
    import typer

    with pytest.raises((typer.BadParameter.__base__, sg.UsageError)):
        parse(line)


@pytest.mark.parametrize("line", ["audit", "audit a --epsilon 3", "trian", "audit a --samples many"])
def test_a_wrong_command_is_refused_in_words(line, capsys):
    from steadygrad.cli import main

    with pytest.raises(SystemExit) as leave:
        main(line.split())
    assert leave.value.code == 2
    assert "Usage: " in capsys.readouterr().err


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p.read_text("utf-8"), "toml")], ids=_name)
def test_configurations_are_read(page, tmp_path):
    from steadygrad.training.train_plan import TrainPlan

    for _, text in blocks(page.read_text("utf-8"), "toml"):
        file = tmp_path / "recipe.toml"
        file.write_text(text, encoding="utf-8")
        plan = TrainPlan.resolve(file, {})
        plan.objective()
        plan.fitting()


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_resolve(page):
    text = FENCE.sub("", page.read_text("utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)|\bsrc=\"([^\"]+)\"", text):
        link = target[0] or target[1]
        if re.match(r"https?://|mailto:", link):
            continue
        path, _, anchor = link.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{_name(page)} links to {link}"
        if anchor:
            assert anchor in anchors(file.read_text("utf-8")), f"{_name(page)} links to {link}"


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    pages = {p.relative_to(ROOT / "docs").as_posix() for p in PAGES[1:]} - {"index.md"}
    assert {page for page in pages if f"]({page})" not in index} == set()


def test_the_table_of_methods_is_the_registries():
    made = _module(ROOT / "docs" / "make_methods.py", "make_methods").render()
    written = (ROOT / "docs" / "methods.md").read_text("utf-8")
    assert made == written, "run `python docs/make_methods.py > docs/methods.md`"


def test_what_the_commands_print_is_what_plans_and_registries_hold():
    made = _module(ROOT / "docs" / "make_known.py", "make_known").render()
    written = (ROOT / "src" / "steadygrad" / "cli" / "known.json").read_text("utf-8")
    assert made == written, "run `python docs/make_known.py`"


def test_every_check_is_described():
    test = sg.data.load("digits", "test").take(4)
    model = sg.models.build("mlp", test.shape, test.classes, hidden=(4,))
    checks = sg.validity(model, test, sg.attacks.PGD(steps=2), sg.linf(0.1)).checks
    page = (ROOT / "docs" / "concepts" / "validity.md").read_text("utf-8")
    described = re.findall(r"^\| ([^|]+) \|", page, re.MULTILINE)
    assert [check.name for check in checks] == [name for name in described if name != "check"]


@pytest.mark.slow
def test_the_example_audits_a_strange_model(tmp_path, capsys):
    pytest.importorskip("PIL")
    example = _module(ROOT / "examples" / "audit_my_model.py", "audit_my_model")
    page = example.main(tmp_path)
    assert page.is_file()
    assert "clean 100.0%, robust at 8/255 " in capsys.readouterr().out
