"""Perturbation saliency against loops: any size, any number of channels, the forwards it says and no gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gates
import nets
from oracles import perturbation as oracle
from steadygrad import registry
from steadygrad.attributions import ATTRIBUTIONS, SARFA, Attribution, BlurSaliency, Occlusion, similarity
from steadygrad.attributions.blur import blurred
from steadygrad.errors import UsageError

SMALL: dict[str, Attribution] = {
    "blur_saliency": BlurSaliency(grid=3, chunk=4),
    "sarfa": SARFA(grid=3, chunk=4),
    "occlusion": Occlusion(window=0.5, stride=0.25, baseline=0.3, chunk=4),
}
ORACLES: dict[str, Callable[..., Tensor]] = {
    "blur_saliency": lambda *given: oracle.blur_map(*given, "blur_saliency", grid=3),
    "sarfa": lambda *given: oracle.blur_map(*given, "sarfa", grid=3),
    "occlusion": lambda model, x, t: oracle.occlusion(model, x, t, side=2, step=1, baseline=0.3),
}


class _Pooled(nn.Module):
    """A network for images of any size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(channels)
            self.first, self.last = nn.Conv2d(channels, 5, 3, padding=1), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return 3 * self.last(torch.tanh(4 * self.first(x)).amax((2, 3)))


def test_every_method_without_gradients_is_here() -> None:
    assert set(SMALL) == set(ORACLES) == {row.name for row in ATTRIBUTIONS if row.order == 0}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 5, 7), (2, 9, 4)])
def test_the_map_is_that_of_loops(shape: tuple[int, int, int], name: str) -> None:
    x, target = nets.inputs(3, shape=shape, dtype=torch.float64), torch.tensor([0, 3, 1])
    model = _Pooled(shape[0]).double()
    side = min(shape[1:])
    method = SMALL[name]
    if name == "occlusion":  # the same two pixels and one at each size
        method = Occlusion(window=2 / side, stride=1 / side, baseline=0.3, chunk=4)
    maps = method(model, x, target)
    want = ORACLES[name](model, x, target)
    assert maps.shape == x.shape
    assert float(want.abs().max()) > 1e-4
    torch.testing.assert_close(maps.sum(1), want, rtol=1e-6, atol=1e-10)
    # Every channel has the same share, so that the map of a pixel has its value.
    torch.testing.assert_close(similarity.pixel_maps(maps), want.abs().flatten(1), rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize(("shape", "sigma"), [((1, 2, 3, 3), 3.0), ((2, 1, 28, 20), 1.3), ((1, 1, 40, 1), 0.4)])
def test_the_blur_is_that_of_scipy(shape: tuple[int, ...], sigma: float) -> None:
    x = torch.rand(shape, dtype=torch.float64)
    torch.testing.assert_close(blurred(x, sigma), oracle.blurred(x, sigma), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", SMALL)
def test_the_gates_hold(name: str) -> None:
    net, x, target = nets.build("residual"), nets.inputs(5), torch.tensor([0, 2, 1, 1, 0])
    method = SMALL[name]
    described = registry.describe(method)
    assert registry.build("attribution", described.pop("name"), described) == method
    gates.assert_batch_invariant(lambda p, t: method(net, p, t), x, target, rtol=1e-4)
    large = registry.build("attribution", name, {**described, "chunk": 1000})
    torch.testing.assert_close(method(net, x, target), large(net, x, target), rtol=1e-4, atol=1e-6)
    model = nn.Sequential(nn.Dropout(0.5), net)
    x.requires_grad_()
    gates.assert_leaves_no_trace(model, lambda: method(model, x, target), inputs=[x, target], failing_at=(0, 1, 3))


@pytest.mark.parametrize("name", SMALL)
def test_it_makes_the_forwards_that_it_says_and_holds_a_chunk_at_a_time(name: str) -> None:
    model, x, target = _Pooled(3), nets.inputs(5, shape=(3, 6, 8)), torch.tensor([0, 2, 1, 1, 0])
    method = SMALL[name]
    sizes: list[int] = []
    with gates.counted(model) as passes:
        handle = model.register_forward_hook(lambda module, args, output: sizes.append(len(output)))
        maps = method(model, x, target)
        handle.remove()
    assert passes["samples"] == 5 * method.forwards((3, 6, 8))  # type: ignore[attr-defined]
    assert passes["backwards"] == 0
    assert max(sizes) <= 4
    assert not maps.requires_grad


def test_the_default_grid_is_that_of_the_authors_and_small_images_get_a_place_per_pixel() -> None:
    assert BlurSaliency().forwards((1, 80, 80)) == SARFA().forwards((3, 32, 32)) == 1 + 16 * 16
    assert BlurSaliency().forwards((1, 8, 8)) == 65
    assert BlurSaliency(grid=4).forwards((1, 8, 16)) == 1 + 4 * 8


def test_a_decisive_patch_stands_out() -> None:
    # The logit of class 0 is the contrast within one corner: only there does blur or cover matter.
    class Corner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            corner = x[:, 0, :4, 8:]
            return torch.stack([9 * corner.var((1, 2)), torch.zeros(len(x)), torch.ones(len(x))], 1)

    x = torch.zeros(1, 1, 12, 12)
    x[..., ::2, ::2] = 1.0
    inside = torch.zeros(12, 12, dtype=torch.bool)
    inside[:4, 8:] = True
    for method in (BlurSaliency(), SARFA(), Occlusion()):
        pixels = similarity.pixel_maps(method(Corner(), x, torch.tensor([0]))).view(12, 12)
        assert bool(inside.flatten()[pixels.argmax()])
        assert float(pixels[inside].mean()) > 5 * float(pixels[~inside].mean())


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m, x, t: BlurSaliency()(m, x, t, create_graph=True), "no derivative to follow"),
        (lambda m, x, t: Occlusion()(nn.Linear(3, 2), torch.rand(5, 3), t), r"explains images \(N, C, H, W\)"),
        (lambda m, x, t: SARFA()(m, x, t + 9), "target must be within"),
        (lambda m, x, t: BlurSaliency(grid=0), "grid must be at least 1"),
        (lambda m, x, t: SARFA(sigma=0.0), "sigma must be positive"),
        (lambda m, x, t: Occlusion(window=2.0), r"window must be a share within \(0, 1\]"),
        (lambda m, x, t: Occlusion(baseline=float("nan")), "baseline must be a finite number"),
    ],
)
def test_bad_input_is_refused(call: Callable[..., Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        call(nets.build("mlp"), nets.inputs(5), torch.tensor([0, 2, 1, 1, 0]))
