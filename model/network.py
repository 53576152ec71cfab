"""The segmentation network: a residual U-Net of MONAI blocks in which every layer is a plain convolution.

The decoder convolves at low resolution and then upsamples, which costs a quarter of the usual order; the last
level trades channels for pixels. No transposed convolution, so LoRA reaches every layer; instance normalisation
without affine keeps the network free of buffers and of site statistics.
"""

from __future__ import annotations

import torch
from monai.networks.blocks import Convolution, ResidualUnit
from torch import Tensor, nn

from model.labels import N_CLASSES

_NORM = ("INSTANCE", {"affine": False})
_ACT = ("LEAKYRELU", {"negative_slope": 0.01, "inplace": True})


class ResidualUNet(nn.Module):
    """Residual U-Net for 2-D slices.

    Args:
        channels: feature maps per level; every level but the last halves the resolution.

    Shape: input ``(N, 1, Y, X)`` with Y and X divisible by ``2 ** (len(channels) - 1)``; output logits
    ``(N, N_CLASSES, Y, X)``.

    Source: Kerfoot et al., "Left-Ventricle Quantification Using Residual U-Net", STACOM 2018; instead of
    transposed convolution, convolution and then upsampling by nearest neighbour, and at the top sub-pixel
    upsampling (Shi et al., CVPR 2016). With 4 output channels at full resolution, convolving after upsampling
    took a quarter of a training step.
    """

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        before = (1, *channels[:-1])
        last = len(channels) - 1
        self.down = nn.ModuleList(
            ResidualUnit(
                2,
                before[i],
                channels[i],
                strides=1 if i == last else 2,
                subunits=2,
                norm=_NORM,
                act=_ACT,
                bias=False,
            )
            for i in range(len(channels))
        )
        self.up = nn.ModuleList(
            _up_block(channels[i] + (channels[last] if i == last - 1 else channels[i]), channels, i)
            for i in reversed(range(last))
        )

        self.trained_levels = len(channels)
        """Levels, from the top, through which gradients flow; deeper ones only ever answer."""

    def forward(self, x: Tensor) -> Tensor:
        """Map slices ``(N, 1, Y, X)`` to logits ``(N, N_CLASSES, Y, X)``."""
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            if level == self.trained_levels:
                x = x.detach()
            x = block(x)
            skips.append(x)
        x = skips.pop()
        for block in self.up:
            x = block(torch.cat([x, skips.pop()], dim=1))
        return x


def _up_block(n_in: int, channels: tuple[int, ...], level: int) -> nn.Sequential:
    """Convolve, double the resolution, refine; the block at level 0 ends in bare logits."""
    if level == 0:
        n_out = 4 * N_CLASSES
        return nn.Sequential(
            Convolution(2, n_in, n_out, kernel_size=3, norm=_NORM, act=_ACT, bias=False),
            ResidualUnit(2, n_out, n_out, subunits=1, norm=_NORM, act=_ACT, last_conv_only=True),
            nn.PixelShuffle(2),
        )
    n_out = channels[level - 1]
    return nn.Sequential(
        Convolution(2, n_in, n_out, kernel_size=3, norm=_NORM, act=_ACT, bias=False),
        nn.Upsample(scale_factor=2, mode="nearest"),
        ResidualUnit(2, n_out, n_out, subunits=1, norm=_NORM, act=_ACT, bias=False),
    )


def build_net(channels: tuple[int, ...], generator: torch.Generator | None = None) -> ResidualUNet:
    """Build the network; with a generator its weights are He-initialised from it.

    Args:
        channels: feature maps per level, at least two.
        generator: source of the initial weights; None leaves torch's defaults, for weights loaded later.

    Returns:
        The network, every parameter trainable.
    """
    net = ResidualUNet(channels)
    if generator is not None:
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="leaky_relu", generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    return net


def level_of(name: str, depth: int) -> int:
    """Level of a parameter, 0 at full resolution.

    Args:
        name: such as ``down.2.residual.weight``; the decoder counts from the bottom, ``up.0`` refines level
            ``depth − 2``.
        depth: number of levels.

    Returns:
        Its level, up to ``depth − 1``.
    """
    side, place = name.split(".")[:2]
    return int(place) if side == "down" else depth - 2 - int(place)


def is_wide(weight: Tensor, wide_from: int) -> bool:
    """Whether a convolution has so many weights that low-rank training pays."""
    return weight.ndim == 4 and weight.numel() >= wide_from
