"""A parcel: within its budget, nothing lost for good, and no more rank than is allowed."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import PackageError
from model.factors import Adapter, Factors, adapter_norm, sum_adapters
from model.package import Dtype, unpack_adapter
from model.seeds import derive_generator
from tasks.packing import Parcel, pack_parcel
from tasks.settings import Package

few = settings(deadline=None, max_examples=12)
seeds = st.integers(0, 2**31 - 1)
SIZES = {"down.weight": (6, 14), "up.bias": (5, 1)}
WHOLE = 64
"""No rank is cut."""


def package(dtype: Dtype = "fp32", *, feedback: bool = True, energy: float | None = None) -> Package:
    """The budgets in it are the callers' business: packing is told one."""
    return Package(
        dtype=dtype, feedback=feedback, energy=energy, upload_bytes=0, download_bytes=0, max_bytes=10_000
    )


def update(seed: int, rank: int = 4, scale: float = 1.0) -> dict[str, Factors]:
    """Factors whose components fade, as those of a training do."""
    generator = derive_generator(seed, "update")
    made = {}
    for name, (out, inner) in SIZES.items():
        r = min(rank, out, inner)
        B, A = (torch.randn(*size, generator=generator).double() for size in ((out, r), (r, inner)))
        made[name] = Factors(scale * B * 0.5 ** torch.arange(r), A)
    return made


def distance(a: Adapter, b: Adapter) -> float:
    return adapter_norm(sum_adapters([(1.0, a), (-1.0, b)]))


@few
@given(seed=seeds, n_bytes=st.integers(450, 1000), dtype=st.sampled_from(["int4", "int8", "fp16", "fp32"]))
def test_a_parcel_is_within_its_budget_and_decodes_to_what_it_says(
    seed: int, n_bytes: int, dtype: Dtype
) -> None:
    parcel = pack_parcel(update(seed), update(seed + 1), package(dtype), n_bytes, WHOLE)
    assert len(parcel.data) <= n_bytes
    read = unpack_adapter(parcel.data)
    assert read.keys() == parcel.decoded.keys()
    assert all(torch.equal(a, b) for n in read for a, b in zip(read[n], parcel.decoded[n], strict=True))


@few
@given(seed=seeds)
def test_a_larger_budget_keeps_no_less(seed: int) -> None:
    kept = [pack_parcel(update(seed), {}, package(), n, WHOLE).kept for n in (450, 500, 600, 100_000)]
    assert kept == sorted(kept)
    assert kept[-1] == pytest.approx(1.0)


def test_a_budget_below_one_component_is_refused() -> None:
    with pytest.raises(PackageError, match="budget is 100"):
        pack_parcel(update(1), {}, package(), 100, WHOLE)


@pytest.mark.parametrize("n_bytes", [0, 600])
def test_an_update_of_zero_can_be_sent(n_bytes: int) -> None:
    parcel = pack_parcel(update(1, scale=0.0), {}, package("int4"), n_bytes, WHOLE)
    assert adapter_norm(parcel.decoded) == 0
    assert parcel.kept == 1.0


@few
@given(seed=seeds, rounds=st.integers(1, 4), dtype=st.sampled_from(["int4", "int8", "fp32"]))
def test_feedback_telescopes_what_arrived_and_what_stays_is_all_that_was_trained(
    seed: int, rounds: int, dtype: Dtype
) -> None:
    rest: dict[str, Factors] = {}
    arrived: list[tuple[float, Adapter]] = []
    for number in range(rounds):
        parcel = pack_parcel(update(seed + number), rest, package(dtype), 500, WHOLE)
        arrived, rest = [*arrived, (1.0, parcel.decoded)], parcel.rest
    trained = sum_adapters((1.0, update(seed + number)) for number in range(rounds))
    assert distance(sum_adapters([*arrived, (1.0, rest)]), trained) <= 1e-5 * adapter_norm(trained)


def test_without_feedback_what_is_cut_is_lost() -> None:
    parcel = pack_parcel(update(1), {}, package(feedback=False), 450, WHOLE)
    assert parcel.rest == {}
    assert parcel.kept < 1


def test_an_empty_update_still_sends_what_was_left_behind() -> None:
    parcel = pack_parcel(update(1, scale=0.0), update(2), package(), 0, WHOLE)
    assert distance(parcel.decoded, update(2)) <= 1e-5 * adapter_norm(update(2))


@few
@given(seed=seeds, energy=st.floats(0.05, 1))
def test_energy_decides_in_place_of_the_budget(seed: int, energy: float) -> None:
    parcel = pack_parcel(update(seed), {}, package(energy=energy), 1, WHOLE)
    assert parcel.kept >= energy - 1e-6


def test_less_energy_takes_fewer_bytes() -> None:
    sizes = [len(pack_parcel(update(3), {}, package(energy=e), 0, WHOLE).data) for e in (0.5, 0.9, 1.0)]
    assert sizes[0] < sizes[1] < sizes[2]


def test_without_budget_everything_travels() -> None:
    parcel = pack_parcel(update(1), {}, package(), 0, WHOLE)
    assert distance(parcel.decoded, update(1)) <= 1e-5 * adapter_norm(update(1))
    assert parcel.kept == pytest.approx(1.0)
    assert adapter_norm(parcel.rest) <= 1e-5 * adapter_norm(update(1))


@pytest.mark.parametrize("way", ["budget", "energy", "all"])
def test_neither_package_nor_rest_exceeds_the_largest_rank(way: Literal["budget", "energy", "all"]) -> None:
    settings = package(energy=1.0 if way == "energy" else None)
    n_bytes = 100_000 if way == "budget" else 0
    parcel = pack_parcel(update(1, rank=6), update(2, rank=6), settings, n_bytes, 5)
    assert _largest(parcel) == 5
    assert max(f.rank for f in parcel.rest.values()) <= 5


def _largest(parcel: Parcel) -> int:
    return max(f.rank for f in parcel.decoded.values())
