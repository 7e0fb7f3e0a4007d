"""A vision transformer for small images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.errors import UsageError
from steadygrad.models.architectures import architecture


class Block(nn.Module):
    """Pre-norm self-attention and a two-layer GELU network, each added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Maps tokens (N, T, D) to tokens (N, T, D)."""
        n, t, d = x.shape
        qkv = self.qkv(self.norm1(x)).view(n, t, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (N, heads, T, D / heads) each
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, d)
        x = x + self.project(mixed)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class ViT(nn.Module):
    """Patches with learned positions through transformer blocks; the mean token is classified."""

    def __init__(self, shape: tuple[int, ...], classes: int, patch: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        channels, height, breadth = shape
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        self.positions = nn.Parameter(torch.empty(1, (height // patch) * (breadth // patch), width))
        # As large as the patches: on small data the customary 0.02 learns positions several times slower.
        nn.init.normal_(self.positions, std=0.5)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (N, C, H, W) to logits (N, K)."""
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.positions  # (N, T, D)
        logits: Tensor = self.head(self.norm(self.blocks(tokens)).mean(1))
        return logits


@architecture(
    "vit",
    summary="tiny vision transformer: patches, attention, GELU; no rectifier, so it has curvature",
    reference="Dosovitskiy et al., ICLR 2021",
    input_shape=(3, 32, 32),
    smallest=2,
)
def vit(
    shape: tuple[int, ...], classes: int, *, patch: int = 4, width: int = 64, depth: int = 4, heads: int = 4
) -> nn.Module:
    """A vision transformer over patches of `patch` x `patch` pixels, which must divide the image."""
    height, breadth = shape[1:]
    if height % patch or breadth % patch:
        possible = [p for p in range(1, min(height, breadth) + 1) if height % p == 0 and breadth % p == 0]
        raise UsageError(
            f"vit cuts images into patches of {patch} x {patch} pixels, so height and width must be multiples of "
            f"{patch} (smallest image: {patch} x {patch}), got {shape}; settings of 'patch' that fit: {possible}"
        )
    if width % heads:
        raise UsageError(f"setting 'width' of vit must be a multiple of 'heads' ({heads}), got {width}")
    return ViT(shape, classes, patch, width, depth, heads)
