"""Train one site's adapter for a round, and upload it with its passport."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from model.batches import augmented_batches
from model.factors import Factors
from model.lora import LoraSpec, inject, read_adapter
from model.package import pack_adapter
from model.seeds import derive_generator, derive_seed
from model.training import Group, Training
from tasks.answers import find_answer
from tasks.checkpoint import run_training
from tasks.code_version import code_version
from tasks.enrol import read_card
from tasks.events import log_event
from tasks.files import sha256_bytes, sha256_file, write_atomic
from tasks.ledger import adapter_key, get_record, plan_key, put_record, update_key
from tasks.records import Member, Plan, Update
from tasks.settings import Params
from tasks.slices import Slices, load_slices
from tasks.weights import load_net, round_weights
from tasks.workspace import Workspace


def train_site(ws: Workspace, number: int, site: str) -> Update:
    """Train one site's adapter from the round's model and upload it.

    Args:
        ws: the run.
        number: of an open round.
        site: the one that trains, on its own cases.

    Returns:
        The passport of the uploaded adapter; the earlier one when the site has trained on the same plan and
        data before. An adapter that the store has lost since is uploaded again.

    Raises:
        RoundError: the site is not invited.
        DataError: the site's cached slices cannot be read.
        StoreError: the store does not answer.
    """
    home = ws.site_home(site)
    plan = get_record(ws.store, plan_key(number), Plan)
    plan_sha256 = str(ws.store.sha256_of(plan_key(number)))
    card = read_card(ws.data_home(site))
    found = find_answer(ws.store, update_key(site, number), Update)
    same = found and (found.plan_sha256, found.dataset_md5) == (plan_sha256, card.dataset_md5)
    if found and same and _restore(ws, found):
        log_event(home, "train", number, "reused")
        return found
    started = time.monotonic()
    member = plan.member(site)
    adapter, cut, curve = _train(ws, plan, member, f"{plan_sha256}/{card.dataset_md5}")
    data = pack_adapter(adapter, plan.params.package.dtype)
    update = Update(
        round=number,
        site=site,
        plan_sha256=plan_sha256,
        base_sha256=plan.base.sha256,
        global_sha256=plan.global_sha256,
        architecture=plan.base.architecture,
        labels=plan.base.labels,
        spacing_mm=plan.base.spacing_mm,
        rank=member.rank,
        train_slices=card.slices["train"],
        dataset_md5=card.dataset_md5,
        code_version=code_version(),
        seed=plan.params.seed,
        dtype=plan.params.package.dtype,
        adapter_sha256=sha256_bytes(data),
        adapter_bytes=len(data),
        curve=curve,
        cut_energy=cut,
        seconds=round(time.monotonic() - started, 1),
    )
    _keep_and_upload(ws, update, data)
    return update


def train_lora(
    net: torch.nn.Module,
    slices: Slices,
    spec: LoraSpec,
    params: Params,
    steps: int,
    seed: int,
) -> Training:
    """Inject LoRA into a folded network and set up its training; nothing is trained yet.

    Args:
        net: the network of the round, changed in place.
        slices: the site's training slices.
        spec: size of the adapter.
        params: learning rates, batch and weight decay.
        steps: length of the training.
        seed: of A, the order of slices and the augmentation.

    Returns:
        The training before its first step, for :func:`tasks.checkpoint.run_training`.
    """
    generator = derive_generator(seed, "train")
    trainable = inject(net, spec, generator)
    rates = params.training
    return Training(
        net,
        [
            Group(trainable.factors, rates.learning_rate_factors),
            Group(trainable.whole, rates.learning_rate_whole),
        ],
        augmented_batches(slices.images, slices.masks, rates.batch, derive_seed(seed, "order")),
        steps,
        rates.weight_decay,
        generator,
    )


def lora_spec(params: Params, rank: int) -> LoraSpec:
    """The adapter's size under these settings."""
    return LoraSpec(rank=rank, scaling=params.lora.scaling, wide_from=params.lora.wide_from)


def _train(
    ws: Workspace, plan: Plan, member: Member, identity: str
) -> tuple[dict[str, Factors], float, tuple[float, ...]]:
    home = ws.site_home(member.site)
    start = round_weights(ws.store, plan, home)
    net = load_net(plan.base.architecture, start)
    spec = lora_spec(plan.params, member.rank)
    seed = derive_seed(plan.params.seed, member.site, plan.round)
    slices = load_slices(ws.data_home(member.site), "train")
    training = train_lora(net, slices, spec, plan.params, plan.params.training.steps, seed)
    run_training(training, home / "training.safetensors", identity)
    adapter, cut = read_adapter(net, start, spec)
    return adapter, cut, tuple(round(loss, 4) for loss in training.curve)


def _restore(ws: Workspace, update: Update) -> bool:
    """Upload what the store has lost again from the site's own copy; False when that does not fit either."""
    key, kept = adapter_key(update.site, update.round), _kept(ws, update)
    if ws.store.sha256_of(key) == update.adapter_sha256:
        return True
    if not kept.exists() or sha256_file(kept) != update.adapter_sha256:
        return False
    ws.store.put(key, kept.read_bytes())
    return True


def _kept(ws: Workspace, update: Update) -> Path:
    return ws.site_home(update.site) / "updates" / f"{update.round:04d}.safetensors"


def _keep_and_upload(ws: Workspace, update: Update, data: bytes) -> None:
    home = ws.site_home(update.site)
    write_atomic(_kept(ws, update), data)
    ws.store.put(adapter_key(update.site, update.round), data)
    put_record(ws.store, update_key(update.site, update.round), update)
    (home / "training.safetensors").unlink(missing_ok=True)
    log_event(home, "train", update.round, "done", seconds=update.seconds, sent_bytes=len(data))
