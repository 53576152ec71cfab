"""One scanner's look put on slices that another scanner made: a systematic shift per site, for studies.

The anatomy stays where it is; grey curve, coil shading, sharpness and noise change.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

GAMMA = (1.5, 2.2)
BIAS = (0.3, 0.9)
BLUR_PX = (0.0, 1.2)
NOISE_SD = (0.05, 0.25)


@dataclass(frozen=True)
class ScannerLook:
    """What a scanner makes of every slice, always the same way.

    Attributes:
        gamma: exponent of the grey curve on a slice scaled to 0…1; above 1 darkens, below 1 lifts the dark.
        bias: log gain of the coil from the slice's centre to its border; the near border gains what the far one
            loses.
        bias_angle_rad: direction of the coil, 0 at the right, π/2 at the bottom.
        blur_px: standard deviation of the Gaussian blur, pixels.
        noise_sd: standard deviation of white noise, in units of the slice's standard deviation.
    """

    gamma: float
    bias: float
    bias_angle_rad: float
    blur_px: float
    noise_sd: float


def site_look(generator: Generator) -> ScannerLook:
    """Draw a look that differs from the original on every axis but blur.

    ln γ is uniform within ``±(ln 1.5 … ln 2.2)``, so that no site keeps the original contrast; the rest is uniform
    within ``BIAS``, the full circle, ``BLUR_PX`` and ``NOISE_SD``.

    Args:
        generator: the only source of randomness; the same state gives the same look.

    Returns:
        The look.
    """
    sign = 1.0 if _uniform(0.0, 1.0, generator) < 0.5 else -1.0
    return ScannerLook(
        gamma=math.exp(sign * _uniform(math.log(GAMMA[0]), math.log(GAMMA[1]), generator)),
        bias=_uniform(*BIAS, generator),
        bias_angle_rad=_uniform(0.0, 2 * math.pi, generator),
        blur_px=_uniform(*BLUR_PX, generator),
        noise_sd=_uniform(*NOISE_SD, generator),
    )


def apply_look(images: Tensor, look: ScannerLook, generator: Generator) -> Tensor:
    """Slices as the scanner ``look`` would show them: grey curve, coil, blur, noise, in this order.

    Every slice then gets back the mean and standard deviation it had. So a volume keeps those that
    ``model/intensity.py`` gave it, and which other slices stand in the tensor matters for the noise alone.

    Args:
        images: ``(N, 1, Y, X)`` float32, normalised.
        look: the scanner's.
        generator: of the noise alone.

    Returns:
        The same shape and dtype; a constant slice is returned as it is.
    """
    low = images.amin(dim=(2, 3), keepdim=True)
    span = (images.amax(dim=(2, 3), keepdim=True) - low).clamp_min(1e-6)
    bent = ((images - low) / span).clamp(0, 1).pow(look.gamma)
    blurred = _blur(bent * _coil(images, look), look.blur_px)
    noise = torch.randn(images.shape, generator=generator, dtype=images.dtype)
    return _match(_standard(blurred) + look.noise_sd * noise, images)


def _coil(images: Tensor, look: ScannerLook) -> Tensor:
    """Gain ``(Y, X)``: e^bias at the border next to the coil, e^−bias at the far one."""
    y, x = (torch.linspace(-1, 1, side, dtype=images.dtype) for side in images.shape[2:])
    along = math.sin(look.bias_angle_rad) * y[:, None] + math.cos(look.bias_angle_rad) * x[None, :]
    return torch.exp(look.bias * along)


def _blur(images: Tensor, sigma_px: float) -> Tensor:
    """Gaussian blur in plane, cut off at 3σ; the border continues outward."""
    reach = math.ceil(3 * sigma_px)
    if reach == 0:
        return images
    at = torch.arange(-reach, reach + 1, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (at / sigma_px) ** 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(images, (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))


def _standard(images: Tensor) -> Tensor:
    """Each slice with mean 0 and standard deviation 1; a constant one becomes 0."""
    mean, sd = images.mean(dim=(2, 3), keepdim=True), images.std(dim=(2, 3), correction=0, keepdim=True)
    return (images - mean) / sd.clamp_min(1e-6)


def _match(images: Tensor, originals: Tensor) -> Tensor:
    """Each slice with its original's mean and standard deviation."""
    mean, sd = originals.mean(dim=(2, 3), keepdim=True), originals.std(dim=(2, 3), correction=0, keepdim=True)
    return _standard(images) * sd + mean


def _uniform(low: float, high: float, generator: Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))
