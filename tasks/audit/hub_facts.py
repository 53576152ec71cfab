"""The facts of a round that the hub's own records tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TypeVar

from pydantic import BaseModel, JsonValue

from tasks.audit.entry import Fact, Kind
from tasks.audit.log import Log
from tasks.files import json_bytes, sha256_bytes
from tasks.ledger import (
    candidates_key,
    close_key,
    get_record,
    merge_key,
    plan_key,
    report_key,
    round_prefix,
    senders_key,
)
from tasks.records import Candidates, Close, MergeRecord, Plan, Receipt, Senders, model_sha256
from tasks.settings import Params
from tasks.store import Store
from tasks.version import Versioned

T = TypeVar("T", bound=BaseModel)


class RoundReader:
    """The hub's records of one round, and whether the log tells of them as they are.

    Args:
        store: the ledger's store.
        number: of the round.
        log: as it stands.
    """

    def __init__(self, store: Store, number: int, log: Log) -> None:
        self.store, self.number, self.log = store, number, log
        self._there = {info.key: info for info in store.list(round_prefix(number))}

    @cached_property
    def plan(self) -> Plan:
        """Of the round."""
        return self.read(plan_key(self.number), Plan)

    @property
    def sites(self) -> list[str]:
        """Those that the round has invited."""
        return [member.site for member in self.plan.members]

    def is_new(self, key: str) -> bool:
        """Whether there is an object that the log does not tell of yet."""
        return key in self._there and not self.log.tells(self._there[key])

    def read(self, key: str, kind: type[T]) -> T:
        """A record."""
        return get_record(self.store, key, kind)

    def tell(self, kind: Kind, key: str, record: type[T]) -> tuple[T, Fact]:
        """A record and the beginning of what an entry says of it."""
        said = self.tell_page(kind, key)
        return self.read(key, record), said

    def tell_page(self, kind: Kind, key: str) -> Fact:
        """What an entry says of any object: its hash, size and time."""
        info = self._there[key]
        sha256 = self.store.sha256_of(key)
        return Fact(kind, self.number, None, key, sha256, info.size, {}, info.modified)


def opening_facts(reader: RoundReader) -> Iterator[Fact]:
    """``opened`` and, where the settings are not those of the round before, ``configured``."""
    plan, said = reader.tell("opened", plan_key(reader.number), Plan)
    sites: list[JsonValue] = [member.site for member in plan.members]
    yield _with(said, base_sha256=plan.base.sha256, model_sha256=plan.model_sha256, sites=sites)
    last = next((e for e in reversed(reader.log.entries) if e.kind == "configured"), None)
    params_sha256 = sha256_bytes(json_bytes(plan.params.model_dump(mode="json")))
    if last is None or last.facts["params_sha256"] != params_sha256:
        before = reader.read(plan_key(last.round), Plan).params if last and last.round else None
        changed: list[JsonValue] = [*changed_settings(before, plan.params)] if before else []
        facts: dict[str, JsonValue] = {"params_sha256": params_sha256, "changed": changed}
        yield Fact("configured", reader.number, facts=facts, time=said.time)


def admission_facts(reader: RoundReader, update_sha256: Mapping[str, str | None]) -> Iterator[Fact]:
    """Who was admitted, refused or absent; which update is meant is told by the hash of its passport alone.

    Its adapter's hash or size would tell raters whose adapter they rate.

    Args:
        reader: of the round, which has new candidates.
        update_sha256: site → of the passport that was admitted.

    Yields:
        A fact for the draw, then one per hospital admitted, refused or absent.
    """
    record, said = reader.tell("drawn", candidates_key(reader.number), Candidates)
    yield _with(said, candidates=len(record.candidates), nonce=record.nonce)
    for site, sha256 in sorted(update_sha256.items()):
        yield _of_site(said, "admitted", site, update_sha256=sha256)
    for refusal in record.quarantined:
        yield _of_site(said, "quarantined", refusal.site, reason=refusal.reason)
    for site in record.missing:
        yield _of_site(said, "absent", site)


def merge_facts(reader: RoundReader) -> Iterator[Fact]:
    """The merge, and what every update counted for."""
    record, said = reader.tell("merged", merge_key(reader.number), MergeRecord)
    heard: dict[str, JsonValue] = dict(record.ratings_sha256)
    yield _with(said, mode=record.mode, merged_sha256=record.merged_sha256, ratings_sha256=heard)
    for receipt in record.receipts:
        yield _of_site(said, "weighted", receipt.site, merge_sha256=said.sha256, **weight_numbers(receipt))


def weight_numbers(receipt: Receipt) -> dict[str, JsonValue]:
    """What decides how much an update counts, of its receipt."""
    return {
        "rated_weight": receipt.rated_weight,
        "used_weight": receipt.used_weight,
        "share": receipt.share,
        "aspect": receipt.aspect,
        "penalty": receipt.penalty,
        "clipped_to": receipt.clipped_to,
        "age": receipt.age,
    }


def closing_facts(reader: RoundReader) -> Iterator[Fact]:
    """How the round ended and, unless it failed, whose candidate was which."""
    close, said = reader.tell("closed", close_key(reader.number), Close)
    missing: list[JsonValue] = [*close.missing]
    judged: dict[str, JsonValue] = dict(close.verdicts_sha256)
    yield _with(
        said,
        outcome=close.outcome,
        fraction=close.fraction,
        missing=missing,
        verdicts_sha256=judged,
        steps=len(close.steps),
        model_sha256=model_sha256(reader.plan.base, close.steps),
    )
    if close.outcome != "failed":
        yield from _unblinded(reader, said)


def page_facts(reader: RoundReader) -> Iterator[Fact]:
    """The round's report."""
    if reader.is_new(report_key(reader.number)):
        yield reader.tell_page("reported", report_key(reader.number))


