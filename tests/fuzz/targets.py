"""What is fuzzed, each through the function that the program reads it with, and what must hold of all it accepts."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import report_files as files
import torch
from pydantic import BaseModel

from model.errors import CardiofedError
from model.factors import Factors, fold, sum_adapters, truncate_adapter
from model.judge import accepted_fraction
from model.lora import layer_rank
from model.network import build_net
from model.package import Dtype, pack_adapter
from model.rating import rated_weights
from tasks.admit import check_passport
from tasks.awaiting import patience_s
from tasks.cases import SiteCard
from tasks.close import _gains
from tasks.contact import Contact
from tasks.enrol import members_of
from tasks.files import json_bytes
from tasks.homes import Home, Invitation, enter_home, read_invitation
from tasks.join import enter
from tasks.keys import new_token
from tasks.ledger import checked_name
from tasks.limits import REASON_LETTERS, explain, is_sound, limits_of, parse_record
from tasks.rate import heard_findings
from tasks.rating_rule import rating_rule
from tasks.records import (
    Candidates,
    Close,
    Evaluation,
    MergeRecord,
    Plan,
    PublicIdentity,
    Ratings,
    Update,
    Verdict,
)
from tasks.unpack import open_package

from .mutate import damage_json, damage_package

SITE, NUMBER = "st-anna", 2
PLAN, PLAN_SHA256 = files.plan(NUMBER, files.SITES), files.sha(f"plan {NUMBER}")
CANDIDATES = files.candidates(NUMBER, list(files.SITES), "")
WEIGHTS = build_net(files.ARCHITECTURE.channels, torch.Generator().manual_seed(1)).state_dict()
SHAPES = {name: tuple(weight.shape) for name, weight in WEIGHTS.items()}
MESSAGE_LETTERS = 4000
"""Of an error; it stands in logs."""


@dataclass(frozen=True)
class Target:
    """One kind of cases.

    Attributes:
        make: draws what is sent.
        read: what the program does with it, which is timed; gives the outcome in a word, raises what must not be.
    """

    make: Callable[[Random], Any]
    read: Callable[[Any, Random], str]


Sent = tuple[str, type[BaseModel], bytes]
"""Where a record is sent to, what it should be, and its bytes."""


def small_update(generator: torch.Generator, layers: int) -> dict[str, Factors]:
    """A plausible update of some layers."""
    update = {}
    for name in sorted(SHAPES)[:layers]:
        flat = WEIGHTS[name].flatten(1) if WEIGHTS[name].ndim > 1 else WEIGHTS[name][:, None]
        rank = layer_rank(flat, 4)
        B, A = (torch.randn(n, rank, generator=generator) * 0.05 for n in flat.shape)
        update[name] = Factors(B, A.T)
    return update


def package_seeds() -> list[bytes]:
    """Valid packages of every dtype, of few layers and of many."""
    dtypes: tuple[Dtype, ...] = ("int4", "int8", "fp16", "fp32")
    generator = torch.Generator().manual_seed(2)
    return [pack_adapter(small_update(generator, n), dtype) for dtype in dtypes for n in (1, 3, len(SHAPES))]


def record_seeds() -> list[Sent]:
    """Ledger key, kind and bytes of a valid record of every kind that somebody else writes."""
    contact = Contact(
        round=NUMBER, site=SITE, phase="train", every_s=0, trainings=1, sent_bytes=9, received_bytes=9
    )
    records: Mapping[str, BaseModel] = {
        f"sites/{SITE}/rounds/0002/update.json": files.update(NUMBER, SITE, 150),
        f"sites/{SITE}/rounds/0002/ratings.json": files.ratings(NUMBER, SITE, list(files.SITES)),
        f"sites/{SITE}/rounds/0002/verdict.json": files.verdict(NUMBER, SITE),
        f"sites/{SITE}/rounds/0002/evaluation.json": files.evaluation(NUMBER, SITE),
        f"sites/{SITE}/rounds/0002/contact.json": contact,
        f"sites/{SITE}/card.json": files.card(SITE),
        "global/rounds/0002/plan.json": PLAN,
        "global/rounds/0002/candidates.json": CANDIDATES,
        "global/rounds/0002/merge.json": files.merge(NUMBER, files.SITES),
        "global/rounds/0002/close.json": files.close(NUMBER, list(files.SITES)),
    }
    return [
        (key, type(record), json_bytes(record.model_dump(mode="json"))) for key, record in records.items()
    ]


def packages() -> Target:
    """Damaged packages."""
    seeds = package_seeds()
    return Target(lambda draw: damage_package(draw, draw.choice(seeds)), read_package)


def records() -> Target:
    """Damaged records of every kind."""
    seeds = record_seeds()

    def make(draw: Random) -> Sent:
        key, kind, data = draw.choice(seeds)
        return key, kind, damage_json(draw, data)

    return Target(make, read_one_record)


def invitations(folder: Path) -> Target:
    """Damaged invitations; a hospital enters by them in a folder that is its own."""
    seed = invitation_seed()

    def make(draw: Random) -> Path:
        (folder / "invitation").write_bytes(damage_json(draw, seed))
        return folder

    return Target(make, read_and_enter)


def read_package(data: bytes, draw: Random) -> str:
    """A damaged package as admission opens it; what is accepted can be folded, added up and cut."""
    if len(data) > PLAN.params.package.max_bytes:
        return "too large"  # the store's client does not download it
    try:
        adapter = open_package(data, SHAPES, PLAN.params.merge.rank_max)
    except CardiofedError as error:
        return refused(error)
    assert all(torch.isfinite(f.B).all() and torch.isfinite(f.A).all() for f in adapter.values())
    assert all(math.prod(SHAPES[name][1:]) == A.shape[1] for name, (_, A) in adapter.items())
    if draw.random() < 0.1:
        folded = fold(WEIGHTS, adapter)
        assert all(torch.isfinite(weight).all() for weight in folded.values())
        kept, lost = truncate_adapter(sum_adapters([(0.5, adapter), (0.5, adapter)]), 8)
        assert math.isfinite(lost) and all(torch.isfinite(f.B).all() for f in kept.values())
    return "accepted"


def read_one_record(sent: Sent, _draw: Random) -> str:
    """A damaged record as the ledger reads it; what is accepted is then used as hub or site would use it."""
    key, kind, data = sent
    try:
        record = parse_record(data, kind, key, limits_of(key))
        again = json_bytes(record.model_dump(mode="json"))
        assert parse_record(again, kind, key, limits_of(key)) == record
        _use(record)
    except CardiofedError as error:
        return refused(error)
    return "accepted"


def read_and_enter(folder: Path, draw: Random) -> str:
    """A damaged invitation as a hospital reads it and enters by it; nothing is written beside its folder."""
    before = dict(os.environ)
    try:
        invitation = read_invitation(folder / "invitation")
        enter(folder / "home", invitation)
        ws, home = enter_home(folder / "home")
        checked_name(home.name)
        if draw.random() < 0.02:
            assert ws.store.bucket == home.s3_bucket  # builds the clients; nobody is asked
    except CardiofedError as error:
        return refused(error)
    finally:
        os.environ.clear()
        os.environ.update(before)
        found = {path.name for path in folder.iterdir()}
        shutil.rmtree(folder / "home", ignore_errors=True)
    assert found <= {"invitation", "home"}
    return "accepted"


def invitation_seed() -> bytes:
    """A valid invitation."""
    home = Home(name=SITE, s3_endpoint="http://127.0.0.1:9000", prefect_api_url="http://127.0.0.1:4200/api")
    age = "age1c8hqjw0kkkz9lhyapg6cx79eyfxawwfhmff4yvgzmrye05cwp5uqrrnwdz"
    invitation = Invitation(
        home=home,
        access_key="anna",
        secret_key="s" * 32,
        params=files.PARAMS,
        hub=PublicIdentity(sign=files.SOMEBODY.public, age=age),
        token=new_token(),
    )
    return json_bytes(invitation.model_dump(mode="json"))


def refused(error: CardiofedError) -> str:
    """The class of a refusal, after a look at what it says of a stranger's words."""
    assert type(error).__name__ != "CardiofedError" and len(str(error)) <= MESSAGE_LETTERS
    said = explain(error.what)
    assert said.isprintable() and 0 < len(said) <= REASON_LETTERS
    return type(error).__name__


def _use(record: BaseModel) -> None:
    match record:
        case Update():
            check_passport(record, PLAN, PLAN_SHA256, SITE)
            assert len(json_bytes(record.model_dump(mode="json"))) < 10_000
        case Ratings():
            blind = {site: files.blind(NUMBER, site) for site in files.SITES}
            found = heard_findings(CANDIDATES, blind, {SITE: record})
            rated = rated_weights(found, rating_rule(files.PARAMS.rating))
            assert all(0 < r.weight <= 1 for r in rated.values())
        case Verdict():
            assert 0 <= accepted_fraction(_gains({SITE: record}), files.PARAMS.judge.tolerance) <= 1
        case Contact():
            assert patience_s(record) >= 0
        case SiteCard() if is_sound(record):
            lora = files.PARAMS.lora
            ranks = [m.rank for m in members_of([record, files.card("lakeside")], files.PARAMS)]
            assert all(lora.rank_min <= rank <= lora.rank_max for rank in ranks)
        case SiteCard() | Evaluation() | Plan() | Candidates() | MergeRecord() | Close():
            pass
