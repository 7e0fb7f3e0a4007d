"""The memory that an audit takes at its peak, for few and for many images: shards bound it, not the data.

    python -m benchmarks.memory_of_audits [--samples 200 2000] [--size 224] [--checked 200] [--batch 200]
        [--attack fgsm ...]

Writes a folder of JPEG files and audits a small convolutional network on it by the suite "fast", or by the attacks that
are named, each number of images in a process of its own, whose largest resident memory it prints. By its first peak one
sees what an audit needs anyway.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

import steadygrad as sg
from steadygrad.data import lazy


def write_images(root: Path, count: int, size: int) -> Path:
    """A folder of JPEG files in two classes, a dark and a bright one, with some noise."""
    for i in range(count):
        folder = root / ("dark", "bright")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(i).integers(0, 64, (size // 8, size // 8, 3), dtype=np.uint8)
        pixels = noise.repeat(8, 0).repeat(8, 1) + 96 * (i % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:05d}.jpg", quality=90)
    return root


def peak(root: Path, samples: int, size: int, checked: int, batch: int, attacks: list[str]) -> dict[str, float]:
    """Peak memory in MB and seconds of an audit in this process."""
    import resource

    model = nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 2))
    for weight in model.parameters():
        weight.data = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) / 10
    lazy.MOST_BYTES = samples * size**2  # a third of the images: none of the runs holds them
    data = sg.data.load(root / str(samples), "train")
    started = time.monotonic()
    sg.audit(
        model.eval(), data, sg.linf(0.5), attacks=attacks or "fast", gallery=6, checked=checked,
        mapped=min(50, checked), batch_size=batch,
    )  # fmt: skip
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "megabytes": largest / (1024 if sys.platform != "darwin" else 1024**2),
        "seconds": time.monotonic() - started,
    }


def peaks(
    samples: Sequence[int], size: int, checked: int, batch: int, attacks: Sequence[str] = ()
) -> list[dict[str, float]]:
    """`peak` in a fresh process for each number of images."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for count in samples:
            write_images(Path(folder) / str(count) / "train", count, size)
            command = [sys.executable, "-m", "benchmarks.memory_of_audits", "--inside", folder]
            for name, value in {"samples": count, "size": size, "checked": checked, "batch": batch}.items():
                command += [f"--{name}", str(value)]
            command += [part for attack in attacks for part in ("--attack", attack)]
            root = Path(__file__).parents[1]
            done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True, check=True)
            found.append(json.loads(done.stdout.splitlines()[-1]))
    return found


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--samples", type=int, nargs="+", default=[200, 2000])
    options.add_argument("--size", type=int, default=224)
    options.add_argument("--checked", type=int, default=200)
    options.add_argument("--batch", type=int, default=200)
    options.add_argument("--attack", action="append", default=[])
    options.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.inside:
        print(json.dumps(peak(given.inside, given.samples[0], given.size, given.checked, given.batch, given.attack)))
        return
    found = peaks(given.samples, given.size, given.checked, given.batch, given.attack)
    for count, row in zip(given.samples, found):
        share = row["megabytes"] / found[0]["megabytes"]
        print(f"{count:6} images: {row['megabytes']:6.0f} MB at the peak ({share:.3f}), {row['seconds']:.0f} s")


if __name__ == "__main__":
    main()
