"""The bank of late updates: which update speaks for a site in a round, and for how much of its volume.

An update that comes after the admission of its round waits in the ledger, where it lies. If its site sends nothing
in time in one of the next ``merge.late_rounds`` rounds, it speaks for the site there. A site's updates are taken in
the order of their rounds and each at most once: what is older than one that was taken or refused is superseded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from model.merge import volume_weights
from tasks.answers import find_answer
from tasks.ledger import candidates_key, find_record, plan_key, update_key
from tasks.records import Candidates, Plan, Update
from tasks.settings import Merge
from tasks.store import Store


@dataclass(frozen=True)
class Opened:
    """A round as a site's update answers it.

    Attributes:
        plan: of the round.
        sha256: of the plan's bytes in the ledger.
    """

    plan: Plan
    sha256: str


@dataclass(frozen=True)
class Voice:
    """The update that speaks for a site in a round.

    Attributes:
        update: its passport.
        age: rounds that it came late; 0 for a fresh one.
    """

    update: Update
    age: int


class Bank:
    """What has arrived for a round, now or for an earlier one; admission chooses from it.

    Args:
        store: the ledger's store.
        now: the round that admits.
    """

    def __init__(self, store: Store, now: Opened) -> None:
        self._store = store
        self._now = now

    def choose(self, site: str) -> Opened | None:
        """The round whose update speaks for a site: this one's whatever it is worth, else the youngest that waits.

        Args:
            site: a member of this round.

        Returns:
            The round, whose passport and payload are still to be checked; None when nothing has arrived.
        """
        if self._store.exists(update_key(site, self._now.plan.round)):
            return self._now
        done = 0
        for past, candidates in self._past:
            number = past.plan.round
            invited = any(member.site == site for member in past.plan.members)
            if candidates is not None and invited:
                done = max(done, _last_done(self._store, candidates, site))
            if number <= done:
                return None
            if invited and self._store.exists(update_key(site, number)):
                return past
        return None

    @cached_property
    def _past(self) -> list[tuple[Opened, Candidates | None]]:
        """The rounds to look back on, youngest first; without candidates where one failed before admission."""
        last = self._now.plan.round - 1
        rounds = []
        for number in range(last, max(0, last - self._now.plan.params.merge.late_rounds), -1):
            plan = find_record(self._store, plan_key(number), Plan)
            if plan is not None and plan.base == self._now.plan.base:
                opened = Opened(plan, str(self._store.sha256_of(plan_key(number))))
                rounds.append((opened, find_record(self._store, candidates_key(number), Candidates)))
        return rounds


def find_voice(store: Store, candidates: Candidates, site: str) -> Voice | None:
    """The update that was admitted for one site, from the site's own keys and the public record alone.

    Args:
        store: the ledger's store.
        candidates: of the round.
        site: whose update.

    Returns:
        Passport and age; None for a site without an admitted update, and for one that has changed its
        announcement since.
    """
    if site in candidates.missing or any(site == refusal.site for refusal in candidates.quarantined):
        return None
    for age in sorted({0, *candidates.late.values()}):
        number = candidates.round - age
        update = find_answer(store, update_key(site, number), Update)
        admitted = {c.sha256 for c in candidates.candidates if candidates.late.get(c.id, 0) == age}
        if update and (update.site, update.round) == (site, number) and update.adapter_sha256 in admitted:
            return Voice(update, age)
    return None


def find_voices(store: Store, plan: Plan, candidates: Candidates) -> dict[str, Voice]:
    """Site → the update that was admitted for it, of all members; see :func:`find_voice`."""
    found = {member.site: find_voice(store, candidates, member.site) for member in plan.members}
    return {site: voice for site, voice in found.items() if voice is not None}


def blind_ids(plan_sha256: str, sha256_by_site: Mapping[str, str]) -> dict[str, str]:
    """Site → the name its update is rated under.

    The name is a hash of the plan that admits and of the payload, so only who knows both a site and its bytes can
    link them, and the hub can recompute the map from the ledger at any time. Equal payloads are told apart by a count.
    """
    ids: dict[str, str] = {}
    for site, sha256 in sorted(sha256_by_site.items()):
        twins = sum(other == sha256 for known, other in sha256_by_site.items() if known < site)
        ids[site] = hashlib.sha256(f"{plan_sha256}/{sha256}/{twins}".encode()).hexdigest()[:16]
    return ids


def aged_volumes(slices: Mapping[str, int], ages: Mapping[str, int], settings: Merge) -> dict[str, float]:
    """``v_c = volume(n_c) · late_discount^age``.

    Args:
        slices: site → n_c, training slices.
        ages: site → rounds that its update came late.
        settings: volume rule and discount.

    Returns:
        Site → volume weight.
    """
    volumes = volume_weights(slices, settings.volume)
    return {site: v * settings.late_discount ** ages[site] for site, v in volumes.items()}


def _last_done(store: Store, candidates: Candidates, site: str) -> int:
    """Up to which round a round before has dealt with an invited site's updates; 0 where it had none of them.

    One that was refused, or announced anew after admission, gets no second hearing.
    """
    if site in candidates.missing:
        return 0
    voice = find_voice(store, candidates, site)
    return candidates.round - (voice.age if voice else 0)
