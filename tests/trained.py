"""Small classifiers that are trained honestly on the digits in about a second each."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

import steadygrad as sg
from steadygrad.classifier import Classifier


def trained(hidden: tuple[int, ...], seed: int) -> Classifier:
    """An MLP in evaluation mode, its weights without gradients."""
    train = sg.data.load("digits", "train")
    model = sg.models.build("mlp", train.shape, train.classes, seed=seed, hidden=hidden)
    model.name = f"mlp{hidden[0]}"
    x, y = train.tensors()
    steps = torch.optim.Adam(model.parameters(), lr=1e-2)
    order = torch.Generator().manual_seed(seed)
    for _ in range(25):
        for batch in torch.randperm(len(x), generator=order).split(128):
            loss = cross_entropy(model(x[batch]), y[batch])
            steps.zero_grad()
            loss.backward()
            steps.step()
    return model.eval().requires_grad_(False)
