"""Networks of a round: the base and the published steps folded into it, each fetched once, hashes checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from model.errors import PackageError
from model.factors import fold
from model.network import ResidualUNet, build_net
from model.package import unpack_adapter
from tasks.files import sha256_bytes, write_atomic
from tasks.ledger import base_key, merged_key
from tasks.payloads import get_payload
from tasks.records import Architecture, Base, Plan, Step
from tasks.store import Store


def fetch(store: Store, key: str, sha256: str, home: Path, max_bytes: int | None = None) -> bytes:
    """Read a payload, and keep it under its hash in ``home/cache`` so that a thin link carries it once.

    Args:
        store: the ledger's store.
        key: where the payload stands.
        sha256: the hash its record announced.
        home: working folder of a site or of the hub, called by the name of its keys.
        max_bytes: a larger object is refused before it is downloaded.

    Returns:
        The payload's bytes, decrypted, which have that hash.

    Raises:
        IntegrityError: the store's bytes have another hash.
        ObjectMissingError: there is no such payload.
        DecryptionError: it was not encrypted for this machine.
    """
    kept = home / "cache" / f"{sha256}.safetensors"
    if kept.exists():
        data = kept.read_bytes()
        if sha256_bytes(data) == sha256:
            return data
    data = get_payload(store, key, sha256, home.name, max_bytes)
    write_atomic(kept, data)
    return data


def base_weights(store: Store, base: Base, home: Path) -> dict[str, Tensor]:
    """State dict of the frozen base; :class:`~model.errors.PackageError` where its file is none of safetensors."""
    key = base_key(base.sha256)
    try:
        return load(fetch(store, key, base.sha256, home))
    except SafetensorError as error:
        mend = "ask the hub to found the federation on a good base"
        raise PackageError("the base is no safetensors file", key, mend) from error


def round_weights(store: Store, plan: Plan, home: Path) -> dict[str, Tensor]:
    """State dict of the model that a round starts from."""
    return model_weights(store, plan.base, plan.steps, home)


def model_weights(store: Store, base: Base, steps: Sequence[Step], home: Path) -> dict[str, Tensor]:
    """State dict of the base with a chain of published steps; of these, only what ``home`` lacks is fetched."""
    weights = base_weights(store, base, home)
    return fold_steps(weights, steps, lambda step: fetch(store, merged_key(step.round), step.sha256, home))


def fold_steps(
    weights: dict[str, Tensor], steps: Sequence[Step], read: Callable[[Step], bytes]
) -> dict[str, Tensor]:
    """Fold published steps one after the other, so that every machine rounds alike.

    Args:
        weights: state dict of the base.
        steps: the chain, in its order.
        read: gives the package of a step, its hash checked.

    Returns:
        ``base + Σ fraction · step``, float32; the input is left as it is.
    """
    for step in steps:
        weights = fold(weights, unpack_adapter(read(step)), step.fraction)
    return weights


def load_net(architecture: Architecture, weights: dict[str, Tensor]) -> ResidualUNet:
    """A network with these weights."""
    net = build_net(architecture.channels)
    net.load_state_dict(weights)
    return net
