"""Train one site's adapter for a round, and upload it with its passport."""

from __future__ import annotations

import time
from pathlib import Path

from pydantic import ValidationError

from model.batches import augmented_batches
from model.errors import PackageError, UnreadableError
from model.factors import Adapter, Factors
from model.lora import LoraSpec, inject, read_adapter
from model.network import ResidualUNet
from model.package import pack_adapter, unpack_adapter
from model.seeds import derive_generator, derive_seed
from model.training import Group, Training
from tasks.adapter_spec import lora_spec
from tasks.answers import find_answer
from tasks.checkpoint import run_training
from tasks.code_version import code_version
from tasks.drift import check_data
from tasks.enrol import read_card
from tasks.events import log_event
from tasks.files import json_bytes, sha256_bytes, sha256_file, write_atomic
from tasks.ledger import adapter_key, get_record, plan_key, put_record, update_key
from tasks.packing import Parcel, pack_parcel
from tasks.payloads import wrap
from tasks.records import Member, Plan, Update
from tasks.settings import Params
from tasks.slices import Slices, load_slices
from tasks.spending import add_noise, read_book, spending, write_book
from tasks.trust import HUB
from tasks.weights import load_net, round_weights
from tasks.workspace import Workspace


def train_site(ws: Workspace, number: int, site: str) -> Update:
    """Train one site's adapter from the round's model and upload what fits the budget; the residual stays.

    Args:
        ws: the run.
        number: of an open round.
        site: the one that trains, on its own cases.

    Returns:
        The passport of the uploaded adapter; the earlier one when the site has trained on the same plan and
        data before. An adapter that the store has lost since is uploaded again.

    Raises:
        RoundError: the site is not invited.
        DataError: the site's cached slices, or what an earlier round left behind, cannot be read.
        PackageError: the budget holds not even one component.
        StoreError: the store does not answer.
    """
    home = ws.site_home(site)
    plan = get_record(ws.store, plan_key(number), Plan)
    plan_sha256 = str(ws.store.sha256_of(plan_key(number)))
    card = read_card(ws.data_home(site))
    found = find_answer(ws.store, update_key(site, number), Update)
    same = found and (found.plan_sha256, found.dataset_md5) == (plan_sha256, card.dataset_md5)
    if found and same and _restore(ws, plan, found):
        log_event(home, "train", number, "reused")
        return found
    if (drawn := _drawn(ws, site, number)) and (drawn.plan_sha256, drawn.dataset_md5) == (
        plan_sha256,
        card.dataset_md5,
    ):
        _upload(ws, plan, drawn, _kept(ws, site, number).read_bytes())
        return drawn
    started = time.monotonic()
    member = plan.member(site)
    notes = check_data(ws.data_home(site), home, number)
    adapter, curve = _train(ws, plan, member, f"{plan_sha256}/{card.dataset_md5}")
    package, dp = plan.params.package, plan.params.privacy.dp
    parcel = _pack(ws, plan, site, adapter)
    sha256 = sha256_bytes(parcel.data)
    book = {**read_book(home, ws.store, site, number), sha256: dp.noise} if dp else {}
    update = Update(
        round=number,
        site=site,
        plan_sha256=plan_sha256,
        base_sha256=plan.base.sha256,
        model_sha256=plan.model_sha256,
        architecture=plan.base.architecture,
        labels=plan.base.labels,
        spacing_mm=plan.base.spacing_mm,
        rank=member.rank,
        train_slices=card.slices["train"],
        dataset_md5=card.dataset_md5,
        code_version=code_version(),
        seed=plan.params.seed,
        dtype=package.dtype,
        adapter_sha256=sha256,
        adapter_bytes=len(parcel.data),
        curve=() if dp else curve,
        spent=spending(book, dp) if dp else None,
        notes=notes,
        cut_energy=round(1 - parcel.kept, 6),
        seconds=round(time.monotonic() - started, 1),
    )
    _keep(ws, update, parcel)
    _upload(ws, plan, update, parcel.data)
    return update


def read_residual(ws: Workspace, plan: Plan, site: str) -> Adapter:
    """What the site's last sent update left behind; training adds it to its own update.

    It belongs to the latest earlier round whose update the site announced on this base. An update that was
    trained and never announced counts for nothing, and what it had taken over is still in the residual before it.

    Args:
        ws: the run.
        plan: of the round that is trained; its own residual is never read.
        site: whose residual.

    Returns:
        Factors by layer; empty in the first round, without feedback, and when the file does not belong to the
        update that was announced.

    Raises:
        UnreadableError: the file is damaged.
    """
    for number in range(plan.round - 1, 0, -1):
        announced = _announced(ws, site, number)
        if announced is None or announced.base_sha256 != plan.base.sha256:
            continue
        kept, rest = _kept(ws, site, number), _residual(ws, site, number)
        if not (kept.exists() and rest.exists() and sha256_file(kept) == announced.adapter_sha256):
            return {}  # never an older one: this round had taken it over
        try:
            return unpack_adapter(rest.read_bytes())
        except PackageError as e:
            raise UnreadableError(
                f"damaged residual: {e.what}", str(rest), "remove it; what it held is lost"
            ) from e
    return {}


