"""A network of your own, as the commands find it: `steadygrad train --model examples.nets:make`."""

from torch import nn


def make() -> nn.Module:
    """Untrained; from images (N, 3, 16, 16) in [0, 1] to logits (N, 3)."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(4),
        nn.Flatten(),
        nn.Linear(128, 3),
    )
