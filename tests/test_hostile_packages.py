"""Packages that anybody may have sent: refused before they are decoded, and never longer than the sum can bear."""

from __future__ import annotations

import time
import tracemalloc
from math import prod

import pytest
import torch
from fuzz.mutate import assemble, parts

from model.errors import PackageError, RankError, ShapeError
from model.factors import Adapter, Factors, adapter_norm, fold, sum_adapters, truncate_adapter
from model.lora import layer_rank
from model.network import build_net
from model.package import Dtype, _index, pack_adapter, package_bytes, unpack_adapter
from tasks.unpack import NORM_MAX, length, open_package

NET = build_net((16, 32, 64, 128, 256), torch.Generator().manual_seed(1))
WEIGHTS = NET.state_dict()
SHAPES = {name: tuple(weight.shape) for name, weight in WEIGHTS.items()}
RANK_MAX, MAX_BYTES = 64, 4_000_000
LAYER = max(SHAPES, key=lambda name: prod(SHAPES[name]))
SECONDS_MAX, MEGABYTES_MAX = 3.0, 64.0


def drawn(name: str, rank: int, size: float = 0.05) -> Factors:
    generator = torch.Generator().manual_seed(rank)
    out, inner = SHAPES[name][0], prod(SHAPES[name][1:])
    return Factors(
        torch.randn(out, rank, generator=generator) * size,
        torch.randn(rank, inner, generator=generator) * size,
    )


def package(sizes: dict[str, tuple[int, int, int]], dtype: Dtype, codes: bytes, scales: bytes = b"") -> bytes:
    """A package of any sizes over any codes, in a frame that fits."""
    return assemble(scales, codes, _index(sizes, dtype))


def opened(data: bytes) -> dict[str, Factors]:
    return open_package(data, SHAPES, RANK_MAX)


def test_an_honest_package_is_opened_as_it_was_packed() -> None:
    update = {name: drawn(name, 4) for name in list(SHAPES)[:5]}
    data = pack_adapter(update, "int8")
    plain = unpack_adapter(data)
    assert opened(data).keys() == plain.keys()
    assert all(torch.equal(opened(data)[name].B, plain[name].B) for name in plain)


