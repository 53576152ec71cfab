"""Train the shared base once: on randomised phantoms, so that it is free of licences, or on a public cohort."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError
from safetensors.torch import save
from torch import Generator

from model.batches import augmented_batches
from model.errors import ConfigError
from model.labels import STRUCTURES
from model.network import build_net
from model.seeds import derive_generator, derive_seed
from model.training import Batch, ColdStart, Group, Training
from tasks.cases import CARD_FILE
from tasks.checkpoint import run_training
from tasks.code_version import code_version
from tasks.enrol import read_card
from tasks.files import sha256_bytes, write_atomic
from tasks.phantoms import phantom_stream
from tasks.records import Architecture, Base
from tasks.settings import Params
from tasks.slices import join_slices, load_slices


def pretrain_base(home: Path, params: Params, public: Path | None = None) -> Base:
    """Train the shared base.

    Args:
        home: folder of the base; a base made before under the same settings is found there.
        params: seed, network, grid and pretraining.
        public: folder of prepared public sites to train on instead of phantoms.

    Returns:
        The base's record; its weights lie in ``home/<sha256>.safetensors``.

    Raises:
        UnreadableError: the public cohort is not prepared.
        DiskError: the base could not be written.
    """
    source = "randomised phantoms" if public is None else "a public cohort"
    identity = _identity(params, public)
    found = read_base(home)
    if found is not None and (home / "identity").exists() and (home / "identity").read_text() == identity:
        return found
    net = build_net(params.network.channels, derive_generator(params.seed, "base"))
    settings = params.pretrain
    with _batches(params, public) as draw:
        training = Training(
            net,
            [Group(net.parameters(), settings.learning_rate)],
            draw,
            settings.steps,
            params.training.weight_decay,
            derive_generator(params.seed, "base", "training"),
            ColdStart(),
        )
        run_training(training, home / "training.safetensors", identity)
    base = _keep(home, save(net.state_dict()), params, source, training.curve)
    write_atomic(home / "identity", identity.encode())
    (home / "training.safetensors").unlink(missing_ok=True)
    return base


def _identity(params: Params, public: Path | None) -> str:
    """Hash of all that determines the base: settings, the public cohort's data, and the code."""
    cards = [] if public is None else sorted(public.glob(f"*/{CARD_FILE}"))
    data = "/".join(read_card(card.parent).dataset_md5 for card in cards)
    settings = (params.seed, params.network, params.data, params.pretrain, params.training.weight_decay)
    return sha256_bytes(f"{settings}/{data}/{code_version()}".encode())


def read_base(home: Path) -> Base | None:
    """The record of a base made before; None when there is none or its file is gone."""
    try:
        base = Base.model_validate_json((home / "base.json").read_bytes())
    except (OSError, ValidationError):
        return None
    return base if (home / f"{base.sha256}.safetensors").exists() else None


def need_base(home: Path) -> Base:
    """Read the record of a base that must be there.

    Args:
        home: folder of the base.

    Returns:
        The record; the file of its weights is there as well.

    Raises:
        ConfigError: it has not been trained.
    """
    base = read_base(home)
    if base is None:
        raise ConfigError("there is no base", str(home), "run the pretrain stage first")
    return base


def _keep(home: Path, data: bytes, params: Params, source: str, curve: list[float]) -> Base:
    base = Base(
        sha256=sha256_bytes(data),
        architecture=Architecture(channels=params.network.channels),
        spacing_mm=params.data.spacing_mm,
        labels=STRUCTURES,
        source=source,
        n_bytes=len(data),
        curve=tuple(round(loss, 4) for loss in curve),
    )
    write_atomic(home / f"{base.sha256}.safetensors", data)
    write_atomic(home / "base.json", base.model_dump_json(indent=2).encode())
    return base


@contextmanager
def _batches(params: Params, public: Path | None) -> Iterator[Callable[[int, Generator], Batch]]:
    """Fresh phantoms, or the training slices of every prepared site below ``public``."""
    if public is None:
        with phantom_stream(params) as stream:
            yield stream.draw
    else:
        slices = join_slices(
            [load_slices(card.parent, "train") for card in sorted(public.glob(f"*/{CARD_FILE}"))]
        )
        order = derive_seed(params.seed, "base", "order")
        yield augmented_batches(slices.images, slices.masks, params.pretrain.batch, order)
