"""The models a federation must beat: each site alone, and federated averaging of full weights.

Both get the same base, data, batches, number of rounds and steps. They run on one machine that holds all sites
(demo and study); a live federation has no such machine.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load, save
from torch import Tensor

from model.average import average_weights
from model.batches import augmented_batches
from model.factors import fold
from model.lora import read_adapter
from model.merge import volume_weights
from model.package import pack_adapter, unpack_adapter
from model.seeds import derive_generator, derive_seed
from model.training import Group, Training
from tasks.adapter_spec import lora_spec
from tasks.checkpoint import run_training
from tasks.code_version import code_version
from tasks.events import log_event
from tasks.files import sha256_bytes, write_atomic
from tasks.records import FederationRecord
from tasks.settings import Params
from tasks.slices import load_slices
from tasks.train import train_lora
from tasks.weights import load_net
from tasks.workspace import Workspace


def train_alone(ws: Workspace, federation: FederationRecord, site: str) -> Path:
    """Local-only LoRA: the site's own adapters folded round after round, nothing exchanged.

    Args:
        ws: the run; its settings give rounds and steps.
        federation: the base, and the site's rank.
        site: one of its members.

    Returns:
        File of the final weights; found when the same training was done before.
    """
    params, home = ws.params, ws.site_home(site)
    member = federation.member(site)
    mark = _identity(federation, params)
    done = home / "alone" / f"{mark}.safetensors"
    if done.exists():
        log_event(home, "train alone", None, "reused")
        return done
    weights = base_state(ws, federation)
    slices = load_slices(ws.data_home(site), "train")
    spec = lora_spec(params, member.rank)
    for number in range(1, params.federation.rounds + 1):
        kept = home / "alone" / f"{mark}-{number:04d}.safetensors"
        if not kept.exists():
            net = load_net(federation.base.architecture, weights)
            seed = derive_seed(params.seed, site, number, "alone")
            training = train_lora(net, slices, spec, params, params.training.steps, seed)
            run_training(training, home / "alone" / "training.safetensors", kept.name)
            write_atomic(
                kept, pack_adapter(read_adapter(net, weights, spec), "fp32")
            )  # exact: nothing travels
        weights = fold(weights, unpack_adapter(kept.read_bytes()))
    write_atomic(done, save(weights))
    log_event(home, "train alone", None, "done")
    return done


def train_full(ws: Workspace, federation: FederationRecord, number: int, site: str) -> Path:
    """One site's full-weight training of one FedAvg round, from :func:`average_full` of the round before.

    Args:
        ws: the run; its settings give steps and learning rate.
        federation: the base and the members.
        number: of the round, from 1.
        site: one of the members.

    Returns:
        File of the site's weights; of the round's average when that is made, for which the former were needed.
    """
    params, settings, home = ws.params, ws.params.training, ws.site_home(site)
    done, average = (_full_file(ws, federation, number, who) for who in (site, None))
    if done.exists() or average.exists():
        log_event(home, "fedavg", number, "reused")
        return average if average.exists() else done
    start = full_weights(ws, federation, number - 1)
    net = load_net(federation.base.architecture, start)
    slices = load_slices(ws.data_home(site), "train")
    seed = derive_seed(params.seed, site, number, "fedavg")
    training = Training(
        net,
        [Group(net.parameters(), settings.learning_rate_full)],
        augmented_batches(slices.images, slices.masks, settings.batch, derive_seed(seed, "order")),
        settings.steps,
        settings.weight_decay,
        derive_generator(seed, "train"),
    )
    run_training(training, done.with_name("training.safetensors"), done.name)
    write_atomic(done, save(net.state_dict()))
    log_event(home, "fedavg", number, "done")
    return done


def average_full(ws: Workspace, federation: FederationRecord, number: int) -> Path:
    """FedAvg's global weights after a round (:func:`model.average.average_weights`, by training slices)."""
    done = _full_file(ws, federation, number, None)
    if done.exists():
        log_event(ws.hub_home, "fedavg", number, "reused")
        return done
    files = {m.site: _full_file(ws, federation, number, m.site) for m in federation.members}
    trained = {site: load(path.read_bytes()) for site, path in files.items()}
    volumes = volume_weights({m.site: m.train_slices for m in federation.members}, "linear")
    write_atomic(done, save(average_weights(trained, volumes)))
    for path in files.values():
        path.unlink()
    log_event(ws.hub_home, "fedavg", number, "done")
    return done


def full_weights(ws: Workspace, federation: FederationRecord, number: int) -> dict[str, Tensor]:
    """FedAvg's global weights after a round; the base for round 0."""
    if number == 0:
        return base_state(ws, federation)
    return load(_full_file(ws, federation, number, None).read_bytes())


def base_state(ws: Workspace, federation: FederationRecord) -> dict[str, Tensor]:
    """State dict of the base on the machine that made it."""
    return load((ws.base_home / f"{federation.base.sha256}.safetensors").read_bytes())


def _full_file(ws: Workspace, federation: FederationRecord, number: int, site: str | None) -> Path:
    home = ws.hub_home if site is None else ws.site_home(site)
    return home / "fedavg" / f"{_identity(federation, ws.params)}-{number:04d}.safetensors"


def _identity(federation: FederationRecord, params: Params) -> str:
    """Short hash of what determines the comparison: base, data, settings and code."""
    text = f"{federation.model_dump_json()}/{params.model_dump_json()}/{code_version()}"
    return sha256_bytes(text.encode())[:16]
