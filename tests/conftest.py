"""What all tests share: one thread, seeded generators, small trained models, the folder of real data sets."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch

import steadygrad as sg
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from trained import trained

# Derandomized: a run's outcome depends on the code alone; no deadline, since timings are not tests.
hypothesis.settings.register_profile("steady", derandomize=True, deadline=None, max_examples=60, database=None)
hypothesis.settings.load_profile("steady")

# Tiny tensors gain nothing from threads, and one thread sums in one order.
torch.set_num_threads(1)

# A job started in the background ignores Ctrl-C, and so would every test of what Ctrl-C leaves behind.
signal.signal(signal.SIGINT, signal.default_int_handler)


def _stay(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse connections to other machines, as a machine without a network does."""
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = str(arguments[1][0])
        if not (host.startswith("127.") or host in ("::1", "localhost")):
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"no test leaves this machine, for {host}")


sys.addaudithook(_stay)


@pytest.fixture
def generator() -> torch.Generator:
    """A fresh CPU generator with seed 0."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def _same_global_state() -> Iterator[None]:
    """Every test starts from the same global random state, so their order does not matter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """The test digits."""
    return sg.data.load("digits", "test")


@pytest.fixture(scope="session")
def honest() -> Classifier:
    """An MLP trained on the digits in about a second; read-only, evaluation mode."""
    return trained(hidden=(32,), seed=0)


@pytest.fixture(scope="session")
def other() -> Classifier:
    """Another such model, for transfer."""
    return trained(hidden=(24,), seed=1)


@pytest.fixture
def corrupted_images(tmp_path: Path) -> Path:
    """A folder like CIFAR-10-C, four images per severity; under fog s of them look like the other class."""
    labels = np.tile([0, 1, 0, 1], 5)
    generator = np.random.default_rng(0)
    for name in ("fog", "snow"):
        bright = labels.astype(bool).copy()
        for severity in range(1, 5) if name == "fog" else ():
            bright[4 * severity : 4 * severity + severity] ^= True
        images = generator.integers(0, 100, (20, 6, 5, 3)) + 150 * bright[:, None, None, None]
        np.save(tmp_path / f"{name}.npy", images.astype(np.uint8))
    np.save(tmp_path / "labels.npy", labels)
    return tmp_path


@pytest.fixture
def data_root() -> Path:
    """The folder of real data sets; the test is skipped, visibly, without one."""
    value = os.environ.get("STEADYGRAD_DATA")
    if not value:
        pytest.skip("needs real data: set STEADYGRAD_DATA to a folder with mnist, cifar10, notmnist")
    root = Path(value)
    if not root.is_dir():
        pytest.skip(f"needs real data: STEADYGRAD_DATA={value} is not a folder")
    return root
