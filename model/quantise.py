"""Factors as codes: int4 or int8 with one fp16 scale per rank component, or plain fp16 and fp32.

A factor is handled as a matrix ``(n, r)``, one column per rank component (A travels transposed). A component is
stored as one run of bytes, so the bytes of a package are the sum over its components.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from model.errors import ShapeError

Dtype = Literal["int4", "int8", "fp16", "fp32"]

_FLOATS = {"fp16": torch.float16, "fp32": torch.float32}
_LARGEST = {"int4": 7, "int8": 127}
_CLIPS = tuple(c / 20 for c in range(20, 8, -1))  # 1.00, 0.95 … 0.45


def code_bytes(n: int, dtype: Dtype) -> int:
    """Bytes of one component's ``n`` codes; int4 rounds up to whole bytes."""
    return {"int4": (n + 1) // 2, "int8": n, "fp16": 2 * n, "fp32": 4 * n}[dtype]


def scale_count(rank: int, dtype: Dtype) -> int:
    """Scales of one factor: one per component for the integers, none for the floats."""
    return rank if dtype in _LARGEST else 0


def encode(matrix: Tensor, dtype: Dtype) -> tuple[Tensor, Tensor]:
    """Quantise every column: ``x ≈ scale · code``, codes from −7 to 7 (int4) or −127 to 127 (int8).

    The scale is what fp16 can hold, and codes are taken against that. int8: the smallest fp16 number that lets the
    column's largest value have code 127, so every value is off by at most half a scale. int4: of several clippings
    of the largest value, the one with the smallest squared error; no clipping is among them, so a column of length
    n is off by at most ``√n / 2`` such scales.

    Args:
        matrix: ``(n, r)``, any float dtype.
        dtype: of the codes; the floats are plain casts without scales.

    Returns:
        Codes ``(r, code_bytes(n))`` uint8 (int4: two's complement nibbles, low nibble first, the last one 0 for odd
        n), and scales ``(r,)`` fp16, empty for the floats. A column that holds NaN, or values too large for an fp16
        scale, gets a scale that is not finite, and :func:`decode` refuses it.
    """
    columns = matrix.double().T.contiguous()
    if dtype in ("fp16", "fp32"):
        flat = columns.to(_FLOATS[dtype]).flatten()  # flat, as a dimension of size 1 may have any stride
        return flat.view(torch.uint8).view(columns.shape[0], -1), torch.empty(0, dtype=torch.float16)
    largest = _LARGEST[dtype]
    scales = _scales(columns, largest, _CLIPS if dtype == "int4" else (1.0,))
    codes = _codes(columns, scales, largest).to(torch.int8).view(torch.uint8)
    return (_pair(codes) if dtype == "int4" else codes), scales


def decode(codes: Tensor, scales: Tensor, n: int, dtype: Dtype, where: str = "") -> Tensor:
    """Values of the codes of :func:`encode`.

    Args:
        codes: ``(r, code_bytes(n))`` uint8, contiguous.
        scales: ``(r,)`` fp16, empty for the floats.
        n: length of a component.
        dtype: as given to :func:`encode`.
        where: named in errors.

    Returns:
        ``(n, r)`` float32; ``scale · code`` is exact in it.

    Raises:
        ShapeError: values or scales that are not finite, or codes that :func:`encode` never writes.
    """
    if dtype in ("fp16", "fp32"):
        values = codes.view(_FLOATS[dtype]).float()
    else:
        signed = _unpair(codes, n, where) if dtype == "int4" else codes.view(torch.int8)
        if (signed < -_LARGEST[dtype]).any() or (scales < 0).any():
            raise ShapeError(f"codes beyond the range of {dtype}", where, "send the package again")
        values = signed.float() * scales.float()[:, None]
    if not torch.isfinite(values).all():
        raise ShapeError(
            "NaN or infinite values", where, "training diverged: lower the learning rate and retrain"
        )
    return values.T


def _scales(columns: Tensor, largest: int, clips: tuple[float, ...]) -> Tensor:
    """Per row of ``columns (r, n)``, the scale with the smallest squared error; the first clip wins ties."""
    peak = columns.abs().amax(dim=1)
    chosen = _half_up(peak / largest)  # also for a row with NaN, where no error compares
    least = torch.full_like(peak, torch.inf)
    for clip in clips:
        scales = _half_up(peak * clip / largest)
        rounded = _codes(columns, scales, largest) * scales.double()[:, None]
        error = (rounded - columns).square().sum(dim=1)
        chosen = torch.where(error < least, scales, chosen)
        least = torch.minimum(error, least)
    return chosen


def _half_up(values: Tensor) -> Tensor:
    """The smallest fp16 numbers not below ``values ≥ 0``; infinity above 65504, NaN stays."""
    nearest = values.to(torch.float16)
    below = nearest.double() < values
    return torch.where(below, (nearest.view(torch.int16) + 1).view(torch.float16), nearest)


def _codes(columns: Tensor, scales: Tensor, largest: int) -> Tensor:
    """Rounded and clipped ``(r, n)``; all 0 for a scale of 0, which only a column of zeros has."""
    steps = torch.where(scales > 0, scales, 1).double()
    return (columns / steps[:, None]).round().clamp(-largest, largest).nan_to_num(0.0)


def _pair(codes: Tensor) -> Tensor:
    """Two codes per byte, low nibble first."""
    nibbles = torch.nn.functional.pad(codes & 15, (0, codes.shape[1] % 2))
    return nibbles[:, ::2] | (nibbles[:, 1::2] << 4)


def _unpair(codes: Tensor, n: int, where: str) -> Tensor:
    nibbles = torch.stack([codes & 15, codes >> 4], dim=2).flatten(1)
    if nibbles[:, n:].any():
        raise ShapeError("more codes than the layer has", where, "send the package again")
    return ((nibbles[:, :n] ^ 8).to(torch.int8)) - 8
