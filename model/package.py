"""An adapter as bytes: a safetensors file of three tensors, and the checks on the way back.

``layers`` uint8   JSON ``{"version":1,"dtype":…,"layers":[[name,out,in,rank],…]}`` without spaces, names sorted
``scales`` fp16    per layer one for each column of B, then one for each row of A; empty for fp16 and fp32
``codes``  uint8   per layer the columns of B, then the rows of A (:mod:`model.quantise`)

A tensor per factor would spend over 100 bytes of header on each. There is one notation for a list of layers, and only
that is read: other spacing, order, fields or tensors are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

from model.errors import PackageError, RankError, ShapeError
from model.factors import Adapter, Factors
from model.quantise import Dtype as Dtype
from model.quantise import code_bytes, decode, encode, scale_count

if TYPE_CHECKING:
    from typing_extensions import Buffer

Sizes = tuple[int, int, int]
"""``(out, in, rank)`` of a layer."""

_VERSION = 1
_DTYPES: tuple[Dtype, ...] = ("int4", "int8", "fp16", "fp32")
_SIZE_LIMIT = 2**31
_FRAME_LIMIT = 4096  # ours takes about 200
_AGAIN = "send the package again"
_PACK = "pack with this version of cardiofed"


def pack_adapter(adapter: Adapter, dtype: Dtype) -> bytes:
    """Serialise an adapter; equal adapters give equal bytes.

    Args:
        adapter: balanced factors (:func:`model.factors.truncate`), so that components have comparable ranges.
        dtype: ``int4`` and ``int8`` keep one scale per component; the other two are plain casts.

    Returns:
        A safetensors file that :func:`unpack_adapter` reads, of :func:`package_bytes` bytes.

    Raises:
        RankError: factors that do not multiply.
    """
    sizes: dict[str, Sizes] = {}
    scales, codes = [], []
    for name in sorted(adapter):
        B, A = adapter[name]
        if B.ndim != 2 or A.ndim != 2 or B.shape[1] != A.shape[0] or A.shape[0] < 1:
            raise RankError(f"B {tuple(B.shape)} and A {tuple(A.shape)} do not multiply", f"layer {name}")
        sizes[name] = (B.shape[0], A.shape[1], A.shape[0])
        for matrix in (B, A.T):
            code, scale = encode(matrix, dtype)
            codes.append(code.numpy().tobytes())
            scales.append(scale.numpy().tobytes())
    index = _index(sizes, dtype)
    frame = _frame(sum(map(len, scales)) // 2, sum(map(len, codes)), len(index))
    return b"".join([frame, *scales, *codes, index])


def package_bytes(ranks: Mapping[str, Sizes], dtype: Dtype) -> int:
    """Exact length of the package that such an adapter makes.

    Args:
        ranks: layer → ``(out, in, rank)``.
        dtype: of the codes.

    Returns:
        ``len(pack_adapter(…))``, without packing.
    """
    n_scales = 2 * scale_count(sum(r for _, _, r in ranks.values()), dtype)
    n_codes = sum(_layer_bytes(*sizes, dtype) for sizes in ranks.values())
    n_index = len(_index(ranks, dtype))
    return len(_frame(n_scales, n_codes, n_index)) + 2 * n_scales + n_codes + n_index


def component_bytes(out: int, inner: int, dtype: Dtype) -> int:
    """Bytes that one more rank of a layer adds: a column, a row and their scales."""
    return _layer_bytes(out, inner, 1, dtype) + 4 * scale_count(1, dtype)


class PackageView:
    """A package read layer by layer: opening it checks its structure, :meth:`factors` checks and decodes one layer.

    Args:
        buffer: the package's bytes, or an ``mmap`` of its file; kept, not copied. An ``mmap`` can only be closed
            after its view is gone.

    Attributes:
        dtype: of the codes.
        sizes: layer → ``(out, in, rank)``, sorted by name.

    Raises:
        PackageError: the bytes are not safetensors, or hold other tensors than a package.
        RankError: a rank below 1.
        ShapeError: an index that is not understood, or sizes that do not add up to the bytes that are there.
    """

    def __init__(self, buffer: Buffer) -> None:
        self._bytes = memoryview(buffer).cast("B")
        start, n_scales, n_codes = _read_frame(self._bytes)
        first_code = start + 2 * n_scales
        self.dtype, self.sizes = _read_index(bytes(self._bytes[first_code + n_codes :]))
        self._places: dict[str, tuple[int, int]] = {}
        scale, code = start, first_code
        for name, (out, inner, rank) in self.sizes.items():
            self._places[name] = (scale, code)
            scale += 4 * scale_count(rank, self.dtype)
            code += _layer_bytes(out, inner, rank, self.dtype)
        if (scale, code) != (first_code, first_code + n_codes):
            raise ShapeError("the layers' sizes do not add up to the package's", mend=_AGAIN)

    @property
    def layers(self) -> tuple[str, ...]:
        """Parameter names, sorted."""
        return tuple(self.sizes)

    def factors(self, name: str) -> Factors:
        """Decode one layer.

        Args:
            name: of :attr:`layers`.

        Returns:
            float32 factors.

        Raises:
            ShapeError: no such layer, values that are not finite, or codes that are never written.
        """
        if name not in self.sizes:
            raise ShapeError("the package has no such layer", _where(name))
        out, inner, rank = self.sizes[name]
        scale, code = self._places[name]
        B = self._factor(name, scale, code, out, rank)
        scale += 2 * scale_count(rank, self.dtype)
        code += rank * code_bytes(out, self.dtype)
        A = self._factor(name, scale, code, inner, rank)
        return Factors(B.contiguous(), A.T.contiguous())

    def _factor(self, name: str, scale: int, code: int, n: int, rank: int) -> Tensor:
        """One factor as ``(n, rank)``, from its first scale and its first code."""
        width, n_scales = code_bytes(n, self.dtype), scale_count(rank, self.dtype)
        codes = np.frombuffer(self._bytes, np.uint8, rank * width, code).copy()
        scales = np.frombuffer(self._bytes, "<f2", n_scales, scale).copy() if n_scales else np.zeros(0, "<f2")
        return decode(
            torch.from_numpy(codes).view(rank, width), torch.from_numpy(scales), n, self.dtype, _where(name)
        )


def unpack_adapter(data: Buffer) -> dict[str, Factors]:
    """Parse a package of any dtype.

    Args:
        data: bytes of :func:`pack_adapter`; their hash is checked by the caller.

    Returns:
        float32 factors by parameter name, sorted; whatever :class:`PackageView` refuses is refused.
    """
    view = PackageView(data)
    return {name: view.factors(name) for name in view.layers}


def check_fit(adapter: Adapter, shapes: Mapping[str, tuple[int, ...]], rank_max: int) -> None:
    """Refuse an adapter that does not fit the base or the round; a layer it lacks is a layer it leaves as it is.

    Args:
        adapter: parsed factors.
        shapes: the base's parameter shapes by name.
        rank_max: largest rank this round allows.

    Raises:
        RankError: a rank is beyond the limit.
        ShapeError: no layers, unknown layers, or sizes that differ from the base.
    """
    if not adapter:
        raise ShapeError("the adapter has no layers", mend="send at least one layer")
    if foreign := sorted(set(adapter) - set(shapes)):
        raise ShapeError(f"unknown layers {foreign[:3]}", mend="train on the base that the plan names")
    for name, (B, A) in adapter.items():
        out, inner = shapes[name][0], prod(shapes[name][1:])
        if (B.shape[0], A.shape[1]) != (out, inner):
            raise ShapeError(
                f"factors make {B.shape[0]} × {A.shape[1]}, the base has {out} × {inner}", _where(name)
            )
        if A.shape[0] > rank_max:
            raise RankError(
                f"rank {A.shape[0]}, this round allows {rank_max}",
                _where(name),
                "lower lora.rank_max and retrain",
            )


def _where(name: str) -> str:
    return f"layer {name[:120]}"


def _layer_bytes(out: int, inner: int, rank: int, dtype: Dtype) -> int:
    return rank * (code_bytes(out, dtype) + code_bytes(inner, dtype))


def _index(sizes: Mapping[str, Sizes], dtype: str) -> bytes:
    """The ``layers`` tensor."""
    listed = [[name, *sizes[name]] for name in sorted(sizes)]
    return _json({"version": _VERSION, "dtype": dtype, "layers": listed})


def _frame(n_scales: int, n_codes: int, n_layers: int) -> bytes:
    """safetensors' header, byte for byte as its own library writes it: wide types first, then by name."""
    header, at = {}, 0
    for name, dtype, count, width in (
        ("scales", "F16", n_scales, 2),
        ("codes", "U8", n_codes, 1),
        ("layers", "U8", n_layers, 1),
    ):
        header[name] = {"dtype": dtype, "shape": [count], "data_offsets": [at, at + width * count]}
        at += width * count
    text = _json(header)
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _read_frame(data: memoryview) -> tuple[int, int, int]:
    """Where the scales start, and the number of scales and of codes; the rest is the index."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise PackageError("not a safetensors file: its header is cut off", mend=_AGAIN)
    start = 8 + length
    try:
        header = json.loads(bytes(data[8 : 8 + min(length, _FRAME_LIMIT)]).decode())
        counts = [header[name]["shape"][0] for name in ("scales", "codes", "layers")]
    except (ValueError, RecursionError) as e:
        foreign = length > _FRAME_LIMIT
        said = f"a header of {length} bytes" if foreign else f"not a safetensors file: {e}"
        raise PackageError(said, mend=_PACK if foreign else _AGAIN) from e
    except (KeyError, TypeError, IndexError) as e:
        raise PackageError("a safetensors file that is no adapter", mend=_PACK) from e
    if not all(type(n) is int and 0 <= n < _SIZE_LIMIT for n in counts) or _frame(*counts) != data[:start]:
        raise PackageError("tensors other than a package's scales, codes and layers", mend=_PACK)
    if start + 2 * counts[0] + counts[1] + counts[2] != len(data):
        raise PackageError("the package is cut off or has bytes after its end", mend=_AGAIN)
    return start, counts[0], counts[1]


def _read_index(data: bytes) -> tuple[Dtype, dict[str, Sizes]]:
    """Dtype and sizes by layer; the bytes must be those that :func:`_index` makes of them."""
    try:
        index = json.loads(data.decode())
        version, dtype, rows = index["version"], index["dtype"], index["layers"]
        sizes = dict(_row(*row) for row in rows)
        same = _index(sizes, dtype) == data
    except (ValueError, RecursionError, KeyError, TypeError) as e:
        raise ShapeError("the list of layers is not understood", mend=_PACK) from e
    if version != _VERSION or dtype not in _DTYPES:
        raise ShapeError(f"version {version!r:.20} with dtype {dtype!r:.20} is not offered", mend=_PACK)
    if not same:
        raise ShapeError("layers are listed twice, out of order or in another notation", mend=_PACK)
    return dtype, sizes


def _row(name: object, out: object, inner: object, rank: object) -> tuple[str, Sizes]:
    if not isinstance(name, str) or not name.isprintable() or not (_is_size(out) and _is_size(inner)):
        raise TypeError
    if not _is_size(rank):
        raise RankError("a rank is not a number from 1", _where(name), _AGAIN)
    return name, (out, inner, rank)


def _is_size(n: object) -> TypeGuard[int]:
    return type(n) is int and 1 <= n < _SIZE_LIMIT
