"""Audit your own network on your own image folder: `python examples/audit_my_model.py [FOLDER]`."""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

import steadygrad as sg


class MyNet(nn.Module):
    """A stranger's network: it knows nothing of steadygrad and returns logits (N, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten())
        self.head = nn.Linear(128, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N, 2) of normalized images (N, 3, 16, 16)."""
        return self.head(self.features(x))


def make_images(root: Path, count: int = 120) -> None:
    """Write root/<class>/*.png: noisy images, bright at the top or at the bottom."""
    random = np.random.default_rng(0)
    for name, rows in {"top": slice(0, 8), "bottom": slice(8, 16)}.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = random.integers(40, 160, (16, 16, 3), dtype=np.uint8)
            pixels[rows] += 16
            Image.fromarray(pixels).save(root / name / f"{i:03}.png")


def main(folder: Path) -> Path:
    """Train MyNet without steadygrad, audit it, and return the path of the report."""
    make_images(folder / "images")
    train, test = (sg.data.load(folder / "images", split) for split in ("train", "test"))
    mean, std = [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]

    torch.manual_seed(0)
    net, (x, y) = MyNet(), train.tensors()  # x (N, 3, 16, 16) in [0, 1]
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(30):
        loss = nn.functional.cross_entropy(net((x - 0.5) / 0.25), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    # The classifier normalizes, so that eps below is in units of the pixels.
    model = sg.Classifier(net, mean=mean, std=std, classes=test.classes, input_shape=test.shape, name="MyNet")
    found = sg.audit(model, test, sg.linf(8 / 255), out=folder / "audit")
    page = sg.report.write(folder / "audit")
    row = found.summary["models"][0]
    print(f"clean {row['clean']['value']:.1%}, robust at 8/255 {row['robust']['value']:.1%}: {row['verdict']['text']}")
    print(f"report: {page}")
    return page


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()))
