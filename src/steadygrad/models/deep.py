"""Deep convolutional networks in the variants used for CIFAR-10."""

from __future__ import annotations

from torch import Tensor, nn

from steadygrad.models.architectures import architecture
from steadygrad.models.small import he_initialize

# Channels in units of the width; 0 is max pooling.
_VGG16 = (1, 1, 0, 2, 2, 0, 4, 4, 4, 0, 8, 8, 8, 0, 8, 8, 8, 0)


@architecture(
    "vgg16",
    summary="VGG-16 with batch norm and one linear layer",
    reference="Zhang et al., IEEE TIP 30, 2021",
    input_shape=(3, 32, 32),
    smallest=32,
)
def vgg16(shape: tuple[int, ...], classes: int, *, width: int = 64) -> nn.Module:
    """VGG-16 with batch norm; `width` channels first, 8 `width` last, averaged over the last map."""
    layers: list[nn.Module] = []
    channels = shape[0]
    for factor in _VGG16:
        if factor:
            layers += [nn.Conv2d(channels, factor * width, 3, padding=1), nn.BatchNorm2d(factor * width), nn.ReLU()]
            channels = factor * width
        else:
            layers.append(nn.MaxPool2d(2))
    return he_initialize(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)))


@architecture(
    "alexnet",
    summary="AlexNet for small images: five convolutions, three poolings, two hidden linear layers, dropout",
    reference="Krizhevsky, Sutskever & Hinton, NeurIPS 2012",
    input_shape=(3, 32, 32),
    smallest=8,
)
def alexnet(
    shape: tuple[int, ...], classes: int, *, width: int = 64, hidden: int = 1024, dropout: float = 0.5
) -> nn.Module:
    """AlexNet with a 5x5 first convolution of stride 1; `width` channels first, 6 `width` at most."""
    height, breadth = (s // 8 for s in shape[1:])
    features = nn.Sequential(
        *(nn.Conv2d(shape[0], width, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(width, 3 * width, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(3 * width, 6 * width, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(6 * width, 4 * width, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(4 * width, 4 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
    )
    return nn.Sequential(
        *he_initialize(features).children(),
        nn.Flatten(),
        *(nn.Dropout(dropout), nn.Linear(4 * width * height * breadth, hidden), nn.ReLU()),
        *(nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.ReLU()),
        nn.Linear(hidden, classes),
    )


class Residual(nn.Module):
    """relu(f(x) + x) with two 3x3 convolutions in f; a 1x1 convolution fits x where shapes change."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *(nn.Conv2d(channels, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != width:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, H, W) to (N, width, H / stride, W / stride)."""
        out: Tensor = self.relu(self.branch(x) + self.shortcut(x))
        return out


@architecture(
    "resnet18",
    summary="ResNet-18 for small images: 3x3 first convolution, no first pooling",
    reference="He et al., CVPR 2016",
    input_shape=(3, 32, 32),
    smallest=8,
)
def resnet18(shape: tuple[int, ...], classes: int, *, width: int = 64) -> nn.Module:
    """The CIFAR variant of ResNet-18; `width` channels first, 8 `width` last."""
    layers: list[nn.Module] = [
        nn.Conv2d(shape[0], width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    ]
    channels = width
    for stage in range(4):
        for stride in (1 if stage == 0 else 2, 1):
            layers.append(Residual(channels, width * 2**stage, stride))
            channels = width * 2**stage
    return he_initialize(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)))
