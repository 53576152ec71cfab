"""Wait for the sites' answers: as long as each may take, no longer than needed, and not for the dead."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import Field

from tasks.answers import find_answer
from tasks.contact import Contact, age_s
from tasks.deadlines import LOOK_BACK, deadline_s
from tasks.durations import ANSWER, ASKED, SitePhase, past_durations, written
from tasks.ledger import (
    contact_key,
    get_record,
    plan_key,
    put_record,
    round_prefix,
    site_round_prefix,
    waiting_key,
)
from tasks.outage import ride_out
from tasks.records import Plan, Record
from tasks.visits import absence_s
from tasks.workspace import Workspace

LEASE_S = 90.0
"""A site that works and gives no sign for so long is dead."""
GRACE_S = 300.0
"""A site that was called and gives no first sign for so long is not there; a busy machine takes minutes to start."""
REPAIR_S = 600.0
"""A site whose work failed is awaited so long after its last sign, for somebody to retry it."""
POLL_S = 2.0


class Waiting(Record):
    """Whom the hub waits for."""

    round: int
    phase: SitePhase
    until: dict[str, datetime] = Field(description="site → deadline, by the store's clock")


@dataclass(frozen=True)
class Outlook:
    """How the sites stand in a phase.

    Attributes:
        answered: their answer is in the ledger.
        due: still awaited.
        dead: no sign of life for longer than a lease, or no first sign.
        late: beyond their deadline.
    """

    answered: tuple[str, ...]
    due: tuple[str, ...]
    dead: tuple[str, ...]
    late: tuple[str, ...]


def await_sites(
    ws: Workspace,
    number: int,
    phase: SitePhase,
    sites: Collection[str],
    sleep: Callable[[float], None] = time.sleep,
    called: datetime | None = None,
) -> Outlook:
    """Wait until everybody has answered who still can.

    Deadlines are learned (:mod:`tasks.deadlines`) unless ``federation.deadlines`` sets one, with the time that a site
    stays away which comes by itself; the wait begins anew when a hub that was killed starts again.

    Args:
        ws: the hub's workspace.
        number: of the round.
        phase: whose answers.
        sites: those that were asked.
        sleep: takes seconds.
        called: when the sites were called for this round, by the store's clock, so that who never came is
            not awaited again in every phase; None for now.

    Returns:
        Who answered and who did not, and why.

    Raises:
        StoreError: the store does not answer, for longer than :func:`~tasks.outage.ride_out` bears.
    """
    plan = get_record(ws.store, plan_key(number), Plan)
    began = ws.store.now()
    until = {site: began + timedelta(seconds=s) for site, s in _deadlines(ws, plan, phase, sites).items()}
    put_record(ws.store, waiting_key(number), Waiting(round=number, phase=phase, until=until))
    while True:
        outlook = ride_out(lambda: look(ws, number, phase, until, began, called), sleep)
        if not outlook.due:
            return outlook
        sleep(POLL_S)


def look(
    ws: Workspace,
    number: int,
    phase: SitePhase,
    until: Mapping[str, datetime],
    began: datetime,
    called: datetime | None = None,
) -> Outlook:
    """How the sites stand now.

    Args:
        ws: the hub's workspace.
        number: of the round.
        phase: whose answers.
        until: site → deadline.
        began: when the wait began.
        called: when the sites were called; None for then.

    Returns:
        Every site of ``until`` under one heading.
    """
    now, asked = ws.store.now(), written(ws.store, round_prefix(number))[ASKED[phase]]
    found: dict[str, list[str]] = {"answered": [], "due": [], "dead": [], "late": []}
    for site, deadline in sorted(until.items()):
        files = written(ws.store, site_round_prefix(site, number))
        if ANSWER[phase] in files and files[ANSWER[phase]] >= asked:
            heading = "answered"
        elif now > deadline:
            heading = "late"
        else:
            heading = "dead" if _is_dead(ws, number, site, files, began, called, now) else "due"
        found[heading].append(site)
    return Outlook(**{heading: tuple(names) for heading, names in found.items()})


def is_silent(contact_s: float | None) -> bool:
    """Whether nobody works at a site: its last sign came so many seconds ago, None for never."""
    return contact_s is None or contact_s > LEASE_S


def _is_dead(
    ws: Workspace,
    number: int,
    site: str,
    files: Mapping[str, datetime],
    began: datetime,
    called: datetime | None,
    now: datetime,
) -> bool:
    sign = files.get("contact.json")
    if sign is None:
        return age_s(called or began, now) > max(GRACE_S, absence_s(ws.store, site, now))
    contact = find_answer(ws.store, contact_key(site, number), Contact)
    return age_s(max(sign, began), now) > patience_s(contact)  # after an outage its sign is old, and it lives


def patience_s(contact: Contact | None) -> float:
    """How long a site is still awaited after its last sign.

    Args:
        contact: the sign; None when it cannot be read.

    Returns:
        Seconds.
    """
    if contact is None:
        return LEASE_S
    absence = 2 * contact.every_s  # it may miss one of its own hours
    return LEASE_S + max(absence, REPAIR_S if contact.phase == "failed" else 0.0)


def _deadlines(ws: Workspace, plan: Plan, phase: SitePhase, sites: Collection[str]) -> dict[str, float]:
    settings = plan.params.federation
    members = [member.site for member in plan.members]
    rounds = range(max(1, plan.round - LOOK_BACK), plan.round)
    took = past_durations(ws.store, members, phase, rounds)
    slices = {member.site: float(member.train_slices) for member in plan.members}
    now, most_s = ws.store.now(), float(settings.deadline_s)
    learned = {
        site: min(most_s, deadline_s(took[site], took, slices, site, most_s) + absence_s(ws.store, site, now))
        for site in sites
    }
    return learned | {site: float(s) for site, s in settings.deadlines.items() if site in learned}
