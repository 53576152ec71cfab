"""Adapters as bytes: round trips, and packages that must be refused."""

from __future__ import annotations

import json
import pickle
import random
import struct
from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor

from model.errors import PackageError, RankError, ShapeError
from model.factors import Factors, truncate_adapter
from model.package import Dtype, check_fit, pack_adapter, unpack_adapter

few = settings(deadline=None, max_examples=25)
SHAPES: dict[str, tuple[int, ...]] = {"down.0.conv.weight": (6, 2, 3, 3), "up.0.conv.bias": (4,)}
DTYPES: tuple[Dtype, ...] = ("int8", "fp16", "fp32")


def _adapter(seed: int = 1, rank: int = 3, scale: float = 1.0) -> dict[str, Factors]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "down.0.conv.weight": Factors(
            scale * torch.randn(6, rank, generator=generator, dtype=torch.float64),
            torch.randn(rank, 18, generator=generator, dtype=torch.float64),
        ),
        "up.0.conv.bias": Factors(
            torch.randn(4, 1, generator=generator, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
        ),
    }


def _package(changes: Mapping[str, Tensor | None], dtype: Dtype = "int8") -> bytes:
    """A good package with tensors replaced, added or (None) left out."""
    tensors = load(pack_adapter(_adapter(), dtype))
    for name, tensor in changes.items():
        if tensor is None:
            del tensors[name]
        else:
            tensors[name] = tensor
    return save(tensors)


def _craft(dtype: str, shape: list[int], payload: bytes) -> bytes:
    """A well-formed safetensors file of one tensor, of any dtype the format knows."""
    entry = {"dtype": dtype, "shape": shape, "data_offsets": [0, len(payload)]}
    header = json.dumps({"down.0.conv.weight|A": entry}).encode()
    return struct.pack("<Q", len(header)) + header + payload


@few
@given(seed=st.integers(0, 2**31), rank=st.integers(1, 6))
def test_fp32_gives_back_every_factor_to_float32(seed: int, rank: int) -> None:
    adapter = _adapter(seed, rank)
    back = unpack_adapter(pack_adapter(adapter, "fp32"))
    assert list(back) == sorted(adapter)
    for name, (B, A) in adapter.items():
        assert torch.equal(back[name].B, B.float())
        assert torch.equal(back[name].A, A.float())


@few
@given(seed=st.integers(0, 2**31), rank=st.integers(1, 6))
def test_fp16_is_off_by_at_most_half_a_unit_in_the_last_place(seed: int, rank: int) -> None:
    adapter = _adapter(seed, rank)
    back = unpack_adapter(pack_adapter(adapter, "fp16"))
    for name, (B, A) in adapter.items():
        torch.testing.assert_close(back[name].B.double(), B, rtol=2**-11, atol=2**-25)
        torch.testing.assert_close(back[name].A.double(), A, rtol=2**-11, atol=2**-25)


@few
@given(seed=st.integers(0, 2**31), rank=st.integers(1, 6), scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e6]))
def test_int8_is_off_by_at_most_half_a_scale_step(seed: int, rank: int, scale: float) -> None:
    adapter = _adapter(seed, rank, scale)
    back = unpack_adapter(pack_adapter(adapter, "int8"))
    for name, (B, A) in adapter.items():
        step_b = B.abs().amax(dim=0, keepdim=True) / 127
        step_a = A.abs().amax(dim=1, keepdim=True) / 127
        assert ((back[name].B - B).abs() <= 0.5001 * step_b).all()
        assert ((back[name].A - A).abs() <= 0.5001 * step_a).all()


