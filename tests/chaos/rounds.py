"""Rounds of the live federation: begun, struck, seen to their end, and compared with the twin's."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from check import check_round, immutable, missing_versions, unheard
from federation_files import SITES
from machines import Federation
from operating import begin_round, finish_round, operate
from table import Table
from twin import play
from until import until

from tasks.contact import Contact, Phase
from tasks.ledger import (
    adapter_key,
    candidates_key,
    close_key,
    contact_key,
    find_record,
    merge_key,
    plan_key,
    update_key,
)
from tasks.records import Close
from tasks.store import Store
from tasks.workspace import Workspace

STEPS: dict[str, Callable[[int], str]] = {
    "opened": plan_key,
    "the first update": lambda number: update_key(SITES[0], number),
    "admitted": candidates_key,
    "merged": merge_key,
    "closed": close_key,
}
"""What happens in a round, in order, and the key that shows it."""


@dataclass
class Chaos:
    """What a test works with.

    Attributes:
        federation: that is struck.
        twin: that is not.
        table: where faults are noted.
        sound: no round has failed its comparison.
        last: round that ended last.
        spoilt: keys whose bytes were replaced on purpose.
    """

    federation: Federation
    twin: Workspace
    table: Table
    sound: bool = True
    last: int = 0
    spoilt: list[str] = field(default_factory=list)
    _before: dict[str, str] = field(default_factory=dict)

    def begin(self) -> int:
        """Have the hub open the next round; returns its number."""
        self.sound = False
        self._before = immutable(self.federation)
        return begin_round(self.federation)

    def go_on(self, number: int, done: Callable[[], object], what: str) -> None:
        """Operate the federation until something is so."""
        operate(self.federation, number, done, what)

    def reach(self, number: int, step: str, delay_s: float = 0.0) -> str:
        """Go on to some seconds after one of :data:`STEPS`; returns that moment in words."""
        key = STEPS[step](number)
        self.go_on(number, lambda: self.federation.store.exists(key), f"round {number} is {step}")
        time.sleep(delay_s)
        return f"{delay_s:.1f} s after {step}"

    def await_phase(self, number: int, site: str, phase: Phase) -> None:
        """Go on until a hospital says that it does this."""
        key = contact_key(site, number)

        def does() -> bool:
            found = find_record(self.federation.store, key, Contact)
            return found is not None and found.phase == phase

        self.go_on(number, lambda: self.federation.store.exists(key), f"{site} gives a sign of life")
        until(does, f"{site} does its {phase}")

    def end(
        self,
        number: int,
        fresh: Sequence[str] = SITES,
        late: Sequence[str] = (),
        before_admission: Callable[[Store], None] = lambda _: None,
    ) -> Close:
        """See a round to its end, play it on the twin (:func:`twin.play`), and compare."""
        finish_round(self.federation, number)
        play(self.twin, number, fresh, late, before_admission)
        close = check_round(self.federation, self.twin, number, self.spoilt)
        after = immutable(self.federation)
        assert not {key for key, sha256 in self._before.items() if after.get(key) != sha256}
        word = f"{close.outcome}, degraded" if close.degraded else close.outcome
        self.table.ended(number, word, self.federation.presses)
        self.last, self.sound = number, True
        return close

    def quiet(self) -> None:
        """A round that nothing strikes, after one that something struck."""
        assert not self.end(self.begin()).degraded
        assert self.federation.presses == 0

    def close(self) -> None:
        """End everything; what was lost goes into the table."""
        try:
            if self.sound and self.last:
                for site, number in unheard(self.federation, self.last):
                    damaged = adapter_key(site, number) in self.spoilt
                    (self.table.damaged if damaged else self.table.lost).append(f"{site}, round {number}")
                assert not missing_versions(self.federation)
        finally:
            self.federation.down()


def moments(chance: Random, count: int) -> list[tuple[str, float]]:
    """Random moments of a round, in order, for :meth:`Chaos.reach`."""
    steps = list(STEPS)
    return [(steps[i], chance.uniform(0, 3)) for i in sorted(chance.sample(range(len(steps)), count))]
