"""An adapter as bytes: safetensors with int8, fp16 or fp32 factors, and the checks on the way back.

Per layer ``NAME``: tensors ``NAME|B (out, r)`` and ``NAME|A (r, in)``; for int8 also ``NAME|b (r,)`` and
``NAME|a (r,)``, one float32 scale per column of B and per row of A, so that ``B ≈ int8 · b`` and ``A ≈ a · int8``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from model.errors import PackageError, RankError, ShapeError
from model.factors import Adapter, Factors

Dtype = Literal["int8", "fp16", "fp32"]
_FLOATS = {"fp16": torch.float16, "fp32": torch.float32}


def pack_adapter(adapter: Adapter, dtype: Dtype) -> bytes:
    """Serialise an adapter; equal adapters give equal bytes.

    Args:
        adapter: balanced factors (:func:`model.factors.truncate`), so that rows have comparable ranges.
        dtype: ``int8`` keeps one scale per row; the other two are plain casts.

    Returns:
        A safetensors file that :func:`unpack_adapter` reads.
    """
    tensors: dict[str, Tensor] = {}
    for name, (B, A) in adapter.items():
        if dtype == "int8":
            tensors[f"{name}|B"], tensors[f"{name}|b"] = _quantise(B, dim=0)
            tensors[f"{name}|A"], tensors[f"{name}|a"] = _quantise(A, dim=1)
        else:
            tensors[f"{name}|B"] = B.to(_FLOATS[dtype]).contiguous()
            tensors[f"{name}|A"] = A.to(_FLOATS[dtype]).contiguous()
    return save(tensors)


def unpack_adapter(data: bytes) -> dict[str, Factors]:
    """Parse a package of any dtype.

    Args:
        data: bytes of :func:`pack_adapter`; their hash is checked by the caller.

    Returns:
        float32 factors by parameter name, sorted.

    Raises:
        PackageError: the bytes are not safetensors, or a tensor has a foreign name.
        RankError: factors that do not multiply.
        ShapeError: a dtype that is not offered, a missing half or scale, NaN or infinite values.
    """
    try:
        tensors = load(data)
    except SafetensorError as e:
        raise PackageError(f"not a safetensors file: {e}", mend="send the package again") from e
    except KeyError as e:  # a dtype that safetensors knows and torch's loader does not
        raise ShapeError(f"dtype {e} is not offered", mend="use int8, fp16 or fp32") from e
    layers: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, bar, part = key.rpartition("|")
        if not bar or part not in {"A", "B", "a", "b"}:
            raise PackageError(f"tensor '{key[:80]}' belongs to no layer", mend="pack with cardiofed")
        layers.setdefault(name, {})[part] = tensor
    return {name: _restore(name, layers[name]) for name in sorted(layers)}


def check_fit(adapter: Adapter, shapes: Mapping[str, tuple[int, ...]], rank_max: int) -> None:
    """Refuse an adapter that does not fit the base or the round.

    Args:
        adapter: parsed factors.
        shapes: the base's parameter shapes by name.
        rank_max: largest rank this round allows.

    Raises:
        RankError: a rank is beyond the limit.
        ShapeError: unknown layers, missing layers, or sizes that differ from the base.
    """
    foreign, missing = sorted(set(adapter) - set(shapes)), sorted(set(shapes) - set(adapter))
    if foreign or missing:
        said = f"unknown layers {foreign[:3]}" if foreign else f"missing layers {missing[:3]}"
        raise ShapeError(said, mend="train on the base that the plan names")
    for name, (B, A) in adapter.items():
        out, inner = shapes[name][0], _inner(shapes[name])
        if (B.shape[0], A.shape[1]) != (out, inner):
            raise ShapeError(
                f"factors make {B.shape[0]} × {A.shape[1]}, the base has {out} × {inner}", f"layer {name}"
            )
        if A.shape[0] > rank_max:
            raise RankError(
                f"rank {A.shape[0]}, this round allows {rank_max}",
                f"layer {name}",
                "lower lora.rank_max and retrain",
            )


def _inner(shape: tuple[int, ...]) -> int:
    size = 1
    for n in shape[1:]:
        size *= n
    return size


def _quantise(factor: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Symmetric int8 with one scale per rank component; ``dim`` is the axis that shares a scale."""
    largest = factor.abs().amax(dim=dim, keepdim=True).float()
    scale = (largest / 127).clamp_min(torch.finfo(torch.float32).tiny)  # never 0: no 0 / 0
    return (factor / scale).round().to(torch.int8).contiguous(), scale.flatten().contiguous()


def _restore(name: str, parts: dict[str, Tensor]) -> Factors:
    where = f"layer {name[:120]}"
    if set(parts) not in ({"A", "B"}, {"A", "B", "a", "b"}):
        raise ShapeError(f"incomplete: only {sorted(parts)}", where, "send the package again")
    B, A = parts["B"], parts["A"]
    if B.ndim != 2 or A.ndim != 2 or B.shape[1] != A.shape[0] or A.shape[0] < 1:
        raise RankError(
            f"B {tuple(B.shape)} and A {tuple(A.shape)} do not multiply", where, "send the package again"
        )
    if "b" in parts:
        B, A = _dequantise(B, parts["b"], where), _dequantise(A.T, parts["a"], where).T.contiguous()
    elif B.dtype != A.dtype or B.dtype not in _FLOATS.values():
        raise ShapeError(f"dtypes {B.dtype} and {A.dtype} are not offered", where, "use int8, fp16 or fp32")
    B, A = B.float(), A.float()
    if not (torch.isfinite(B).all() and torch.isfinite(A).all()):
        raise ShapeError(
            "NaN or infinite values", where, "training diverged: lower the learning rate and retrain"
        )
    return Factors(B, A)


def _dequantise(rows: Tensor, scale: Tensor, where: str) -> Tensor:
    if rows.dtype != torch.int8 or scale.dtype != torch.float32 or scale.shape != (rows.shape[1],):
        raise ShapeError(
            f"int8 factor with scale {tuple(scale.shape)} {scale.dtype}", where, "send the package again"
        )
    return rows.float() * scale
