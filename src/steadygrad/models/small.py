"""Small networks for digits, MNIST and CIFAR-10, as in the papers that are reproduced."""

from __future__ import annotations

import math

from torch import nn

from steadygrad.models.architectures import architecture

_YAN = "Yan, Guo & Zhang, NeurIPS 2018"


def he_initialize(module: nn.Module) -> nn.Module:
    """Convolutions with He et al.'s normal weights (fan-in) and zero biases, in place."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    return module


@architecture(
    "mlp",
    summary="fully connected 784-500-150-10, ReLU; inputs of any shape",
    reference=_YAN,
    input_shape=(1, 28, 28),
    smallest=0,
)
def mlp(shape: tuple[int, ...], classes: int, *, hidden: tuple[int, ...] = (500, 150)) -> nn.Module:
    """Fully connected layers with ReLU; `hidden` are the sizes between input and output."""
    width = math.prod(shape)
    layers: list[nn.Module] = [nn.Flatten()]
    for size in hidden:
        layers += [nn.Linear(width, size), nn.ReLU()]
        width = size
    return nn.Sequential(*layers, nn.Linear(width, classes))


@architecture(
    "lenet",
    summary="two 5x5 convolutions (20, 50) with max pooling and no ReLU, linear 500",
    reference=_YAN,
    input_shape=(1, 28, 28),
    smallest=16,
)
def lenet(shape: tuple[int, ...], classes: int, *, hidden: int = 500) -> nn.Module:
    """LeNet as in Caffe: the only ReLU follows the hidden linear layer."""
    height, width = (((s - 4) // 2 - 4) // 2 for s in shape[1:])
    return nn.Sequential(
        nn.Conv2d(shape[0], 20, 5),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(50 * height * width, hidden),
        nn.ReLU(),
        nn.Linear(hidden, classes),
    )


@architecture(
    "ross_cnn",
    summary="two 5x5 convolutions (32, 64) with batch norm and max pooling, linear 1024, dropout",
    reference="Ross & Doshi-Velez, AAAI 2018",
    input_shape=(1, 28, 28),
    smallest=4,
)
def ross_cnn(shape: tuple[int, ...], classes: int, *, hidden: int = 1024, dropout: float = 0.5) -> nn.Module:
    """The CNN of the input-gradient regularization paper; same padding in both convolutions."""
    height, width = (s // 2 // 2 for s in shape[1:])
    return nn.Sequential(
        *(nn.Conv2d(shape[0], 32, 5, padding=2), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 5, padding=2), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Flatten(),
        *(nn.Linear(64 * height * width, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(dropout)),
        nn.Linear(hidden, classes),
    )


@architecture(
    "convnet",
    summary="three 5x5 convolutions (32, 32, 64) with pooling, one of 4x4, linear",
    reference=_YAN,
    input_shape=(3, 32, 32),
    smallest=25,
)
def convnet(shape: tuple[int, ...], classes: int) -> nn.Module:
    """The CIFAR-10 ConvNet; sizes that 8 does not divide are rounded up by the pooling."""
    height, width = (-(-s // 8) - 3 for s in shape[1:])
    features = nn.Sequential(
        *(nn.Conv2d(shape[0], 32, 5, padding=2), nn.MaxPool2d(2, ceil_mode=True), nn.ReLU()),
        *(nn.Conv2d(32, 32, 5, padding=2), nn.ReLU(), nn.AvgPool2d(2, ceil_mode=True)),
        *(nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.AvgPool2d(2, ceil_mode=True)),
        *(nn.Conv2d(64, 64, 4), nn.ReLU()),
    )
    return nn.Sequential(*he_initialize(features).children(), nn.Flatten(), nn.Linear(64 * height * width, classes))


@architecture(
    "nin",
    summary="network in network: three blocks of one spatial and two 1x1 convolutions, dropout",
    reference=_YAN,
    input_shape=(3, 32, 32),
    smallest=4,
)
def nin(shape: tuple[int, ...], classes: int, *, dropout: float = 0.5) -> nn.Module:
    """Network in network; the last pooling averages over the whole map (8x8 for 32x32 images)."""

    def block(size: int, channels: tuple[int, int, int, int]) -> list[nn.Module]:
        first, second, third, last = channels
        return [
            *(nn.Conv2d(first, second, size, padding=size // 2), nn.ReLU()),
            *(nn.Conv2d(second, third, 1), nn.ReLU()),
            *(nn.Conv2d(third, last, 1), nn.ReLU()),
        ]

    network = nn.Sequential(
        *(*block(5, (shape[0], 192, 160, 96)), nn.MaxPool2d(2), nn.Dropout(dropout)),
        *(*block(5, (96, 192, 192, 192)), nn.AvgPool2d(2), nn.Dropout(dropout)),
        *block(3, (192, 192, 192, classes))[:-1],
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    return he_initialize(network)


@architecture(
    "digits_cnn",
    summary="two 3x3 convolutions, max pooling, linear: trains on the 8x8 digits in seconds",
    reference="the default of the demo",
    input_shape=(1, 8, 8),
    smallest=2,
)
def digits_cnn(shape: tuple[int, ...], classes: int, *, width: int = 32) -> nn.Module:
    """A CNN for very small gray images with `width` and 2 `width` channels."""
    height, breadth = (s // 2 for s in shape[1:])
    return nn.Sequential(
        *(nn.Conv2d(shape[0], width, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU()),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * width * height * breadth, classes),
    )


@architecture(
    "strided_cnn",
    summary="two 4x4 convolutions with stride 2 (16, 32), linear 100; no pooling, so that it can be certified",
    reference="after the small network of Gowal et al. 2018, arXiv 1810.12715",
    input_shape=(1, 28, 28),
    smallest=4,
)
def strided_cnn(shape: tuple[int, ...], classes: int, *, width: int = 16, hidden: int = 100) -> nn.Module:
    """A CNN of `width` and 2 `width` channels, which halves the image twice."""
    height, breadth = (s // 2 // 2 for s in shape[1:])
    return nn.Sequential(
        *(nn.Conv2d(shape[0], width, 4, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(width, 2 * width, 4, stride=2, padding=1), nn.ReLU()),
        nn.Flatten(),
        *(nn.Linear(2 * width * height * breadth, hidden), nn.ReLU()),
        nn.Linear(hidden, classes),
    )
