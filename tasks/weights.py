"""Networks of a round: the base and the published steps folded into it, each fetched once, hashes checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from model.errors import IntegrityError, PackageError
from model.factors import fold
from model.network import ResidualUNet, build_net
from model.package import unpack_adapter
from model.padding import unpad
from tasks.files import sha256_bytes, write_atomic
from tasks.ledger import base_key, candidate_key, merged_key
from tasks.records import Architecture, Base, Candidate, Plan, Step
from tasks.store import Store


def fetch(store: Store, key: str, sha256: str, home: Path, read: Callable[[], bytes] | None = None) -> bytes:
    """Read a payload, and keep it under its hash in ``home/cache`` so that a thin link carries it once.

    Args:
        store: the ledger's store.
        key: where the payload stands.
        sha256: the hash its record announced.
        home: working folder of a site or of the hub.
        read: gives the payload where it does not lie there as it is.

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
    data = store.get(key, sha256) if read is None else read()
    write_atomic(kept, data)
    return data


def read_candidate(store: Store, number: int, candidate: Candidate) -> bytes:
    """A candidate's package, its padding taken off.

    Args:
        store: the ledger's store.
        number: of the round.
        candidate: as it was admitted.

    Returns:
        The package, which has the hash that its passport announced.

    Raises:
        IntegrityError: it has another hash.
        PackageError: the padding is not understood, or the object is larger than was announced.
    """
    key = candidate_key(candidate.id, number)
    data = unpad(store.get(key, max_bytes=candidate.n_bytes))
    if sha256_bytes(data) != candidate.sha256:
        what = f"the package has sha256 {sha256_bytes(data)[:12]}…, {candidate.sha256[:12]}… was admitted"
        raise IntegrityError(what, key, "have the hub publish it again; do not use it")
    return data


def fetch_candidate(store: Store, number: int, candidate: Candidate, home: Path) -> bytes:
    """As :func:`read_candidate`, kept as :func:`fetch` keeps it."""
    key, sha256 = candidate_key(candidate.id, number), candidate.sha256
    return fetch(store, key, sha256, home, lambda: read_candidate(store, number, candidate))


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
