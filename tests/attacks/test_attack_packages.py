"""What a hospital uploads is not what it should be: code, other bytes, odd numbers, too much of everything."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ATTACKER, Round
from federation_files import replace_update

from model.errors import PackageError
from model.factors import Factors
from model.package import check_fit, pack_adapter, unpack_adapter
from model.quantise import decode
from tasks import limits
from tasks.cases import SiteCard
from tasks.ledger import adapter_key, card_key
from tasks.limits import OF_SITE, parse_record
from tasks.store import Store


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Path]]:
        return Path.touch, (self._mark,)


def unpickled(data: bytes, *_: object) -> dict[str, Factors]:
    """What a reader does that takes whatever torch can load."""
    loaded: dict[str, Factors] = torch.load(io.BytesIO(data), weights_only=False)
    return loaded


def test_pickle_in_place_of_safetensors(round_1: Round, off: pytest.MonkeyPatch, mark: Path) -> None:
    file = io.BytesIO()
    torch.save(Bomb(mark), file)
    replace_update(round_1.ws, ATTACKER, file.getvalue())
    off.setattr("tasks.admit.open_package", lambda data, *_: data[:1] == b"P" and unpickled(data))
    off.setattr("tasks.admit._check_announced", lambda *_: None)
    round_1.admit()
    assert mark.exists()
    off.undo()
    mark.unlink()
    round_1.renew()
    replace_update(round_1.ws, ATTACKER, file.getvalue())
    packages, reason = round_1.admit()
    assert (len(packages), mark.exists()) == (2, False)
    assert "safetensors" in reason


def test_tampered_adapter(round_1: Round, off: pytest.MonkeyPatch) -> None:
    """Whoever can write to the store changes an update behind its announcement, hash in the metadata and all."""
    honest = unpack_adapter(round_1.adapter)
    turned = pack_adapter({name: Factors(-B, A) for name, (B, A) in honest.items()}, "int8")
    assert len(turned) == len(round_1.adapter)
    round_1.ws.store.put(adapter_key(ATTACKER, 1), turned)
    off.setattr(Store, "_check", lambda *_: None)
    assert turned in round_1.admit()[0]
    off.undo()
    round_1.renew()
    round_1.ws.store.put(adapter_key(ATTACKER, 1), turned)
    packages, reason = round_1.admit()
    assert turned not in packages and "sha256" in reason


def with_one(adapter: bytes, value: float) -> bytes:
    """The package with one number replaced."""
    changed = unpack_adapter(adapter)
    next(iter(changed.values())).B[0, 0] = value
    return pack_adapter(changed, "fp32")


def undecoded(*arguments: Any) -> torch.Tensor:
    """Decode without a look at the numbers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "isfinite", lambda values: torch.ones_like(values, dtype=torch.bool))
        return decode(*arguments)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity(round_1: Round, off: pytest.MonkeyPatch, value: float) -> None:
    data = with_one(round_1.adapter, value)
    replace_update(round_1.ws, ATTACKER, data)
    off.setattr("model.package.decode", undecoded)
    off.setattr(
        "tasks.unpack.NORM_MAX", float("inf")
    )  # the second line: an infinite update is too long as well
    packages, _ = round_1.admit()
    assert data in packages
    off.undo()
    round_1.renew()
    replace_update(round_1.ws, ATTACKER, data)
    packages, reason = round_1.admit()
    assert data not in packages and "NaN or infinite values" in reason


def test_rank_bomb(round_1: Round, off: pytest.MonkeyPatch) -> None:
    """A rank far beyond the round's makes hub and raters multiply what the budget would never let through."""
    name, (B, A) = next(iter(unpack_adapter(round_1.adapter).items()))
    wide = {name: Factors(B[:, :1].repeat(1, 4000), A[:1].repeat(4000, 1))}
    data = pack_adapter(wide, "int4")
    replace_update(round_1.ws, ATTACKER, data)
    off.setattr("tasks.unpack.check_fit", lambda adapter, shapes, _: check_fit(adapter, shapes, 10**9))
    packages, _ = round_1.admit()
    assert data in packages
    off.undo()
    round_1.renew()
    replace_update(round_1.ws, ATTACKER, data)
    packages, reason = round_1.admit()
    assert data not in packages and "rank 4000, this round allows" in reason


def test_oversized_upload(round_1: Round, off: pytest.MonkeyPatch) -> None:
    """Ten megabytes where a few kilobytes are due: with the bound they are not even downloaded."""
    store = round_1.ws.store
    replace_update(round_1.ws, ATTACKER, bytes(10_000_000))
    whole = Store.get
    off.setattr(Store, "get", lambda self, key, sha256=None, max_bytes=None: whole(self, key, sha256))
    before = store.bytes_received
    round_1.admit()
    assert store.bytes_received - before > 10_000_000
    off.undo()
    round_1.renew()
    replace_update(round_1.ws, ATTACKER, bytes(10_000_000))
    before = store.bytes_received
    _, reason = round_1.admit()
    assert store.bytes_received - before < 1_000_000 and "10000000 bytes" in reason


NESTED = {
    "wide": b"[" + b"[]," * 330_000 + b"[]]",
    "deep": b"[" + b",".join([b"[" * 900 + b"]" * 900] * 500) + b"]",
}


@pytest.mark.parametrize("shape", NESTED)
def test_deeply_nested_record(shape: str, off: pytest.MonkeyPatch) -> None:
    """A megabyte of brackets becomes very many objects, unless brackets are counted first."""

    def peak_bytes() -> int:
        tracemalloc.start()
        with pytest.raises(PackageError):
            parse_record(NESTED[shape], SiteCard, card_key(ATTACKER), OF_SITE)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    off.setattr(limits, "_within", lambda data, _: data.decode())
    without = peak_bytes()
    off.undo()
    assert without > 20_000_000
    assert peak_bytes() < 5_000_000
    assert json.loads(NESTED[shape])  # well-formed, and small as a file
