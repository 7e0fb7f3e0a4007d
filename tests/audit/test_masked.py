"""Audits under a mask: in the folder, on the page, and measured anew for another mask; masks from files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import steadygrad as sg
from steadygrad import masks
from steadygrad.audit.audit import read
from steadygrad.audit.audit_plan import AuditPlan
from trained import trained

LEFT = torch.arange(8).expand(8, 8) < 3
SHORT = {"attacks": ["fgsm", "pgd:steps=5"], "checked": 12, "mapped": 5, "gallery": 2, "grid": (0.5, 1.0)}


@pytest.fixture(scope="module")
def subject():
    data = sg.data.load("digits", "test").take(24)
    return trained((32,), 0), data


def test_an_audit_keeps_to_the_mask_and_says_so(subject, tmp_path):
    model, data = subject
    found = sg.audit(model, data, sg.linf(0.15, mask=LEFT), out=tmp_path / "a", keep_inputs=True, **SHORT)
    assert found.summary["threat"]["mask"] == pytest.approx(3 / 8)
    page = sg.report.write(tmp_path / "a").read_text("utf-8")
    assert "only 37.5 % of the entries may change" in page
    again = read(tmp_path / "a")
    assert again.summary["threat"] == found.summary["threat"]
    assert again.summary["models"][0]["robust"] == found.summary["models"][0]["robust"]


def test_the_records_are_those_of_the_attack_itself(subject):
    model, data = subject
    x, y = data.tensors()
    threat = sg.linf(0.15, mask=LEFT)
    table = sg.evaluate(model, data, sg.attacks.FGSM(), threat)
    alone = sg.attacks.FGSM()(model, x, y, threat)
    assert table["success"].tolist() == alone.success.tolist()
    free = sg.evaluate(model, data, sg.attacks.FGSM(), sg.linf(0.15))
    assert free["success"].sum() > table["success"].sum()


def test_another_mask_is_measured_again(subject, tmp_path):
    model, data = subject
    sg.audit(model, data, sg.linf(0.15, mask=LEFT), out=tmp_path / "a", **SHORT)
    with pytest.raises(sg.UsageError, match="mask"):
        sg.audit(model, data, sg.linf(0.15, mask=~LEFT), out=tmp_path / "a", **SHORT)


def test_a_mask_for_each_sample_is_refused_for_a_data_set(subject):
    model, data = subject
    mask = torch.ones(24, 1, 8, 8)
    for call in (
        lambda: sg.audit(model, data, sg.linf(0.15, mask=mask), **SHORT),
        lambda: sg.evaluate(model, data, sg.attacks.FGSM(), sg.linf(0.15, mask=mask)),
        lambda: sg.validity(model, data, sg.attacks.FGSM(), sg.linf(0.15, mask=mask)),
    ):
        with pytest.raises(sg.UsageError, match=r"shape \(24, 1, 8, 8\)|one mask for all samples"):
            call()


# Files and texts


@pytest.mark.parametrize("kind", ["npy", "numbers", "png", "1-bit png", "rgb png"])
def test_masks_are_read_from_files(tmp_path, kind):
    path = tmp_path / ("m.npy" if kind in ("npy", "numbers") else "m.png")
    values = LEFT.numpy()
    if path.suffix == ".npy":
        np.save(path, values if kind == "npy" else values.astype(np.float32))
    else:
        image = Image.fromarray((values * 255).astype(np.uint8))
        image.convert({"png": "L", "1-bit png": "1", "rgb png": "RGB"}[kind]).save(path)
    assert torch.equal(masks.read(path), LEFT)
    plan = AuditPlan(mask=str(path))
    assert torch.equal(plan.threat.mask, LEFT)
    path.unlink()
    assert AuditPlan.read(plan.plain()).threat == plan.threat


@pytest.mark.parametrize("shape", [(1,), (7,), (3, 5), (1, 28, 28), (3, 32, 32)])
def test_texts_of_masks_are_read_back(shape):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) > 0.3
    assert torch.equal(masks.parsed(masks.text(mask)), mask)


def test_files_that_are_no_masks_are_refused(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "text.npy").write_text("no array")
    Image.fromarray(np.full((4, 4), 100, dtype=np.uint8)).save(tmp_path / "gray.png")
    Image.fromarray(np.zeros((4, 4), dtype=np.uint8)).save(tmp_path / "black.png")
    np.save(tmp_path / "half.npy", np.full((4, 4), 0.5))
    for name, message in {
        "missing.png": "there is no mask",
        "text.png": "cannot read the mask",
        "text.npy": "the mask cannot be read",
        "gray.png": "holds grays",
        "black.png": "lets no entry change",
        "half.npy": "1 and 0",
    }.items():
        with pytest.raises(sg.UsageError, match=message):
            AuditPlan.read({"mask": str(tmp_path / name)})
    with pytest.raises(sg.UsageError, match="mask is damaged"):
        AuditPlan.read({"mask": "8x8:AAAA"})
