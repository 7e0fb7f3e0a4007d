"""The data sets known by name: one row each."""

from __future__ import annotations

import dataclasses

__all__ = ["DATASETS", "Source"]


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a named data set comes from; `hub` is empty for a bundled one."""

    name: str
    hub: str
    summary: str
    config: str | None = None


DATASETS: tuple[Source, ...] = (
    Source("digits", "", "bundled with scikit-learn: 1,297 + 500 handwritten digits, 8 x 8 grey, 10 classes"),
    Source("mnist", "ylecun/mnist", "60,000 + 10,000 handwritten digits, 28 x 28 grey, 10 classes"),
    Source("fashion_mnist", "zalando-datasets/fashion_mnist", "60,000 + 10,000 garments, 28 x 28 grey, 10 classes"),
    Source("notmnist", "anubhavmaity/notMNIST", "letters A to J from many fonts, 28 x 28 grey, 10 classes"),
    Source("cifar10", "uoft-cs/cifar10", "50,000 + 10,000 small photos, 32 x 32 color, 10 classes"),
    Source("cifar100", "uoft-cs/cifar100", "50,000 + 10,000 small photos, 32 x 32 color, 100 fine classes"),
    Source(
        "svhn",
        "ufldl-stanford/svhn",
        "73,257 + 26,032 house-number digits, 32 x 32 color, 10 classes",
        config="cropped_digits",
    ),
)
