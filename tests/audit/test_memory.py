"""The memory of an audit follows from the size of a batch and a shard, not from the number of samples."""

from __future__ import annotations

import pandas as pd
import pytest

import steadygrad as sg
from benchmarks.memory_of_audits import peaks, write_images
from steadygrad.data import lazy


@pytest.mark.slow
def test_twenty_times_the_images_take_the_same_memory():
    few, many = peaks((20, 400), size=128, checked=20, batch=20)
    # 380 images more are 75 MB as inputs, beside about 500 MB for the libraries alone.
    assert many["megabytes"] < 1.1 * few["megabytes"]


def test_an_audit_of_lazy_images_finds_the_same(tmp_path, monkeypatch):
    write_images(tmp_path / "train", 24, 16)
    held = sg.data.load(tmp_path, "train")
    monkeypatch.setattr(lazy, "MOST_BYTES", 0)
    decoded_later = sg.data.load(tmp_path, "train")
    model = sg.models.build("mlp", held.shape, held.classes, seed=0)
    found = [sg.audit(model, data, sg.linf(0.1), attacks=["fgsm"], gallery=2) for data in (held, decoded_later)]
    assert isinstance(decoded_later.images, lazy.LazyImages)
    pd.testing.assert_frame_equal(*(audit.records.frame for audit in found))
    # Data that are read later are told by the bytes of their files.
    about = [{k: v for k, v in audit.summary["data"].items() if k != "fingerprint"} for audit in found]
    assert about[0] == about[1]
    assert all((found[1].arrays[name] == array).all() for name, array in found[0].arrays.items())
