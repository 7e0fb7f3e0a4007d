"""Names from outside with escape sequences, markup, HTML, or marks of direction: shown as they are, and safe."""

from __future__ import annotations

import io
import json
import re
import unicodedata
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file

import steadygrad as sg
from cli.commands import call, done
from steadygrad import progress, report
from steadygrad.audit.schema import Summary
from steadygrad.report.terminal import listed

HOSTILE = [
    "\x1b[2J\x1b]0;pwned\x07",
    "\x9b31m",
    "[red]a[/]",
    "[/]",
    "[link=http://x]b",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "{{ 7 * 7 }}",
    "\u202egod\u202c",
    "ca\u200bt\ufeff",
    "NUL\x00",
    "two\nlines\r\n",
    "caf\udce9",
    "x" * 10_000,
]
"""Class names, of which each is that of a model, too."""


def unseen(text: str) -> list[str]:
    return [c for c in text if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


@pytest.fixture(scope="module")
def data() -> sg.data.Dataset:
    rng, count = np.random.default_rng(0), 3 * len(HOSTILE)
    x, y = rng.random((count, 1, 4, 4), np.float32), np.arange(count) % len(HOSTILE)
    ids = [f"{HOSTILE[i % len(HOSTILE)]}/{i}" for i in range(count)]
    return sg.data.from_arrays(x, y, HOSTILE, name=HOSTILE[0], split=HOSTILE[4], ids=ids)


@pytest.fixture(scope="module")
def run(data: sg.data.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = {name: sg.models.build("mlp", data.shape, data.classes, seed=i) for i, name in enumerate(HOSTILE[:3])}
    folder = tmp_path_factory.mktemp("hostile")
    sg.audit(models, data, sg.linf(0.1), attacks=[sg.attacks.FGSM()], samples=28, checked=4, gallery=2, out=folder)
    report.write(folder)
    return folder


def test_names_of_data_are_cleaned_at_the_door_and_stay_different(data: sg.data.Dataset) -> None:
    assert unseen("".join((data.name, data.split, *data.classes, *data.ids))) == []
    assert len({*data.classes}) == len(HOSTILE)
    shown = [data.classes[place] for place in (0, 8, 12)]
    assert shown == [r"\x1b[2J\x1b]0;pwned\x07", r"\u202egod\u202c", r"caf\xe9"]
    assert data.classes[2:8] == tuple(HOSTILE[2:8])


def test_the_page_shows_them_and_runs_none(run: Path) -> None:
    page = (run / "report" / "index.html").read_text(encoding="utf-8")
    assert unseen(page) == []
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert r"\x1b[2J\x1b]0;pwned\x07" in page
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert drawings
    for drawing in drawings:
        ElementTree.fromstring(drawing)


def test_a_page_of_a_run_from_elsewhere_is_cleaned_too(run: Path) -> None:
    text = (run / "summary.json").read_text(encoding="utf-8").replace(r"\\x1b[2J", r"\u001b[2J")
    summary = Summary.model_validate({**json.loads(text), "gallery": None})
    assert "\x1b" in summary.models[0].name
    page = report.render(summary, {})
    assert unseen(page) == []


def test_the_terminal_shows_them(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = Summary.model_validate_json((run / "summary.json").read_text(encoding="utf-8"))
    Console(width=400).print(*report.tables(summary))
    out = capsys.readouterr().out
    assert unseen(out) == []
    assert "[red]a[/]" in out


def test_titles_and_heads_of_tables_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    Console().print(listed(["[/]", "[red]b"], [("c", "d")], title="[/] of"))
    assert {"[/]", "[red]b", "of"} <= {*capsys.readouterr().out.split()}


def test_progress_shows_them(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.shown():
        for name in HOSTILE:
            with progress.task(name, 1) as advance:
                advance(1, note=name)
            progress.say(name)
    err = re.sub(r"\x1b\[\d*[A-Za-z]|\x1b\[\?\d+[hl]|\r", "", capsys.readouterr().err)
    assert unseen(err) == []
    assert {"[/]", "[red]a[/]", r"NUL\x00"} <= {*err.split()}


def test_weights_of_others_bring_no_signs_that_are_not_seen(tmp_path: Path, run: Path, data: sg.data.Dataset) -> None:
    model = sg.models.build("mlp", data.shape, data.classes)
    path = tmp_path / "m.safetensors"
    model.save(path)
    settings = {**model.settings, "name": HOSTILE[0], "classes": [name.replace("\udce9", "") for name in HOSTILE]}
    save_file(load_file(path), path, {"steadygrad": json.dumps(settings)})
    found = sg.models.load(path)
    assert unseen(found.name + "".join(found.classes or ())) == []
    assert len(found.name) < 100


def test_the_outputs_of_a_command_are_files_of_their_kind(tmp_path: Path) -> None:
    line = [f"{HOSTILE[0]}=digits_cnn@w", "[red]a[]=digits_cnn@w", "--attack", "fgsm", "--eps", "0.1"]
    sg.models.build("digits_cnn", (1, 8, 8), 10).save(tmp_path / "w.safetensors")
    line = [text.replace("@w", f"@{tmp_path / 'w.safetensors'}") for text in line]
    out, junit = tmp_path / "out\x1b[2J", tmp_path / "junit.xml"
    ended = call(
        *("audit", *line, "--samples", "10", "--checked", "4", "--out", out),
        *("--junit", junit, "--fail-under", "robust=0.9"),
    )
    assert ended.code == 3, ended.err
    assert unseen(ended.out) == unseen(re.sub(r"\x1b\[\d*[A-Za-z]", "", ended.err)) == []
    cases = ElementTree.parse(junit).iter("testcase")
    assert [case.get("classname") for case in cases] == [r"\x1b[2J\x1b]0;pwned\x07", "[red]a[]"]
    written = json.loads(done("audit", *line, "--samples", "10", "--checked", "4", "--out", out, "--json").out)
    assert written["command"].count(r"$'\x1b[2J\x1b]0;pwned\x07=") == 1  # as a shell reads it
    assert written["command"].endswith("--json")


def test_bytes_that_are_no_text_name_folders_and_files(tmp_path: Path) -> None:
    for title in (b"caf\xe9", b"\xff\xfe", b"cat"):
        folder = bytes(tmp_path) + b"/pets\xe9/" + title
        Path(folder.decode("utf-8", "surrogateescape")).mkdir(parents=True)
        for i in range(2):
            with open(folder + b"/\x80%d.png" % i, "wb") as file:
                Image.new("L", (4, 4), 50 * i).save(file, "PNG")
    found = sg.data.load(next(tmp_path.iterdir()), "all")
    assert (found.name, found.classes) == (r"pets\xe9", (r"caf\xe9", "cat", r"\xff\xfe"))
    assert found.ids[0] == r"caf\xe9/\x800.png"
    assert len(found.fingerprint) == 20
    assert torch.equal(found.labels, torch.tensor([0, 0, 1, 1, 2, 2]))


def test_parts_of_a_checkpoint_are_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = sg.models.build("mlp", (1, 8, 8), 10).module.state_dict()
    torch.save({"model": state, HOSTILE[0]: state}, tmp_path / "m.pt")
    sg.models.load("mlp", weights=tmp_path / "m.pt", input_shape=(1, 8, 8))
    assert r"#\x1b[2J\x1b]0;pwned\x07" in caplog.text
    assert unseen(caplog.text) == []


def test_weights_and_tables_are_read_from_folders_whose_names_are_no_text(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    folder = Path(f"{tmp_path}/caf\udce9")
    folder.mkdir()
    model = sg.models.build("mlp", (1, 8, 8), 10)
    model.save(folder / "m.safetensors")
    found = sg.models.load(folder)
    assert all(torch.equal(value, found.state_dict()[name]) for name, value in model.state_dict().items())
    buffer = io.BytesIO()
    Image.new("L", (4, 4)).save(buffer, "PNG")
    image = {"bytes": buffer.getvalue(), "path": None}
    parquet.write_table(pyarrow.table({"image": [image] * 2, "label": [0, 1]}), tmp_path / "pets.parquet")
    (tmp_path / "pets.parquet").rename(folder / "pets.parquet")
    assert len(sg.data.load(folder / "pets.parquet", "all").tensors()[0]) == 2
