"""Where every site of a round stands, read from the ledger: the one source for the terminal and for Prefect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Literal

from tasks.answers import find_answer
from tasks.awaiting import GRACE_S, Waiting, patience_s
from tasks.contact import Contact, age_s
from tasks.durations import ANSWER, written
from tasks.hub_lease import works_on
from tasks.ledger import (
    candidates_key,
    close_key,
    contact_key,
    find_record,
    get_record,
    merge_key,
    plan_key,
    round_prefix,
    site_round_prefix,
    waiting_key,
)
from tasks.records import Candidates, Close, MergeRecord, Plan
from tasks.refusals import KINDS, find_refused
from tasks.registered import registered
from tasks.visits import absence_s
from tasks.workspace import Workspace

STEPS = (
    "invited",
    "started",
    "trained",
    "uploaded",
    "admitted",
    "rated",
    "merged",
    "judged",
    "adapted",
)
"""What a site goes through in a round, in order."""

Files = Mapping[str, datetime]
"""Name of an object of a site in the round → when it was written."""

Word = Literal["complete", "degraded", "stepped back", "waiting", "rejected", "failed", "working"]


@dataclass(frozen=True)
class SiteStanding:
    """One site in one round.

    Attributes:
        site: its name.
        steps: those of :data:`STEPS` that it has behind it.
        times: when, by the store's clock, for those of the steps where that is known.
        doing: what its last sign said; empty without one.
        contact_s: seconds since that sign; None without one.
        trainings: how often it trained.
        sent_bytes: over its link.
        received_bytes: likewise.
        note: why it is out, and which of its records and keys are refused for what, if any.
    """

    site: str
    steps: tuple[str, ...]
    times: Mapping[str, datetime]
    doing: str
    contact_s: float | None
    trainings: int
    sent_bytes: int
    received_bytes: int
    note: str


@dataclass(frozen=True)
class RoundStanding:
    """A round in a word, and its sites.

    Attributes:
        number: of the round.
        word: how it stands.
        detail: who is missing, or for whom the hub waits and until when, or why it ended so.
        age_s: seconds since it opened.
        sites: by name.
    """

    number: int
    word: Word
    detail: str
    age_s: float
    sites: tuple[SiteStanding, ...]


def round_standing(ws: Workspace, number: int) -> RoundStanding:
    """Read how a round stands; by the store's clock.

    Args:
        ws: the hub's workspace, or any that may read the ledger.
        number: of an open round.

    Returns:
        The round and its sites.

    Raises:
        ObjectMissingError: the round is not open.
        StoreError: the store does not answer.
    """
    plan = get_record(ws.store, plan_key(number), Plan)
    now = ws.store.now()
    hub = _Hub(
        find_record(ws.store, candidates_key(number), Candidates),
        find_record(ws.store, merge_key(number), MergeRecord),
        find_record(ws.store, close_key(number), Close),
        find_record(ws.store, waiting_key(number), Waiting),
        works_on(ws, number),
        written(ws.store, round_prefix(number)),
    )
    files = {m.site: written(ws.store, site_round_prefix(m.site, number)) for m in plan.members}
    contacts = {
        site: find_answer(ws.store, contact_key(site, number), Contact)
        for site, names in files.items()
        if "contact.json" in names
    }
    refused = {
        site: find_refused(ws.store, number, site, hub.doubted(site, names, contacts.get(site)))
        for site, names in files.items()
    }
    files = {
        site: {name: time for name, time in names.items() if name not in refused[site]}
        for site, names in files.items()
    }
    grace = {
        site: max(GRACE_S, absence_s(ws.store, site, now))
        for site, names in files.items()
        if "contact.json" not in names
    }
    offers = registered(ws.store).refused
    sites = tuple(
        _site(
            m.site, files[m.site], contacts.get(m.site), hub, now, _told(refused[m.site], offers.get(m.site))
        )
        for m in plan.members
    )
    word, detail = _word(hub, files, contacts, grace, now)
    return RoundStanding(number, word, detail, age_s(plan.opened, now), sites)


@dataclass(frozen=True)
class _Hub:
    candidates: Candidates | None
    merge: MergeRecord | None
    close: Close | None
    waiting: Waiting | None
    works: bool | None
    files: Files

    def doubted(self, site: str, names: Files, contact: Contact | None) -> list[str]:
        """Records that are there and that the hub has not taken, as far as its own records tell."""
        is_taken = {
            "contact.json": contact is not None,
            "update.json": self.candidates is not None
            and (self.merge is None or site in self.merged | self.absent),
            "ratings.json": self.merge is not None and site in self.merge.ratings_sha256,
            "verdict.json": self.close is not None and site in self.close.verdicts_sha256,
        }
        return [name for name in KINDS if name in names and not is_taken.get(name, False)]

    @cached_property
    def merged(self) -> set[str]:
        return {r.site for r in self.merge.receipts} if self.merge else set()

    @cached_property
    def refused(self) -> dict[str, str]:
        return {q.site: q.reason for q in self.candidates.quarantined} if self.candidates else {}

    @cached_property
    def absent(self) -> set[str]:
        return {*self.candidates.missing, *self.refused} if self.candidates else set()


def _site(
    site: str, files: Files, contact: Contact | None, hub: _Hub, now: datetime, refused: str
) -> SiteStanding:
    reached = {
        "invited": True,
        "started": contact is not None or "update.json" in files,
        "trained": "update.json" in files or (contact is not None and contact.trainings > 0),
        "uploaded": "update.json" in files,
        "admitted": hub.candidates is not None and site not in hub.absent,
        "rated": "ratings.json" in files,
        "merged": site in hub.merged,
        "judged": "verdict.json" in files,
        "adapted": "evaluation.json" in files,
    }
    steps = tuple(step for step in STEPS if reached[step])
    times = _times(files, contact, hub)
    return SiteStanding(
        site=site,
        steps=steps,
        times={step: times[step] for step in steps if step in times},
        doing=contact.phase if contact else "",
        contact_s=age_s(files["contact.json"], now) if contact else None,
        trainings=contact.trainings if contact else 0,
        sent_bytes=contact.sent_bytes if contact else 0,
        received_bytes=contact.received_bytes if contact else 0,
        note="; ".join(filter(None, (_note(contact, hub.refused.get(site)), refused))),
    )


def _told(refused: Mapping[str, str], offer: str | None) -> str:
    """Records that are refused, and a key that is offered and not registered."""
    said = [f"its {KINDS[name][1]} ({name}) refused: {why}" for name, why in refused.items()]
    return "; ".join([*said, *([f"the key that it offers, refused: {offer}"] if offer else [])])


def _times(files: Files, contact: Contact | None, hub: _Hub) -> dict[str, datetime]:
    started, trained = (contact.started, contact.trained) if contact else (None, None)
    uploaded = files.get("update.json")
    if trained and uploaded:
        trained = min(trained, uploaded)  # a site tells of its training when it has uploaded as well
    at = {
        "invited": hub.files.get("plan.json"),
        "started": started,
        "trained": trained or uploaded,
        "uploaded": uploaded,
        "admitted": hub.files.get("candidates.json"),
        "rated": files.get("ratings.json"),
        "merged": hub.files.get("merge.json"),
        "judged": files.get("verdict.json"),
        "adapted": files.get("evaluation.json"),
    }
    return {step: time.replace(microsecond=0) for step, time in at.items() if time}  # as the store tells it


def _note(contact: Contact | None, refused: str | None) -> str:
    if refused is not None:
        return f"quarantined: {refused}"
    return "retry its run" if contact is not None and contact.phase == "failed" else ""


def _word(
    hub: _Hub,
    files: Mapping[str, Files],
    contacts: Mapping[str, Contact | None],
    grace: Mapping[str, float],
    now: datetime,
) -> tuple[Word, str]:
    close = hub.close
    if close is None or (close.outcome == "failed" and hub.works):  # a failed round is tried again
        return _open_word(hub, files, contacts, grace, now)
    named = all(site in close.reason for site in close.missing)
    absent = "" if named else f"without {', '.join(close.missing)}"
    said = "; ".join(filter(None, (absent, close.reason)))
    if close.outcome in ("failed", "rejected"):
        return close.outcome, said
    if close.degraded:
        return "degraded", said
    return ("stepped back", said) if close.outcome == "stepped_back" else ("complete", close.reason)


def _open_word(
    hub: _Hub,
    files: Mapping[str, Files],
    contacts: Mapping[str, Contact | None],
    grace: Mapping[str, float],
    now: datetime,
) -> tuple[Word, str]:
    if hub.works is False:
        return (
            "failed",
            "the hub stopped before its end; the next run continues it, or `cardiofed round retry`",
        )
    if hub.waiting is None:
        return "working", "the hub has not asked the sites yet"
    phase = hub.waiting.phase
    left = {
        site: _awaited_s(until, files.get(site, {}), contacts.get(site), grace.get(site, GRACE_S), now)
        for site, until in hub.waiting.until.items()
        if ANSWER[phase] not in files.get(site, {})
    }
    left = {site: seconds for site, seconds in left.items() if seconds > 0}
    if not left:
        return "working", f"the hub works on what the sites sent ({phase})"
    until = now + timedelta(seconds=max(left.values()))
    return "waiting", f"for {', '.join(sorted(left))} to {phase}, until {until:%H:%M:%S} UTC at the latest"


def _awaited_s(
    until: datetime, files: Files, contact: Contact | None, grace_s: float, now: datetime
) -> float:
    """Seconds that the hub still waits for a site: to its deadline, or until it counts as dead."""
    sign = files.get("contact.json")
    alive = grace_s if sign is None else patience_s(contact) - age_s(sign, now)
    return min((until - now).total_seconds(), alive)
