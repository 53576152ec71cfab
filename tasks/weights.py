"""Networks of a round: the base once per machine, the global adapter folded into it, hashes checked."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load
from torch import Tensor

from model.factors import Adapter, fold
from model.network import ResidualUNet, build_net
from model.package import unpack_adapter
from tasks.files import sha256_bytes, write_atomic
from tasks.ledger import base_key, global_adapter_key
from tasks.records import Architecture, Base, Plan
from tasks.store import Store


def fetch(store: Store, key: str, sha256: str, home: Path, max_bytes: int | None = None) -> bytes:
    """Read a payload, and keep it under its hash in ``home/cache`` so that a thin link carries it once.

    Args:
        store: the ledger's store.
        key: where the payload stands.
        sha256: the hash its record announced.
        home: working folder of a site or of the hub.
        max_bytes: a larger object is refused before it is downloaded.

    Returns:
        The payload's bytes, which have that hash.

    Raises:
        IntegrityError: the store's bytes have another hash.
        ObjectMissingError: there is no such payload.
    """
    kept = home / "cache" / f"{sha256}.safetensors"
    if kept.exists():
        data = kept.read_bytes()
        if sha256_bytes(data) == sha256:
            return data
    data = store.get(key, sha256, max_bytes)
    write_atomic(kept, data)
    return data


def base_weights(store: Store, base: Base, home: Path) -> dict[str, Tensor]:
    """State dict of the frozen base."""
    return load(fetch(store, base_key(base.sha256), base.sha256, home))


def round_weights(store: Store, plan: Plan, home: Path) -> dict[str, Tensor]:
    """State dict that a round starts from: the base with the last closed adapter folded in."""
    return closed_weights(store, plan.base, plan.global_round, plan.global_sha256, home)


def closed_weights(
    store: Store, base: Base, adapter_round: int | None, sha256: str | None, home: Path
) -> dict[str, Tensor]:
    """State dict of the base with the adapter that ``adapter_round`` closed with; the base alone for None."""
    weights = base_weights(store, base, home)
    return fold(weights, closed_adapter(store, adapter_round, sha256, home))


def closed_adapter(store: Store, adapter_round: int | None, sha256: str | None, home: Path) -> Adapter:
    """The global adapter in force; empty before the first accepted round."""
    if adapter_round is None or sha256 is None:
        return {}
    return unpack_adapter(fetch(store, global_adapter_key(adapter_round), sha256, home))


def load_net(architecture: Architecture, weights: dict[str, Tensor]) -> ResidualUNet:
    """A network with these weights."""
    net = build_net(architecture.channels)
    net.load_state_dict(weights)
    return net
