"""Two processes, and the pieces of a batch, give the weights of one process and of the whole batch."""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fits
from steadygrad.classifier import Classifier
from steadygrad.training.processes import Processes

TESTS = Path(__file__).parents[1]


def _together(count: int, *arguments: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent / "src"), str(TESTS)]),
        "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    command = [sys.executable, str(TESTS / "fits.py"), *arguments]
    ranks = [
        subprocess.Popen(command, env={**environment, "RANK": str(r), "LOCAL_RANK": str(r)}, stderr=subprocess.PIPE)
        for r in range(count)
    ]
    for process in ranks:
        with process:
            _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()[-2000:]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the suite that two processes ran together."""
    folder = tmp_path_factory.mktemp("two")
    _together(2, str(folder), "suite")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("defense", fits.SUITE)
def test_two_processes_give_the_weights_of_one(defense: str, two: Path) -> None:
    # 61 samples in batches of 15 and 16: the shares are uneven in every epoch.
    one = fits.run(None, defense, **fits.IN_SUITE)
    shared = fits.classifier("linear").load_weights(two / defense / "model.safetensors").state_dict()
    start = fits.classifier("linear").state_dict()
    for name, weight in one.classifier.state_dict().items():
        torch.testing.assert_close(shared[name], weight, rtol=1e-4, atol=1e-6)
        assert not torch.allclose(weight, start[name], rtol=1e-3, atol=1e-5), "the weights hardly moved"
    rows = list(csv.DictReader((two / defense / "history.csv").read_text().splitlines()))
    assert len(rows) == 3
    for name, value in one.history[-1].items():
        assert float(rows[-1][name]) == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("defense", fits.SUITE)
def test_pieces_of_a_batch_give_the_weights_of_the_whole(defense: str) -> None:
    whole, pieces = (fits.run(None, defense, **fits.IN_SUITE, accumulate=count) for count in (1, 3))
    start = fits.classifier("linear").state_dict()
    for name, weight in whole.classifier.state_dict().items():
        torch.testing.assert_close(pieces.classifier.state_dict()[name], weight, rtol=1e-4, atol=1e-6)
        assert not torch.allclose(weight, start[name], rtol=1e-3, atol=1e-5), "the weights hardly moved"
    assert pieces.history[-1] == pytest.approx(whole.history[-1], rel=1e-4)


@pytest.mark.parametrize(("accumulate", "most"), [(1, 16), (3, 6), (50, 3)])
def test_a_piece_is_all_that_goes_through_the_network_at_once(accumulate: int, most: int) -> None:
    seen: list[int] = []
    model = fits.classifier("linear")
    original = type(model).forward

    def forward(self: Classifier, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            seen.append(len(x))
        return original(self, x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Classifier, "forward", forward)
        fits.run(None, "plain", kind="linear", accumulate=accumulate, epochs=1)
    assert max(seen) == most
    assert min(seen) > 1


@pytest.mark.slow
def test_two_processes_give_the_weights_of_one_with_channels_last(two: Path) -> None:
    one = fits.run(None, fits.LAST, **fits.IN_LAST)
    shared = fits.classifier("conv").load_weights(two / "channels last" / "model.safetensors").state_dict()
    for name, weight in one.classifier.state_dict().items():
        torch.testing.assert_close(shared[name], weight, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_two_processes_continue_exactly_with_shared_running_statistics(two: Path) -> None:
    whole, parts = ((two / name / "model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert whole == parts
    rows = [list(csv.DictReader((two / name / "history.csv").read_text().splitlines())) for name in ("whole", "parts")]
    assert len(rows[0]) == 2
    for one, other in zip(*rows, strict=True):
        assert {k: float(v) for k, v in one.items()} == pytest.approx({k: float(v) for k, v in other.items()}, rel=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_the_shares_are_a_partition(size: int) -> None:
    parts = []
    for rank in range(size):
        processes = Processes("cpu")
        processes.rank, processes.size = rank, size
        parts.append(list(range(17))[processes.share(17)])
    assert [i for part in parts for i in part] == list(range(17))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
