"""Tiny seeded networks for tests: every kind of layer that matters, in float32 or float64."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KINDS = ("mlp", "conv", "residual", "attention")


class _Residual(nn.Module):
    def __init__(self, channels: int, classes: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.inner = nn.Conv2d(4, 4, 3, padding=1)
        self.act = activation()
        self.head = nn.Linear(4, classes)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.act(self.norm(self.stem(x)))
        hidden = self.act(hidden + self.inner(hidden))
        return self.head(hidden.mean((2, 3)))


class _Attention(nn.Module):
    def __init__(self, channels: int, side: int, classes: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.embed = nn.Conv2d(channels, 8, 2, stride=2)
        self.qkv = nn.Linear(8, 24)
        self.norm = nn.LayerNorm(8)
        self.act = activation()
        self.head = nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2)  # (N, T, 8)
        q, k, v = self.qkv(self.norm(tokens)).view(*tokens.shape[:2], 3, 2, 4).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.head(self.act(tokens + mixed).mean(1))


def build(
    kind: str = "mlp",
    *,
    classes: int = 3,
    shape: tuple[int, int, int] = (1, 4, 4),
    activation: type[nn.Module] = nn.Softplus,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> nn.Module:
    """A network of one of `KINDS` from inputs (N, *shape) to logits (N, classes), in evaluation mode."""
    channels, side, _ = shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "mlp":
            entries = channels * side * side
            net: nn.Module = nn.Sequential(
                nn.Flatten(),
                nn.Linear(entries, 12),
                activation(),
                nn.Linear(12, 8),
                activation(),
                nn.Linear(8, classes),
            )
        elif kind == "conv":
            net = nn.Sequential(
                nn.Conv2d(channels, 4, 3, padding=1),
                nn.BatchNorm2d(4),
                activation(),
                nn.AvgPool2d(2),
                nn.Conv2d(4, 6, 2),
                activation(),
                nn.Flatten(),
                nn.Linear(6 * (side // 2 - 1) ** 2, classes),
            )
        elif kind == "residual":
            net = _Residual(channels, classes, activation)
        elif kind == "attention":
            net = _Attention(channels, side, classes, activation)
        else:
            raise ValueError(kind)
        # Weights of some size: an untrained network is almost linear and would hide mistakes.
        with torch.no_grad():
            for parameter in net.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(2.0)
            for buffer_name, buffer in net.named_buffers():
                if buffer_name.endswith("running_mean"):
                    buffer.normal_(0.0, 0.2)
                elif buffer_name.endswith("running_var"):
                    buffer.uniform_(0.5, 1.5)
    return net.to(dtype).eval()


def still(net: nn.Module) -> nn.Module:
    """The network with running statistics that stay as they are, in training mode too."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 0.0
    return net


def inputs(
    count: int = 4, *, shape: tuple[int, ...] = (1, 4, 4), dtype: torch.dtype = torch.float32, seed: int = 1
) -> Tensor:
    """Seeded inputs (count, *shape) within [0, 1]."""
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
