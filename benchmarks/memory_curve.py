"""The resident memory of an audit from its first to its last second: it must not grow with the number of images.

    python -m benchmarks.memory_curve [--data cifar10] [--split train] [--samples 50000] [--attack fgsm ...]
    python -m benchmarks.memory_curve --jpegs 20000 [--size 160] [--train]
    python -m benchmarks.memory_curve --ids 1000000

Audits a small convolutional network on all samples of a data set by name or path, or of a folder of JPEG files that is
written before, in a process of its own, whose resident memory is looked at twice a second; prints a line for each part
of the time and the largest value. With `--ids` a folder of so many files, links to a few, is listed, and nothing is
decoded; with `--train` the network is trained for an epoch instead. `--json FILE` keeps the curve.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

import steadygrad as sg
from benchmarks.memory_of_audits import write_images

_LOOK = 0.5
_LINKS = 50_000
"""Links to one file; file systems allow some 65,000."""


def write_links(root: Path, count: int) -> Path:
    """A folder of links to a few JPEG files, in a class for each thousand of them, and no fewer than two."""
    classes = max(2, count // 1000)
    for k in range(classes):
        (root / "train" / f"class{k:05d}").mkdir(parents=True)
    for i in range(count):
        source = root / f".{i // _LINKS}.jpg"
        if i % _LINKS == 0:
            noise = np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(noise).save(source)
        os.link(source, root / "train" / f"class{i % classes:05d}" / f"image_{i:07d}.jpg")
    return root


def inside(given: argparse.Namespace) -> dict[str, Any]:
    """What one process does: load, and audit unless only ids are asked for."""
    started = time.monotonic()
    data = sg.data.load(given.data, given.split)
    found = {"samples": len(data), "load": time.monotonic() - started, "kind": type(data.images).__name__}
    if given.ids:
        return found
    channels, threads = data.shape[0], torch.get_num_threads()
    model = nn.Sequential(
        nn.Conv2d(channels, 8, 3, max(2, data.shape[1] // 16)), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
        nn.Linear(128, len(data.classes)),
    )  # fmt: skip
    for weight in model.parameters():
        weight.data = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) / 10
    if given.train:
        classifier = sg.Classifier(model, classes=data.classes, input_shape=data.shape)
        sg.fit(classifier, sg.defenses.Plain(), data, settings=sg.FitSettings(epochs=1), out=given.out)
        return {**found, "train": time.monotonic() - started - found["load"]}
    audit = sg.audit(
        model.eval(), data, sg.linf(given.eps), attacks=given.attack or ["fgsm", "pgd:steps=10"], samples=given.samples,
        gallery=given.gallery, checked=given.checked, mapped=given.checked, out=given.out,
    )  # fmt: skip
    audited = audit.summary["data"]["samples"]
    return {**found, "audited": audited, "audit": time.monotonic() - started - found["load"], "threads": threads}


def resident(pid: int) -> float:
    """Resident memory of a process in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def curve(given: argparse.Namespace, arguments: list[str]) -> dict[str, Any]:
    """What `inside` found in a fresh process, and its memory over time as pairs (seconds, MB)."""
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "benchmarks.memory_curve", *arguments, "--inside"]
    started, points = time.monotonic(), []
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while process.poll() is None:
            points.append((round(time.monotonic() - started, 1), round(resident(process.pid))))
            time.sleep(_LOOK)
        lines = process.stdout.read().splitlines()
    points = [point for point in points if point[1]]  # of an ended process there is nothing
    if process.returncode:
        raise SystemExit(process.returncode)
    return {**json.loads(lines[-1]), "curve": points}


def show(found: dict[str, Any], parts: int = 20) -> None:
    """Print what was found, and the largest value of each part of the curve."""
    points = found["curve"]
    print(f"{found['samples']} samples ({found['kind']}) loaded in {found['load']:.1f} s")
    for what, many in (("audit", "audited"), ("train", "samples")):
        if what in found:
            print(f"{what} of {found[many]} samples: {found[what]:.0f} s")
    for part in np.array_split(np.array(points), min(parts, len(points))):
        print(f"{part[0, 0]:7.0f} s {part[:, 1].max():6.0f} MB {'#' * int(part[:, 1].max() / 25)}")
    print(f"largest: {max(size for _, size in points)} MB")


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", default="cifar10")
    options.add_argument("--split", default="train")
    options.add_argument("--samples", type=int)
    options.add_argument("--jpegs", type=int)
    options.add_argument("--size", type=int, default=160)
    options.add_argument("--ids", type=int)
    options.add_argument("--attack", action="append", default=[])
    options.add_argument("--eps", type=float, default=8 / 255)
    options.add_argument("--checked", type=int, default=100)
    options.add_argument("--gallery", type=int, default=4)
    options.add_argument("--out")
    options.add_argument("--train", action="store_true")
    options.add_argument("--json", type=Path)
    options.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.inside:
        print(json.dumps(inside(given)))
        return
    arguments = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        if given.jpegs:
            arguments += ["--data", str(write_images(Path(folder) / "train", given.jpegs, given.size).parent)]
        if given.ids:
            arguments += ["--data", str(write_links(Path(folder), given.ids))]
        found = curve(given, arguments)
    show(found)
    if given.json:
        given.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
