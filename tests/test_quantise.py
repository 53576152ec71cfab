"""Codes and scales: bounds of the error, exact bytes, and codes that must be refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.errors import ShapeError
from model.quantise import Dtype, code_bytes, decode, encode, scale_count

few = settings(deadline=None, max_examples=40)
DTYPES: tuple[Dtype, ...] = ("int4", "int8", "fp16", "fp32")
INTEGERS: tuple[Dtype, ...] = ("int4", "int8")
sizes = st.sampled_from([1e-30, 1e-7, 1e-5, 1e-3, 1.0, 1e5])


def _matrix(seed: int, n: int, r: int, size: float = 1.0) -> Tensor:
    return size * torch.randn(n, r, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _back(matrix: Tensor, dtype: Dtype) -> Tensor:
    return decode(*encode(matrix, dtype), matrix.shape[0], dtype)


def _step(matrix: Tensor, largest: int) -> Tensor:
    """Upper bound of the unclipped scale: rounding up to fp16 adds 2⁻¹⁰ of it, or 2⁻²⁴ where it is subnormal."""
    scale = matrix.abs().amax(dim=0) / largest
    return scale + torch.maximum(scale * 2**-10, torch.tensor(2.0**-24, dtype=torch.float64))


@few
@given(seed=st.integers(0, 2**31), n=st.integers(1, 20), r=st.integers(1, 4), size=sizes)
def test_int8_is_off_by_at_most_half_a_scale(seed: int, n: int, r: int, size: float) -> None:
    matrix = _matrix(seed, n, r, size)
    assert ((_back(matrix, "int8") - matrix).abs() <= 0.5 * _step(matrix, 127)).all()


@few
@given(seed=st.integers(0, 2**31), n=st.integers(1, 40), r=st.integers(1, 4), size=sizes)
def test_int4_is_off_by_at_most_half_a_scale_in_the_mean_square(
    seed: int, n: int, r: int, size: float
) -> None:
    matrix = _matrix(
        seed, n, r, size
    )  # the unclipped scale is among the tried ones: ‖x − x̂‖² ≤ n (scale / 2)²
    squared = (_back(matrix, "int4") - matrix).square().sum(dim=0)
    assert (squared <= n * (0.5 * _step(matrix, 7)).square()).all()


@few
@given(seed=st.integers(0, 2**31), n=st.integers(1, 20), r=st.integers(1, 4))
def test_the_floats_are_plain_casts(seed: int, n: int, r: int) -> None:
    matrix = _matrix(seed, n, r)
    assert torch.equal(_back(matrix, "fp32"), matrix.float())
    assert torch.equal(_back(matrix, "fp16"), matrix.half().float())


@few
@given(n=st.integers(1, 20), r=st.integers(1, 4), dtype=st.sampled_from(DTYPES))
def test_a_component_takes_the_bytes_that_are_announced(n: int, r: int, dtype: Dtype) -> None:
    codes, scales = encode(_matrix(1, n, r), dtype)
    assert (codes.dtype, scales.dtype) == (torch.uint8, torch.float16)
    assert tuple(codes.shape) == (r, code_bytes(n, dtype))
    assert tuple(scales.shape) == (scale_count(r, dtype),)


@few
@given(seed=st.integers(0, 2**31), n=st.integers(1, 20), dtype=st.sampled_from(DTYPES))
def test_what_was_quantised_once_stays_as_it_is(seed: int, n: int, dtype: Dtype) -> None:
    once = _back(_matrix(seed, n, 3), dtype)
    torch.testing.assert_close(_back(once, dtype), once, rtol=2e-3 if dtype in INTEGERS else 0, atol=0)


def test_clipping_keeps_more_of_a_normal_column_than_its_largest_value_as_scale() -> None:
    column = _matrix(3, 2000, 1)
    scale = column.abs().max() / 7
    plain = ((column / scale).round() * scale - column).square().sum()
    assert (_back(column, "int4") - column).square().sum() < 0.8 * plain


def test_int4_codes_by_hand() -> None:
    codes, scales = encode(torch.tensor([[7.0], [-3.0], [1.0]]), "int4")
    assert scales.tolist() == [1.0]
    assert codes.tolist() == [[0xD7, 0x01]]  # −3 is D, low nibble first, the last nibble empty


def test_int8_codes_by_hand() -> None:
    codes, scales = encode(torch.tensor([[127.0, -1.0], [-127.0, 0.5]]), "int8")
    assert codes.tolist() == [[0x7F, 0x81], [0x81, 63]]  # two's complement: −127 is 81
    assert scales[0].item() == 1.0
    assert 1 / 127 < scales[1].item() < 1.001 / 127  # rounded up, or 1.0 would need code 128


def test_a_scale_is_the_next_fp16_number_up() -> None:
    largest = torch.logspace(-8, 6, 500, dtype=torch.float64)
    codes, scales = encode(torch.stack([largest, -largest]), "int8")
    signed = codes.view(torch.int8).int()
    assert torch.equal(signed[:, 0], -signed[:, 1])
    assert (scales.double() * 127 >= largest).all()
    below = (scales.view(torch.int16) - 1).view(torch.float16).double()
    assert (below * 127 < largest).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_column_of_zeros_comes_back_as_zeros_beside_others(dtype: Dtype) -> None:
    matrix = _matrix(1, 5, 3)
    matrix[:, 1] = 0
    back = _back(matrix, dtype)
    assert not back[:, 1].any()
    assert back[:, [0, 2]].any(dim=0).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_that_no_code_stands_for_are_refused_on_the_way_back(value: float, dtype: Dtype) -> None:
    matrix = _matrix(1, 4, 2)
    matrix[1, 1] = value
    with pytest.raises(ShapeError, match="NaN or infinite") as caught:
        decode(*encode(matrix, dtype), 4, dtype, "layer w")
    assert caught.value.where == "layer w"


@pytest.mark.parametrize(
    ("codes", "scale", "dtype", "said"),
    [
        ([0x80, 0], 1.0, "int8", "beyond the range"),
        ([0x08, 0], 1.0, "int4", "beyond the range"),
        ([0x11, 0x11], 1.0, "int4", "more codes"),
        ([1, 1], -1.0, "int8", "beyond the range"),
        ([1, 1], float("nan"), "int8", "NaN"),
        ([0, 0], float("inf"), "int8", "NaN"),
    ],
)
def test_codes_that_are_never_written_are_refused(
    codes: list[int], scale: float, dtype: Dtype, said: str
) -> None:
    n = 3 if dtype == "int4" else 2
    with pytest.raises(ShapeError, match=said):
        decode(torch.tensor([codes], dtype=torch.uint8), torch.tensor([scale]).half(), n, dtype)