@pytest.mark.parametrize("largest", [0.0, 1e-45, 3e-41, 1e-39, 1e-38])
def test_int8_is_safe_on_factors_below_the_smallest_normal_number(largest: float) -> None:
    tiny = Factors(torch.full((6, 1), largest), torch.full((1, 18), -largest))
    back = unpack_adapter(pack_adapter({"w": tiny}, "int8"))["w"]
    assert ((back.B - tiny.B).abs() <= 1.2e-38).all()
    assert (back.B >= 0).all()
    assert (back.A <= 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_adapters_give_equal_bytes(dtype: Dtype) -> None:
    turned_round = dict(reversed(_adapter().items()))
    assert pack_adapter(_adapter(), dtype) == pack_adapter(turned_round, dtype)
    assert pack_adapter(_adapter(), dtype) != pack_adapter(_adapter(seed=2), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_packing_what_was_unpacked_changes_nothing_more(dtype: Dtype) -> None:
    once = unpack_adapter(pack_adapter(truncate_adapter(_adapter(), 2)[0], dtype))
    twice = unpack_adapter(pack_adapter(once, dtype))
    for name in once:
        torch.testing.assert_close(twice[name].product(), once[name].product(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_good_package_fits(dtype: Dtype) -> None:
    check_fit(unpack_adapter(pack_adapter(_adapter(rank=3), dtype)), SHAPES, rank_max=3)


def test_int8_takes_a_quarter_of_fp32() -> None:
    wide = {"w": Factors(torch.ones(512, 16), torch.ones(16, 4608))}
    assert len(pack_adapter(wide, "int8")) < 0.26 * len(pack_adapter(wide, "fp32"))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"down.0.conv.weight|A": None}, ShapeError),
        ({"down.0.conv.weight|B": None, "down.0.conv.weight|b": None}, ShapeError),
        ({"down.0.conv.weight|a": None}, ShapeError),
        ({"down.0.conv.weight|b": torch.ones(1)}, ShapeError),
        ({"down.0.conv.weight|b": torch.ones(3, dtype=torch.float64)}, ShapeError),
        ({"down.0.conv.weight|b": torch.tensor([1.0, float("nan"), 1.0])}, ShapeError),
        ({"down.0.conv.weight|a": torch.tensor([1.0, float("inf"), 1.0])}, ShapeError),
        ({"down.0.conv.weight|B": torch.ones(6, 3)}, ShapeError),
        ({"down.0.conv.weight|B": torch.ones(6, 3, dtype=torch.uint8)}, ShapeError),
        ({"down.0.conv.weight|B": torch.ones(6, 2, dtype=torch.int8)}, RankError),
        ({"down.0.conv.weight|B": torch.ones(18, dtype=torch.int8)}, RankError),
        ({"down.0.conv.weight|A": torch.ones(3, 2, 3, 3, dtype=torch.int8)}, RankError),
        ({"down.0.conv.weight|A": torch.tensor(1, dtype=torch.int8)}, RankError),
        ({"momentum": torch.ones(3)}, PackageError),
        ({"down.0.conv.weight|C": torch.ones(3)}, PackageError),
        ({"new|a": torch.ones(3)}, ShapeError),
    ],
)
def test_an_int8_package_with_a_foreign_part_is_refused(
    changes: dict[str, Tensor | None], error: type[PackageError]
) -> None:
    with pytest.raises(error):
        unpack_adapter(_package(changes))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_that_are_not_finite_are_refused(value: float, dtype: Dtype) -> None:
    adapter = _adapter()
    adapter["up.0.conv.bias"].B[2] = value
    with pytest.raises(ShapeError, match=r"NaN or infinite"):
        unpack_adapter(pack_adapter(adapter, dtype))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int32, torch.bool, torch.complex64])
def test_a_dtype_that_is_not_offered_is_refused(dtype: torch.dtype) -> None:
    halves = {"w|A": torch.ones(2, 18).to(dtype), "w|B": torch.ones(6, 2).to(dtype)}
    with pytest.raises(ShapeError, match="not offered"):
        unpack_adapter(save(halves))


def test_int8_factors_without_scales_are_refused() -> None:
    with pytest.raises(ShapeError):
        unpack_adapter(_package({"up.0.conv.bias|a": None, "up.0.conv.bias|b": None}))


@pytest.mark.parametrize("dtype", ["F8_E8M0", "F8_E4M3", "F4", "I64", "C64"])
def test_a_file_of_a_dtype_torch_cannot_read_is_refused_like_any_other(dtype: str) -> None:
    elements = {"F4": 16, "I64": 1, "C64": 1}.get(dtype, 8)
    with pytest.raises(PackageError):
        unpack_adapter(_craft(dtype, [elements], bytes(8)))


