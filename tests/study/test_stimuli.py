from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import steadygrad as sg
from cli.commands import call, done, refused
from steadygrad.errors import Failure, UsageError
from steadygrad.measuring.measures.pictured import EveryTarget
from steadygrad.measuring.runner import Runner
from steadygrad.measuring.store import Store, place_of
from steadygrad.measuring.table import Table
from steadygrad.study import stimuli
from steadygrad.study.folder import read
from steadygrad.study.pool import read_pool
from trained import trained

SMALL = {"trials": 8, "maps": 2, "clean": 1, "attention": 1, "practice": 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An audit of two models, whose inputs are kept."""
    models = {"one": trained(hidden=(32,), seed=0), "two": trained(hidden=(24,), seed=1)}
    folder = tmp_path_factory.mktemp("run") / "audit"
    sg.audit(
        models, sg.data.load("digits", "test").take(60), sg.linf(0.1), out=folder, attacks=[sg.attacks.FGSM()],
        gallery=12, keep_inputs=True, checks=False, distances=False, curve=False, transfer=False, mapped=0,
    )  # fmt: skip
    return folder


def test_what_is_shown_is_what_the_run_found(run, tmp_path):
    design = stimuli.make([run], tmp_path / "study", **SMALL)
    assert read(tmp_path / "study") == design
    data = sg.data.load("digits", "test").take(60)
    place = {str(name): i for i, name in enumerate(data.ids)}
    models = {"one": trained(hidden=(32,), seed=0), "two": trained(hidden=(24,), seed=1)}
    for stimulus in design.stimuli.values():
        original, label = data[place[stimulus.sample]]
        assert stimulus.label == data.classes[int(label)]
        picture = (
            np.asarray(Image.open(tmp_path / "study" / "stimuli" / f"{stimulus.images[0]}.png"), dtype=float) / 255
        )
        shown = torch.tensor(picture, dtype=torch.float32)[None, None]
        change = float((shown[0] - original).abs().max())
        if stimulus.kind == "labels":
            assert 0.05 < change < 0.105
            assert stimulus.predicted == data.classes[int(models[stimulus.model](shown).argmax())]
            assert stimulus.predicted != stimulus.label
            assert (stimulus.attack, stimulus.threat) == ("FGSM", "linf ≤ 0.1")
        else:
            assert change < 0.003
        assert stimulus.kind != "maps" or len(stimulus.images) == 3
        assert stimulus.kind != "attention" or stimulus.told not in (None, stimulus.label)
    for block, (main, pairs) in enumerate(design.blocks):
        shown_there = [design.stimuli[name] for name in (*design.practice, *main, *pairs)]
        assert len({s.sample for s in shown_there}) == len(shown_there) == 13, block
        assert Counter(s.model for s in shown_there if s.kind == "labels") == {"one": 4, "two": 4}
    words = " ".join(path.name for path in (tmp_path / "study" / "stimuli").iterdir())
    assert not any(word in words for word in ("one", "two", "digits"))


def test_the_same_seed_gives_the_same_study_and_another_one_another(run, tmp_path):
    first = stimuli.make([run], tmp_path / "a", **SMALL)
    assert stimuli.make([run], tmp_path / "b", **SMALL) == first
    assert stimuli.make([run], tmp_path / "c", **SMALL, seed=1) != first
    names = [sorted(p.name for p in (tmp_path / at / "stimuli").iterdir()) for at in "ab"]
    assert names[0] == names[1]
    with pytest.raises(UsageError, match="another configuration"):
        stimuli.make([run], tmp_path / "a", **SMALL, seed=1)


def test_it_needs_the_run_no_more_and_keeps_what_was_filled_in(run, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    stimuli.make([moved], tmp_path / "study", **SMALL)
    (tmp_path / "study" / "study.toml").write_text('title = "Mine"\n')
    shutil.rmtree(moved)
    assert len(read(tmp_path / "study").blocks) == 4
    with pytest.raises(UsageError, match="there is no run at"):
        stimuli.make([moved], tmp_path / "study", **SMALL)
    assert "Mine" in (tmp_path / "study" / "study.toml").read_text()


def test_what_is_missing_is_counted(run, tmp_path):
    with pytest.raises(Failure, match=r"images that fool one \(FGSM\): \d+ of 50 needed, \d+ are missing"):
        stimuli.make([run], tmp_path / "study", trials=100)
    assert not (tmp_path / "study").exists()


def test_a_model_that_was_never_fooled_is_named(tmp_path):
    models = {"one": trained(hidden=(32,), seed=0), "firm": trained(hidden=(24,), seed=1)}
    data = sg.data.load("digits", "test").take(20)
    sg.audit(
        models, data, sg.linf(1e-6), out=tmp_path / "run", attacks=[sg.attacks.FGSM()], checks=False, distances=False,
        curve=False, transfer=False, mapped=0, maps=False, keep_inputs=True, gallery=0,
    )  # fmt: skip
    with pytest.raises(Failure, match=r"images that fool firm \(FGSM\): 0 of 15 needed, 15 are missing"):
        stimuli.make([tmp_path / "run"], tmp_path / "study", practice=1)


def test_runs_of_different_classes_are_named(run, tmp_path):
    other = tmp_path / "other"
    x = np.random.default_rng(0).random((12, 1, 8, 8), dtype=np.float32)
    made = sg.data.from_arrays(x, np.arange(12) % 2, classes=("cat", "dog"))
    model = sg.models.build("mlp", made.shape, made.classes)
    sg.audit(model, made, sg.linf(0.1), out=other, attacks=[sg.attacks.FGSM()], checks=False, distances=False,
             curve=False, mapped=0, maps=False, gallery=2)  # fmt: skip
    with pytest.raises(UsageError, match=r"different classes: .* has 0, 1, 2, 3, \.\.\. \(10\), .* has cat, dog \(2\)"):
        stimuli.make([run, other], tmp_path / "study", **SMALL)


def test_a_damaged_run_or_study_is_named(run, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    table = next(broken.glob("tables/*/FGSM*/*.parquet"))
    table.write_bytes(table.read_bytes()[:-40])
    with pytest.raises(Failure, match="is damaged"):
        read_pool([broken])
    (broken / "summary.json").unlink()
    with pytest.raises(Failure, match="is not finished"):
        read_pool([broken])
    design = stimuli.make([run], tmp_path / "study", **SMALL)
    with pytest.raises(UsageError, match="holds a study"):
        read_pool([tmp_path / "study"])
    (tmp_path / "study" / "stimuli" / f"{next(iter(design.stimuli.values())).images[0]}.png").unlink()
    with pytest.raises(Failure, match=r"1 of .* pictures of .* are missing"):
        read(tmp_path / "study")
    path = tmp_path / "study" / "design.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(Failure, match="is damaged or was edited"):
        read(tmp_path / "study")


def test_models_and_attacks_are_chosen_by_name(run, tmp_path):
    design = stimuli.make([run], tmp_path / "study", **SMALL, models=["two"], attacks=["FGSM"])
    assert design.counted()["models"] == ["two"]
    with pytest.raises(UsageError, match="no model of the runs 'tow'; did you mean 'two'"):
        stimuli.make([run], tmp_path / "x", models=["tow"])
    with pytest.raises(UsageError, match="no attack of which the runs keep inputs 'PGD'"):
        stimuli.make([run], tmp_path / "x", attacks=["PGD"])


def test_the_command_makes_and_plans(run, tmp_path):
    out = tmp_path / "study"
    words = [f"--{name}={value}" for name, value in SMALL.items()]
    assert "4 blocks of 12 trials" in done("study", "make", run, "--out", out, *words).out
    assert "4 images of each model" in done("study", "plan", out).out
    assert "leave them out" in refused(2, "study", "plan", out, "--trials", "10")
    assert "give the runs" in refused(2, "study", "make", out)
    assert "make one of it with" in refused(2, "study", "serve", run)
    assert call("study", "make", tmp_path / "nothing").code == 2


def test_what_a_paper_pushed_into_every_class_is_shown_and_other_tables_are_left_alone(run, tmp_path):
    copy, data = shutil.copytree(run, tmp_path / "audit"), sg.data.load("digits", "test").take(60)
    model, store = trained(hidden=(32,), seed=0), Store(copy / "tables")
    runner, threat = Runner({"one": model}, data, store), sg.linf(0.2)
    measure = EveryTarget(sg.attacks.BIM(steps=5), threat, classes=10)
    table = runner.run(measure, "one")
    # The course of a training, as reproductions keep it, is of no samples.
    store.put(
        place_of("one", "training"), "0000000-x", Table({"step": np.arange(3)}, {"measure": {"name": "training"}})
    )
    how = {**SMALL, "trials": 4, "maps": 0}
    design = stimuli.make([copy], tmp_path / "study", **how, models=["one"], attacks=["BIM, 5 steps, targeted"])
    success = {str(sample): found for sample, found in zip(table["sample"], table["success"], strict=True)}
    asked = [s for s in design.stimuli.values() if s.kind == "labels"]
    assert len(asked) >= 4
    for stimulus in asked:
        target = data.classes.index(stimulus.predicted)
        assert success[stimulus.sample][target]
        assert stimulus.predicted != stimulus.label
        picture = Image.open(tmp_path / "study" / "stimuli" / f"{stimulus.images[0]}.png")
        shown = torch.tensor(np.asarray(picture, dtype=np.float32) / 255)[None, None]
        assert int(model(shown).argmax()) == target