def train_lora(
    net: ResidualUNet,
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


def _train(
    ws: Workspace, plan: Plan, member: Member, identity: str
) -> tuple[dict[str, Factors], tuple[float, ...]]:
    home = ws.site_home(member.site)
    start = round_weights(ws.store, plan, home)
    net = load_net(plan.base.architecture, start)
    spec = lora_spec(plan.params, member.rank)
    seed = derive_seed(plan.params.seed, member.site, plan.round)
    slices = load_slices(ws.data_home(member.site), "train")
    training = train_lora(net, slices, spec, plan.params, plan.params.training.steps, seed)
    run_training(training, home / "training.safetensors", identity)
    digits = plan.params.privacy.digits
    return read_adapter(net, start, spec), tuple(round(loss, digits) for loss in training.curve)


def _restore(ws: Workspace, plan: Plan, update: Update) -> bool:
    """Upload what the store has lost again from the site's own copy; False when that does not fit either."""
    key, kept = adapter_key(update.site, update.round), _kept(ws, update.site, update.round)
    if ws.store.payload_of(key) == update.adapter_sha256:
        return True
    if not kept.exists() or sha256_file(kept) != update.adapter_sha256:
        return False
    _put_adapter(ws, plan, update, kept.read_bytes())
    return True


def _kept(ws: Workspace, site: str, number: int) -> Path:
    return ws.site_home(site) / "updates" / f"{number:04d}.safetensors"


def _residual(ws: Workspace, site: str, number: int) -> Path:
    return ws.site_home(site) / "residuals" / f"{number:04d}.safetensors"


def _announced(ws: Workspace, site: str, number: int) -> Update | None:
    """The passport that an earlier update went out with: the site's copy, or the ledger's if a kill came between."""
    own = _kept(ws, site, number).with_suffix(".json")
    try:
        return Update.model_validate_json(own.read_bytes())
    except (FileNotFoundError, ValidationError):
        asked = _kept(ws, site, number).exists()
        return find_answer(ws.store, update_key(site, number), Update) if asked else None


def _pack(ws: Workspace, plan: Plan, site: str, adapter: Adapter) -> Parcel:
    """What is sent, and what stays.

    Where updates get noise nothing stays: what a package cannot carry of one is nearly all noise. To add it again
    would cost no ε, being made of what was noised before, and send the noise of yesterday besides that of today.
    """
    package, most, dp = plan.params.package, plan.params.merge.rank_max, plan.params.privacy.dp
    if dp is None:
        return pack_parcel(adapter, read_residual(ws, plan, site), package, package.upload_bytes, most)
    package = package.model_copy(update={"feedback": False})
    return pack_parcel(add_noise(adapter, dp), {}, package, package.upload_bytes, most)


def _keep(ws: Workspace, update: Update, parcel: Parcel) -> None:
    """Keep the update, what it could not carry, and what is needed to send exactly this again.

    A kill in between leaves files of this round alone, which training it again writes anew with the same bytes;
    only what was announced counts in later rounds (:func:`read_residual`). Noise is drawn anew by then, so an update
    that has some is kept with its passport before it leaves, and sent from there.
    """
    site, number = update.site, update.round
    kept, rest = _kept(ws, site, number), _residual(ws, site, number)
    write_atomic(kept, parcel.data)
    if parcel.rest:
        write_atomic(rest, pack_adapter(parcel.rest, "fp32"))
    else:
        rest.unlink(missing_ok=True)
    if update.spent:
        write_atomic(_draft(ws, site, number), json_bytes(update.model_dump(mode="json")))


def _upload(ws: Workspace, plan: Plan, update: Update, data: bytes) -> None:
    """Enter what the update spends, upload, announce, in this order."""
    home, site, number = ws.site_home(update.site), update.site, update.round
    if update.spent:
        book = read_book(home, ws.store, site, number)
        write_book(home, {**book, update.adapter_sha256: update.spent.noise})
    _put_adapter(ws, plan, update, data)
    put_record(ws.store, update_key(site, number), update)
    announced = _kept(ws, site, number).with_suffix(".json")
    write_atomic(announced, json_bytes(update.model_dump(mode="json")))
    (home / "training.safetensors").unlink(missing_ok=True)
    log_event(home, "train", number, "done", seconds=update.seconds, sent_bytes=len(data))


def _put_adapter(ws: Workspace, plan: Plan, update: Update, data: bytes) -> None:
    """Upload for the hub and the site itself; what is there already, for them and of these bytes, stays."""
    key, readers = adapter_key(update.site, update.round), [HUB, update.site]
    if not plan.params.privacy.encrypt:
        ws.store.put(key, data)
    elif ws.store.payload_of(key) != update.adapter_sha256:
        ws.store.put(key, wrap(ws.store, data, readers), payload=update.adapter_sha256)


def _draft(ws: Workspace, site: str, number: int) -> Path:
    return _kept(ws, site, number).with_suffix(".drawn.json")


def _drawn(ws: Workspace, site: str, number: int) -> Update | None:
    """The passport of a noisy update of this round that is kept whole, whether or not it has left."""
    try:
        drawn = Update.model_validate_json(_draft(ws, site, number).read_bytes())
        whole = sha256_file(_kept(ws, site, number)) == drawn.adapter_sha256
    except (FileNotFoundError, ValidationError):
        return None
    return drawn if whole else None
