"""Adapters as bytes: round trips, and packages that must be refused."""

from __future__ import annotations

import json
import mmap
import pickle
import random
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor

from model.errors import PackageError, RankError, ShapeError
from model.factors import Factors, truncate_adapter
from model.package import (
    Dtype,
    PackageView,
    check_fit,
    component_bytes,
    pack_adapter,
    package_bytes,
    unpack_adapter,
)

few = settings(deadline=None, max_examples=25)
SHAPES: dict[str, tuple[int, ...]] = {"down.0.conv.weight": (6, 2, 3, 3), "up.0.conv.bias": (4,)}
DTYPES: tuple[Dtype, ...] = ("int4", "int8", "fp16", "fp32")


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


def _package(dtype: Dtype = "int8", **changes: Tensor | None) -> bytes:
    """A good package with tensors replaced, added or (None) left out."""
    tensors = {**load(pack_adapter(_adapter(), dtype)), **changes}
    return save({name: tensor for name, tensor in tensors.items() if tensor is not None})


def _index(*rows: object, dtype: object = "int8", **more: object) -> Tensor:
    """A ``layers`` tensor that says anything."""
    text = json.dumps({"version": 1, "dtype": dtype, "layers": list(rows), **more}, separators=(",", ":"))
    return _letters(text)


def _letters(text: str | bytes) -> Tensor:
    return torch.tensor(list(text.encode() if isinstance(text, str) else text), dtype=torch.uint8)