N = MAX_BYTES - 1000
MANY = {f"{k:06d}": (1, 1, 1) for k in range(N // 24)}
BOMBS = {
    "many layers": lambda: package(MANY, "fp16", bytes(4 * len(MANY))),
    "a list of empty lists": lambda: assemble(b"", b"", b'{"layers":[' + b"[]," * (N // 3) + b"[]]}"),
    "brackets": lambda: assemble(b"", b"", b"[" * N),
    "a rank of half a million": lambda: package(
        {LAYER: (1, 1, N // 7)}, "int4", bytes(2 * (N // 7)), bytes(4 * (N // 7))
    ),
    "a layer of 8 million": lambda: package({LAYER: (2 * N - 2, 1, 1)}, "int4", bytes(N), bytes(4)),
    "a foreign name of a megabyte": lambda: package({"x" * 1_000_000: (1, 1, 1)}, "fp16", bytes(4)),
    "a header of 2⁶³ bytes": lambda: (2**63).to_bytes(8, "little") + b"{" * N,
    "a header of 4 MB": lambda: N.to_bytes(8, "little") + b'{"a":' * (N // 5),
}


@pytest.mark.parametrize("what", BOMBS)
def test_a_package_that_promises_much_is_refused_before_it_is_decoded(what: str) -> None:
    data = BOMBS[what]()
    assert len(data) <= MAX_BYTES + 1000
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(PackageError) as said:
        opened(data)
    took, (_, peak) = time.process_time() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert took < SECONDS_MAX and peak < MEGABYTES_MAX * 1e6
    assert len(said.value.what) < 3000


@pytest.mark.parametrize(
    ("sizes", "what"),
    [
        ((2**31 - 1, 2**31 - 1, 1), ShapeError),
        ((2**31, 1, 1), ShapeError),
        ((0, 1, 1), ShapeError),
        ((1, 1, 0), RankError),
        ((-1, 1, 1), ShapeError),
    ],
)
def test_giant_and_empty_sizes_over_little_data_are_refused(
    sizes: tuple[int, int, int], what: type[PackageError]
) -> None:
    with pytest.raises(what):
        opened(package({LAYER: sizes}, "int8", bytes(100), bytes(4)))


@pytest.mark.parametrize("name", ["../../base", "/etc/passwd", "a/../b", "con:", "%2e%2e", "☃"])
def test_a_layers_name_is_looked_up_and_nothing_else(name: str) -> None:
    with pytest.raises(ShapeError, match="unknown layers"):
        opened(package({name: (1, 1, 1)}, "fp16", bytes(4)))


@pytest.mark.parametrize("name", ["a\x00b", "a\nb", "a\x1b[31m", "\u202egnp"])
def test_a_layers_name_that_does_not_print_is_refused(name: str) -> None:
    with pytest.raises(ShapeError, match="list of layers"):
        opened(package({name: (1, 1, 1)}, "fp16", bytes(4)))


def test_a_layer_that_stands_twice_is_refused() -> None:
    _, scales, codes, index = parts(pack_adapter({LAYER: drawn(LAYER, 1)}, "int8"))
    row = index[index.index(b"[[") + 1 : index.index(b"]]") + 1]
    twice = index.replace(row, row + b"," + row)
    with pytest.raises(ShapeError, match="listed twice"):
        opened(assemble(scales * 2, codes * 2, twice))


def test_a_header_whose_offsets_overlap_or_reach_out_is_refused() -> None:
    data = pack_adapter({LAYER: drawn(LAYER, 1)}, "int8")
    start = 8 + int.from_bytes(data[:8], "little")
    for old, new in (
        (b'"data_offsets":[0,', b'"data_offsets":[1,'),
        (b"U8", b"I8"),
        (b'"scales"', b'"scalez"'),
    ):
        header = data[8:start].replace(old, new)
        with pytest.raises(PackageError):
            opened(len(header).to_bytes(8, "little") + header + data[start:])


@pytest.mark.parametrize(
    ("dtype", "codes", "scales"),
    [
        ("int8", b"\x01\x01", b"\x00\x7c" * 2),
        ("int8", b"\x00\x00", b"\x00\x7c" * 2),
        ("int8", b"\x01\x01", b"\x00\x7e" * 2),
        ("int8", b"\x80\x01", b"\x00\x3c" * 2),
        ("int8", b"\x01\x01", b"\x00\xbc" * 2),
        ("int4", b"\x08\x01", b"\x00\x3c" * 2),
        ("fp16", b"\x00\x7c\x00\x3c", b""),
        ("fp16", b"\x00\x7e\x00\x3c", b""),
        ("fp32", b"\x00\x00\x80\x7f\x00\x00\x80\x3f", b""),
        ("fp32", b"\x00\x00\xc0\x7f\x00\x00\x80\x3f", b""),
    ],
)
def test_values_and_scales_that_are_not_finite_are_refused(dtype: Dtype, codes: bytes, scales: bytes) -> None:
    with pytest.raises(ShapeError):
        open_package(package({"w": (1, 1, 1)}, dtype, codes, scales), {"w": (1, 1)}, 4)


def test_the_smallest_numbers_there_are_do_no_harm() -> None:
    tiny = {LAYER: Factors(*(torch.full_like(f, 1e-45) for f in drawn(LAYER, 4)))}
    adapter = opened(pack_adapter(tiny, "fp32"))
    kept, lost = truncate_adapter(sum_adapters([(0.5, adapter)] * 2), 4)
    assert torch.isfinite(kept[LAYER].B).all() and lost >= 0
    assert all(torch.equal(fold(WEIGHTS, adapter)[name], WEIGHTS[name]) for name in WEIGHTS)


def scaled(size: float) -> dict[str, Factors]:
    """An update of every layer, of this norm."""
    update = {
        name: drawn(name, layer_rank(WEIGHTS[name], 4) if WEIGHTS[name].ndim > 1 else 1) for name in SHAPES
    }
    factor = (size / length(update)) ** 0.5
    return {name: Factors(B * factor, A * factor) for name, (B, A) in update.items()}


def test_an_update_is_refused_that_is_far_longer_than_any_honest_one() -> None:
    assert opened(pack_adapter(scaled(0.99 * NORM_MAX), "fp32"))
    with pytest.raises(ShapeError, match="at most 10000 is admitted"):
        opened(pack_adapter(scaled(1.01 * NORM_MAX), "fp32"))
    with pytest.raises(ShapeError, match="norm"):
        opened(pack_adapter({LAYER: Factors(*(torch.full_like(f, 3e38) for f in drawn(LAYER, 2)))}, "fp32"))


def test_the_longest_update_that_is_admitted_leaves_the_network_finite() -> None:
    longest = opened(pack_adapter(scaled(0.99 * NORM_MAX), "fp32"))
    NET.load_state_dict(fold(WEIGHTS, longest))
    with torch.inference_mode():
        assert torch.isfinite(NET(torch.randn(1, 1, 96, 96))).all()
    NET.load_state_dict(WEIGHTS)


def cancelling(size: float) -> dict[str, Factors]:
    """Two components that are huge, and together nothing."""
    B, A = drawn(LAYER, 1)
    return {LAYER: Factors(torch.cat([B * size, -B * size], 1), torch.cat([A * size, A * size]))}


def test_components_that_cancel_out_cannot_hide_their_size() -> None:
    huge = cancelling(1e15)
    assert length(huge) > NORM_MAX
    honest: Adapter = {LAYER: drawn(LAYER, 2)}
    together, _ = truncate_adapter(sum_adapters([(0.5, huge), (0.5, honest)]), RANK_MAX)
    off = adapter_norm(sum_adapters([(1.0, together), (-0.5, honest)])) / adapter_norm(honest)
    assert off > 0.1, "without the bound it drowns the others in rounding"
    with pytest.raises(ShapeError, match="norm"):
        opened(pack_adapter(huge, "fp32"))


def test_the_length_is_the_norm_of_what_training_sends() -> None:
    balanced, _ = truncate_adapter({LAYER: drawn(LAYER, 8)}, 8)
    assert length(balanced) == pytest.approx(adapter_norm(balanced), rel=1e-9)


def test_the_highest_ranks_everywhere_are_admitted_and_merged_in_seconds() -> None:
    full = {name: drawn(name, RANK_MAX, 1e-3) for name in SHAPES}
    sizes = {name: (f.B.shape[0], f.A.shape[1], RANK_MAX) for name, f in full.items()}
    data = pack_adapter(full, "int4")
    assert len(data) == package_bytes(sizes, "int4") < MAX_BYTES
    started = time.process_time()
    adapter = opened(data)
    truncate_adapter(sum_adapters([(0.1, adapter)] * 10), RANK_MAX)
    assert time.process_time() - started < 15
