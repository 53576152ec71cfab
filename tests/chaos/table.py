"""The table of a chaos run: every fault that was injected, when it struck, and what became of its round."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Fault:
    """One fault, as it was injected."""

    kind: str
    moment: str


@dataclass(frozen=True)
class Round:
    """A round that faults struck, and that ended as its twin did; another one fails its test."""

    number: int
    faults: tuple[Fault, ...]
    ended: str
    presses: int


@dataclass
class Table:
    """What the tests of a session report.

    Attributes:
        rounds: in the order in which they ended.
        lost: updates that were sent and never counted.
        damaged: likewise, because a fault destroyed their bytes in the store.
    """

    rounds: list[Round] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)
    _open: list[Fault] = field(default_factory=list)

    def struck(self, kind: str, moment: str) -> None:
        """Note a fault of the round that runs."""
        self._open.append(Fault(kind, moment))

    def ended(self, number: int, ended: str, presses: int) -> None:
        """Close the round that runs."""
        self.rounds.append(Round(number, tuple(self._open), ended, presses))
        self._open = []

    def write(self, path: Path) -> None:
        """As markdown."""
        faults = [fault for entry in self.rounds for fault in entry.faults]
        moments: dict[str, list[str]] = defaultdict(list)
        rounds: dict[str, set[int]] = defaultdict(set)
        for index, entry in enumerate(self.rounds):
            for fault in entry.faults:
                moments[fault.kind].append(fault.moment)
                rounds[fault.kind].add(index)
        struck = sum(bool(entry.faults) for entry in self.rounds)
        presses = sum(entry.presses for entry in self.rounds)
        minutes = (time.monotonic() - self._began) / 60
        lines = [
            "# Chaos",
            "",
            "Written by `make chaos`. A federation of three hospitals with real store, Prefect server and workers, as",
            "processes, adapters encrypted; beside it a twin that no fault reaches. Every round below ended as the",
            "twin's: outcome, participants, receipts, merged step and rest bit for bit, and the hospitals'",
            "measurements. Nobody did any work to the end twice, no run was left under",
            "way, nothing in the ledger changed that was written.",
            "",
            f"**{len(faults)} faults in {struck} rounds** of {len(self.rounds)}, in {minutes:.0f} minutes. Retry was "
            f"pressed {presses} times. **Lost: {'; '.join(self.lost) or 'nothing'}**{self._refused()}.",
            "",
            "| fault | times | rounds | moments |",
            "|---|---:|---:|---|",
            *(f"| {kind} | {len(m)} | {len(rounds[kind])} | {'; '.join(m)} |" for kind, m in moments.items()),
            "",
            "| round | faults | ended | Retry |",
            "|---:|---|---|---:|",
            *(
                f"| {e.number} | {'; '.join(f.kind for f in e.faults) or 'none'} | {e.ended} | {e.presses} |"
                for e in self.rounds
            ),
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")

    def _refused(self) -> str:
        if not self.damaged:
            return ""
        return f", but for what faults destroyed in the store, refused by name: {'; '.join(self.damaged)}"