def _frame(header: object, payload: bytes = b"") -> bytes:
    """A safetensors file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + payload


ROWS = (["down.0.conv.weight", 6, 18, 3], ["up.0.conv.bias", 4, 1, 1])


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
@given(seed=st.integers(0, 2**31), rank=st.integers(1, 6), dtype=st.sampled_from(["int8", "int4"]))
def test_a_product_is_off_by_at_most_what_its_factors_are(seed: int, rank: int, dtype: Dtype) -> None:
    adapter = _adapter(seed, rank)
    back = unpack_adapter(pack_adapter(adapter, dtype))
    largest = {"int8": 127, "int4": 7}[dtype]
    for name, (B, A) in adapter.items():
        # per component ‖x − x̂‖ ≤ √n · scale / 2, and the scale is max |x| / largest rounded up
        off_b = (B.abs().amax(dim=0) * 1.001 / largest + 2**-24) * B.shape[0] ** 0.5 / 2
        off_a = (A.abs().amax(dim=1) * 1.001 / largest + 2**-24) * A.shape[1] ** 0.5 / 2
        bound = (off_b * A.norm(dim=1) + B.norm(dim=0) * off_a + off_b * off_a).sum()
        assert (back[name].product() - B @ A).norm() <= bound


@few
@given(
    dtype=st.sampled_from(["int4", "int8", "fp16", "fp32"]),
    sizes=st.dictionaries(
        st.text(st.characters(categories=["L", "N", "P"]), max_size=12),
        st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12)),
        max_size=5,
    ),
)
def test_the_size_of_a_package_is_known_before_packing(
    dtype: Dtype, sizes: dict[str, tuple[int, int, int]]
) -> None:
    adapter = {
        name: Factors(torch.ones(out, r), torch.ones(r, inner)) for name, (out, inner, r) in sizes.items()
    }
    data = pack_adapter(adapter, dtype)
    assert package_bytes(sizes, dtype) == len(data)
    assert list(unpack_adapter(data)) == sorted(sizes)


def test_one_more_rank_costs_its_column_its_row_and_two_scales() -> None:
    assert component_bytes(6, 18, "int8") == 6 + 18 + 4
    assert component_bytes(5, 18, "int4") == 3 + 9 + 4
    assert component_bytes(6, 18, "fp16") == 48
    for dtype in DTYPES:
        three, four = (package_bytes({"w": (6, 18, r)}, dtype) for r in (3, 4))
        assert four - three == component_bytes(6, 18, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_package_is_the_file_that_safetensors_itself_would_write(dtype: Dtype) -> None:
    data = pack_adapter(_adapter(), dtype)
    tensors = load(data)
    assert sorted(tensors) == ["codes", "layers", "scales"]
    assert save(tensors) == data


def test_the_layers_are_named_once_in_plain_json() -> None:
    assert bytes(load(pack_adapter(_adapter(), "int8"))["layers"].tolist()) == (
        b'{"version":1,"dtype":"int8","layers":[["down.0.conv.weight",6,18,3],["up.0.conv.bias",4,1,1]]}'
    )


def test_twenty_four_layers_cost_less_than_two_kilobytes_of_header() -> None:
    sizes = {f"down.{i}.conv.unit0.conv.weight": (256, 2304, 16) for i in range(24)}
    codes_and_scales = 24 * 16 * (256 + 2304 + 4)
    assert package_bytes(sizes, "int8") - codes_and_scales < 2000


def test_factors_that_do_not_multiply_are_not_packed() -> None:
    for B, A in (((6, 2), (3, 18)), ((6, 0), (0, 18)), ((6,), (1, 18))):
        with pytest.raises(RankError, match="do not multiply"):
            pack_adapter({"w": Factors(torch.ones(B), torch.ones(A))}, "int8")


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_view_reads_single_layers_of_a_mapped_file(dtype: Dtype, tmp_path: Path) -> None:
    data = pack_adapter(_adapter(), dtype)
    (tmp_path / "adapter").write_bytes(data)
    whole = unpack_adapter(data)
    with (tmp_path / "adapter").open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    view = PackageView(mapped)
    assert view.dtype == dtype
    assert view.layers == tuple(whole)
    assert view.sizes == {"down.0.conv.weight": (6, 18, 3), "up.0.conv.bias": (4, 1, 1)}
    for name in reversed(view.layers):
        assert torch.equal(view.factors(name).B, whole[name].B)
        assert torch.equal(view.factors(name).A, whole[name].A)
    with pytest.raises(ShapeError, match="no such layer"):
        view.factors("stem")
    del view
    mapped.close()


def test_a_faulty_layer_is_refused_alone() -> None:
    adapter = _adapter()
    adapter["up.0.conv.bias"].B[2] = torch.nan
    view = PackageView(pack_adapter(adapter, "int4"))
    assert view.factors("down.0.conv.weight").rank == 3
    with pytest.raises(ShapeError, match="NaN or infinite"):
        view.factors("up.0.conv.bias")


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
        torch.testing.assert_close(twice[name].product(), once[name].product(), rtol=4e-3, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_good_package_fits(dtype: Dtype) -> None:
    check_fit(unpack_adapter(pack_adapter(_adapter(rank=3), dtype)), SHAPES, rank_max=3)


def test_int8_takes_a_quarter_of_fp32() -> None:
    wide = {"w": Factors(torch.ones(512, 16), torch.ones(16, 4608))}
    assert len(pack_adapter(wide, "int8")) < 0.26 * len(pack_adapter(wide, "fp32"))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"momentum": torch.ones(3)}, PackageError),
        ({"scales": None}, PackageError),
        ({"codes": None}, PackageError),
        ({"layers": None}, PackageError),
        ({"scales": torch.ones(8)}, PackageError),
        ({"scales": torch.ones(2, 4).half()}, PackageError),
        ({"codes": torch.ones(3, 25, dtype=torch.uint8)}, PackageError),
        ({"codes": torch.ones(77, dtype=torch.int8)}, PackageError),
        ({"scales": torch.ones(7).half()}, ShapeError),
        ({"codes": torch.ones(76, dtype=torch.uint8)}, ShapeError),
        ({"codes": torch.ones(78, dtype=torch.uint8)}, ShapeError),
        ({"scales": torch.full((8,), torch.nan).half()}, ShapeError),
        ({"scales": torch.full((8,), torch.inf).half()}, ShapeError),
        ({"scales": torch.full((8,), -1.0).half()}, ShapeError),
        ({"codes": torch.full((77,), 128, dtype=torch.uint8)}, ShapeError),
    ],
)
def test_a_package_of_other_tensors_or_sizes_is_refused(
    changes: dict[str, Tensor | None], error: type[PackageError]
) -> None:
    assert load(pack_adapter(_adapter(), "int8"))["codes"].numel() == 3 * (6 + 18) + (4 + 1)
    with pytest.raises(error):
        unpack_adapter(_package(**changes))


@pytest.mark.parametrize(
    "layers",
    [
        _index(*reversed(ROWS)),
        _index(ROWS[0], ROWS[0]),
        _index(ROWS[0]),
        _index(*ROWS, ["z", 1, 1, 1]),
        _index(["down.0.conv.weight", 18, 6, 2], ROWS[1]),
        _index(["down.0.conv.weight", 6, 18, 0], ROWS[1]),
        _index(["down.0.conv.weight", -6, 18, -3], ROWS[1]),
        _index(["down.0.conv.weight", 6, 18, 3.0], ROWS[1]),
        _index(["down.0.conv.weight", 6, 18, 10**4000], ROWS[1]),
        _index(["down.0.conv.weight", 6, 18, 2**62], ROWS[1]),
        _index(ROWS[0], ["up.0.conv.bias", 4, True, 1]),
        _index(ROWS[0], ["up.0.conv.bias", 4, 1]),
        _index(ROWS[0], ["up.0.conv.bias", 4, 1, 1, 1]),
        _index(ROWS[0], "up.0"),
        _index(ROWS[0], [7, 4, 1, 1]),
        _index(ROWS[0], [["up.0.conv.bias"], 4, 1, 1]),
        _index(ROWS[0], ["up\x1b[31m", 4, 1, 1]),
        _letters('{"version":1,"dtype":"int8","layers":[["\\ud800",4,1,1]]}'),
        _index(*ROWS, version=2),
        _index(*ROWS, version=True),
        _index(*ROWS, dtype="int2"),
        _index(*ROWS, dtype=["int8"]),
        _index(*ROWS, patients=["Doe, John"]),
        _index(*ROWS, layers={}),
        _index(*ROWS, layers=None),
        _letters('{"version": 1,"dtype":"int8","layers":[]}'),
        _letters('{"version":1,"version":1,"dtype":"int8","layers":[]}'),
        _letters('{"version":1,"dtype":"int8","layers":[["a",NaN,1,1]]}'),
        _letters('{"version":1,"dtype":"int8","layers":[["a",' + "9" * 5000 + ",1,1]]}"),
        _letters("[" * 100_000),
        _letters('{"version":1,"dtype":"int8","layers":' + "[" * 100_000),
        _letters(b"\xff\xfe"),
        _letters("{"),
        _letters("7"),
        torch.empty(0, dtype=torch.uint8),
    ],
    ids=range(35),
)
def test_an_index_that_is_not_the_one_we_write_is_refused(layers: Tensor) -> None:
    with pytest.raises((ShapeError, RankError)) as caught:
        unpack_adapter(_package(layers=layers))
    str(caught.value).encode()  # what is said can be written down
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "counts",
    [
        [8, 77, False],
        [8.0, 77, 95],
        ["8", 77, 95],
        [None, 77, 95],
        [-8, 77, 95],
        [2**62, 77, 95],
        [[], {}, 1],
    ],
    ids=str,
)
def test_a_header_with_strange_sizes_is_refused(counts: list[object]) -> None:
    header = {
        name: {"dtype": dtype, "shape": [count], "data_offsets": [0, 0]}
        for (name, dtype), count in zip(
            (("scales", "F16"), ("codes", "U8"), ("layers", "U8")), counts, strict=True
        )
    }
    with pytest.raises(PackageError):
        unpack_adapter(_frame(header, bytes(200)))


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 3000,
        b"[" * 100_000,
        b"[]",
        b"7",
        b'{"scales":7,"codes":7,"layers":7}',
        b"\xff" * 9,
        b" " * 5000,
    ],
    ids=["deep", "long and deep", "list", "number", "numbers", "no text", "blank"],
)
def test_a_header_of_another_shape_is_refused(header: bytes) -> None:
    with pytest.raises(PackageError):
        unpack_adapter(_frame(header, bytes(100)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_bytes_before_or_after_the_package_are_refused(dtype: Dtype) -> None:
    good = pack_adapter(_adapter(), dtype)
    for changed in (good + b"\0", good[:-1], b"\0" + good, good[8:]):
        with pytest.raises(PackageError):
            unpack_adapter(changed)


def test_free_text_in_the_header_is_refused() -> None:
    data = save(load(pack_adapter(_adapter(), "int8")), metadata={"note": "Doe, John"})
    with pytest.raises(PackageError, match="other than a package's"):
        unpack_adapter(data)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_that_are_not_finite_are_refused(value: float, dtype: Dtype) -> None:
    adapter = _adapter()
    adapter["up.0.conv.bias"].B[2] = value
    with pytest.raises(ShapeError, match=r"NaN or infinite"):
        unpack_adapter(pack_adapter(adapter, dtype))


def test_a_tensor_per_factor_is_refused_as_no_adapter() -> None:
    with pytest.raises(PackageError, match="no adapter"):
        unpack_adapter(save({"w|A": torch.ones(2, 18), "w|B": torch.ones(6, 2)}))


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


def test_a_layer_may_be_missing_but_not_all_of_them() -> None:
    check_fit({"down.0.conv.weight": _adapter()["down.0.conv.weight"]}, SHAPES, 8)
    with pytest.raises(ShapeError, match="no layers"):
        check_fit({}, SHAPES, 8)
    with pytest.raises(ShapeError, match="no layers"):
        check_fit(unpack_adapter(pack_adapter({}, "int8")), SHAPES, 8)


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