def versioned(number: int, version: Versioned) -> Fact:
    """The round's tag, and the commit that it stands on."""
    facts: dict[str, JsonValue] = {"tag": version.tag, "commit": version.commit, "files": version.files}
    return Fact("versioned", number, facts=facts)


def started(number: int, by: str, run: str) -> Fact:
    """Who started work on a round.

    Args:
        number: of the round.
        by: a role: ``schedule`` or ``hand``; never a person.
        run: Prefect's id of the run.

    Returns:
        The fact.
    """
    return Fact("started", number, facts={"by": by, "run": run})


def changed_settings(before: Params, after: Params) -> list[str]:
    """Names of the settings that differ, such as ``merge.mode``."""
    old, new = before.model_dump(mode="json"), after.model_dump(mode="json")
    names = []
    for section in sorted(old.keys() | new.keys()):
        one, other = old.get(section), new.get(section)
        if isinstance(one, dict) and isinstance(other, dict):
            keys = sorted(k for k in one.keys() | other.keys() if one.get(k) != other.get(k))
            names += [f"{section}.{k}" for k in keys]
        elif one != other:
            names.append(section)
    return names


def _unblinded(reader: RoundReader, said: Fact) -> Iterator[Fact]:
    senders = reader.read(senders_key(reader.number), Senders)
    for blind, update in sorted(senders.updates.items(), key=lambda item: item[1].site):
        facts: dict[str, JsonValue] = {
            "candidate": blind,
            "secret": senders.secret,
            "update_round": update.round,
            "adapter_sha256": update.adapter_sha256,
            "adapter_bytes": update.adapter_bytes,
        }
        yield _of_site(said, "unblinded", update.site, **facts)


def _with(said: Fact, **facts: JsonValue) -> Fact:
    return Fact(said.kind, said.round, said.site, said.object, said.sha256, said.n_bytes, facts, said.time)


def _of_site(said: Fact, kind: Kind, site: str, **facts: JsonValue) -> Fact:
    """Told by the same object, of one site."""
    return Fact(kind, said.round, site, facts=facts, time=said.time)