@pytest.mark.parametrize(
    ("out", "rank", "inner"), [(6, 0, 18), (0, 2, 18), (6, 2, 0)], ids=["rank", "out", "in"]
)
def test_factors_without_extent_are_refused(out: int, rank: int, inner: int) -> None:
    package = save(
        {"down.0.conv.weight|B": torch.ones(out, rank), "down.0.conv.weight|A": torch.ones(rank, inner)}
    )
    with pytest.raises(PackageError):
        check_fit(unpack_adapter(package), {"down.0.conv.weight": (6, 2, 3, 3)}, 16)


class _Bomb:
    """A pickle that would be seen to run."""

    ran = False

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return setattr, (_Bomb, "ran", True)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00" * 8, b"PK\x03\x04" + b"\x00" * 60, b"{}", pickle.dumps(_Bomb()), b"\xff" * 64],
    ids=["empty", "no header", "zip", "json", "pickle", "huge header"],
)
def test_bytes_of_another_format_are_refused_unread(data: bytes) -> None:
    with pytest.raises(PackageError, match="not a safetensors file"):
        unpack_adapter(data)
    assert not _Bomb.ran


def test_the_pickle_that_is_refused_would_have_run() -> None:
    bomb = pickle.dumps(_Bomb())
    assert not _Bomb.ran
    pickle.loads(bomb)
    ran, _Bomb.ran = _Bomb.ran, False
    assert ran


def test_a_rank_beyond_the_limit_is_refused_with_both_numbers() -> None:
    with pytest.raises(RankError, match="rank 5, this round allows 4") as caught:
        check_fit(_adapter(rank=5), SHAPES, rank_max=4)
    assert "down.0.conv.weight" in caught.value.where


def test_layers_other_than_the_base_has_are_refused() -> None:
    adapter = _adapter()
    with pytest.raises(ShapeError, match=r"unknown layers.*stem"):
        check_fit({**adapter, "stem": adapter["up.0.conv.bias"]}, SHAPES, 8)
    with pytest.raises(ShapeError, match=r"missing layers.*bias"):
        check_fit({"down.0.conv.weight": adapter["down.0.conv.weight"]}, SHAPES, 8)
    with pytest.raises(ShapeError, match="missing layers"):
        check_fit({}, SHAPES, 8)


def test_sizes_other_than_the_base_has_are_refused() -> None:
    adapter = _adapter()
    B, A = adapter["down.0.conv.weight"]
    with pytest.raises(ShapeError, match="18 × 6, the base has 6 × 18"):
        check_fit({**adapter, "down.0.conv.weight": Factors(A.T, B.T)}, SHAPES, 8)


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_damage_is_refused_as_a_package_error_or_leaves_a_finite_fitting_adapter(dtype: Dtype) -> None:
    good = pack_adapter(_adapter(), dtype)
    dice = random.Random(dtype)
    refused = 0
    for _ in range(250):
        try:
            adapter = unpack_adapter(_damaged(good, dice))
            check_fit(adapter, SHAPES, rank_max=3)
        except PackageError:
            refused += 1
        else:
            assert all(torch.isfinite(f.B).all() and torch.isfinite(f.A).all() for f in adapter.values())
    assert refused > 100


def _damaged(good: bytes, dice: random.Random) -> bytes:
    """A copy with bytes flipped (mostly in the header, where they do most), a cut, or a splice."""
    data = bytearray(good)
    header_end = 8 + struct.unpack("<Q", good[:8])[0]
    kind = dice.randrange(4)
    if kind == 0:
        return bytes(data[: dice.randrange(len(data))])
    if kind == 1:
        at = dice.randrange(len(data))
        return bytes(data[:at] + dice.randbytes(dice.randrange(1, 9)) + data[at:])
    end = header_end if kind == 2 else len(data)
    for _ in range(dice.randrange(1, 4)):
        data[dice.randrange(end)] ^= 1 << dice.randrange(8)
    return bytes(data)


@few
@given(data=st.binary(max_size=200))
def test_random_bytes_are_refused_as_a_package_error(data: bytes) -> None:
    with pytest.raises(PackageError):
        check_fit(unpack_adapter(data), SHAPES, 8)
