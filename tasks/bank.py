"""The bank of late updates: which update speaks for a site in a round, and for how much of its volume.

An update that comes after the admission of its round waits in the ledger, where it lies. If its site sends nothing
in time in one of the next ``merge.late_rounds`` rounds, it speaks for the site there. A site's updates are taken in
the order of their rounds and each at most once: what is older than one that was taken or refused is superseded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from model.merge import volume_weights
from tasks.answers import find_answer
from tasks.ledger import candidates_key, find_record, get_record, plan_key, senders_key, update_key
from tasks.records import Candidates, Plan, Senders, Update
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


def find_voices(store: Store, number: int) -> dict[str, Voice]:
    """The updates of a round, as they stood at admission.

    Args:
        store: the ledger's store.
        number: of a round whose updates were admitted.

    Returns:
        Blind id → the update that was admitted under it.

    Raises:
        ObjectMissingError: admission has not ended.
    """
    senders = get_record(store, senders_key(number), Senders)
    return {blind: Voice(update, number - update.round) for blind, update in senders.updates.items()}


def late_sites(store: Store, number: int) -> set[str]:
    """Sites for which an update of an earlier round spoke; see :func:`find_voices`."""
    return {voice.update.site for voice in find_voices(store, number).values() if voice.age}


def own_candidates(store: Store, candidates: Candidates, site: str, late_rounds: int) -> set[str]:
    """Blind ids of the candidates that may be a site's own, by what the site itself announced.

    Args:
        store: the ledger's store.
        candidates: of the round.
        site: finds its own by the bytes of its youngest update that is among them.
        late_rounds: how old an update may be.

    Returns:
        One, or several where others sent the same bytes; none for a site without an admitted update.
    """
    for number in range(candidates.round, max(0, candidates.round - late_rounds - 1), -1):
        update = find_answer(store, update_key(site, number), Update)
        own = {c.id for c in candidates.candidates if update and c.sha256 == update.adapter_sha256}
        if own:
            return own
    return set()


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

    One that was refused gets no second hearing.
    """
    if any(site == refusal.site for refusal in candidates.quarantined):
        return candidates.round
    rounds = (v.update.round for v in find_voices(store, candidates.round).values() if v.update.site == site)
    return max(rounds, default=0)
