"""Every trained model of a run on one machine, by name and owner, ready to be evaluated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from safetensors.torch import load
from torch import Tensor

from model.errors import IntegrityError, RoundError
from model.factors import fold
from model.package import unpack_adapter
from tasks.compare import base_state, full_weights, train_alone
from tasks.files import sha256_bytes
from tasks.history import read_published
from tasks.records import Close, FederationRecord, Step
from tasks.weights import fold_steps
from tasks.workspace import Workspace

MODELS = ("zero-shot", "global", "personal", "local", "fedavg")


@dataclass(frozen=True)
class TrainedModel:
    """One set of weights.

    Attributes:
        name: one of ``MODELS``.
        owner: the site that trained it for itself; empty for shared models.
        weights: state dict.
    """

    name: str
    owner: str
    weights: dict[str, Tensor]


def trained_models(ws: Workspace, federation: FederationRecord) -> Iterator[TrainedModel]:
    """Go through all models after the last round, from what lies in the run's folder.

    Args:
        ws: the run, its rounds mirrored.
        federation: the base and the members.

    Yields:
        One model at a time: the shared ones, then each member's personal one, if there is one, and its local
        one, which is trained now if it was not before.

    Raises:
        RoundError: the last round has not closed.
        IntegrityError: a mirrored step is not the one that was published.
    """
    base = base_state(ws, federation)
    shared = _global_weights(ws, base)
    yield TrainedModel("zero-shot", "", base)
    yield TrainedModel("global", "", shared)
    yield TrainedModel("fedavg", "", full_weights(ws, federation, ws.params.federation.rounds))
    for member in federation.members:
        personal = ws.federation / "personal" / f"{member.site}.safetensors"
        if personal.exists():
            yield TrainedModel("personal", member.site, fold(shared, unpack_adapter(personal.read_bytes())))
        alone = train_alone(ws, federation, member.site)
        yield TrainedModel("local", member.site, load(alone.read_bytes()))


def last_close(ws: Workspace) -> Close:
    """Read how the last planned round ended.

    Args:
        ws: the run.

    Returns:
        The round's terminal record, as mirrored.

    Raises:
        RoundError: that round has not closed.
    """
    path = ws.rounds / f"{ws.params.federation.rounds:04d}" / "close.json"
    close = read_published(path, Close)
    if close is None:
        raise RoundError("the last round has not closed", str(path), "run the federate stage to its end")
    return close


def _global_weights(ws: Workspace, base: dict[str, Tensor]) -> dict[str, Tensor]:
    return fold_steps(base, last_close(ws).steps, lambda step: mirrored_step(ws, step))


def mirrored_step(ws: Workspace, step: Step) -> bytes:
    """Read a published step from the run's folder.

    Args:
        ws: the run, its rounds mirrored.
        step: as a close or a plan names it.

    Returns:
        Its package.

    Raises:
        IntegrityError: the file is missing, or not the one that was published.
    """
    path = ws.rounds / f"{step.round:04d}" / "merged.safetensors"
    data = path.read_bytes() if path.exists() else b""
    if sha256_bytes(data) != step.sha256:
        raise IntegrityError(
            "not the published step", str(path), "remove its folder and version the round again"
        )
    return data
