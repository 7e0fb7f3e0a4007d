"""The images and places that move a neuron most are the ones that were changed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gates
import nets
from steadygrad import neurons
from steadygrad.errors import UsageError


def _planted() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Images of which two are changed, in one pixel each: sample 3 by much at (7, 2), sample 1 by less at (4, 5)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Softplus(), nn.Flatten(), nn.Linear(3 * 6 * 8, 2))
    x = nets.inputs(5, shape=(2, 8, 10))
    x_adv = x.clone()
    x_adv[3, 1, 7, 2] += 0.9
    x_adv[1, 0, 4, 5] += 0.2
    return net, x, x_adv


def test_the_changed_pixels_are_found() -> None:
    net, x, x_adv = _planted()
    found = neurons.movers(net, x, x_adv, "1", 2, count=2, chunk=2)
    assert found.index.tolist() == [3, 1]
    assert found.change[0] > found.change[1] > 0
    torch.testing.assert_close(found.change, neurons.changes(net, x, x_adv)["1"][[3, 1], 2])
    for (top, left, bottom, right), (row, column) in zip(found.boxes.tolist(), [(7, 2), (4, 5)], strict=True):
        assert (bottom - top, right - left) == (3, 3)
        assert top <= row < bottom
        assert left <= column < right
    patches = found.patches(x_adv)
    assert patches.shape == (2, 2, 3, 3)
    top, left = found.boxes[0, :2].tolist()
    assert torch.equal(patches[0], x_adv[3, :, top : top + 3, left : left + 3])


def test_patches_of_several_sizes_stay_inside_the_image() -> None:
    images = torch.arange(2 * 36.0).view(2, 1, 6, 6)
    boxes = torch.tensor([[0, 0, 4, 2], [5, 3, 6, 6]])
    patches = neurons.Movers(torch.tensor([1, 0]), torch.ones(2), boxes).patches(images)
    assert torch.equal(patches[0], images[1, :, 0:4, 0:3])
    assert torch.equal(patches[1], images[0, :, 2:6, 3:6])


def test_a_dead_neuron_has_the_whole_image_as_its_box() -> None:
    net, x, x_adv = _planted()
    net[1] = nn.ReLU()
    with torch.no_grad():
        net[0].bias[2] = -100.0
    assert neurons.movers(net, x, x_adv, "1", 2, count=1).boxes.tolist() == [[0, 0, 8, 10]]


def test_it_leaves_no_trace_and_does_not_depend_on_the_batch() -> None:
    net, x, x_adv = _planted()
    alone = neurons.movers(net, x[3:4], x_adv[3:4], "1", 0)
    assert alone.boxes.tolist() == neurons.movers(net, x, x_adv, "1", 0).boxes[:1].tolist()
    gates.assert_leaves_no_trace(
        net, lambda: neurons.movers(net, x, x_adv, "1", 0), inputs=[x, x_adv], failing_at=(0, 1, 2, 3)
    )


@pytest.mark.parametrize(
    ("layer", "neuron", "shape", "words"),
    [
        ("1", 3, (5, 2, 8, 10), r"neuron must be within 0\.\.2 in layer '1', got 3"),
        ("1:2", 0, (5, 2, 8, 10), "there is no layer '1:2'"),
        ("1", 0, (5, 160), r"needs images \(N, C, H, W\)"),
    ],
)
def test_what_is_not_there_is_refused(layer: str, neuron: int, shape: tuple[int, ...], words: str) -> None:
    net, x, x_adv = _planted()
    with pytest.raises(UsageError, match=words):
        neurons.movers(net, x.view(shape), x_adv.view(shape), layer, neuron)
