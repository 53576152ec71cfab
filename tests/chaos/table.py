"""The table of a chaos run: every fault that was injected, when it struck, and what became of its round."""

from __future__ import annotations

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
    """What the tests of a session report."""

    rounds: list[Round] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
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
        lines = [
            "# Chaos",
            "",
            "Written by `make chaos`. A federation of three hospitals with real store, Prefect server and workers, as",
            "processes; beside it a twin without faults. Every round below ended as the twin's: outcome, participants,",
            "receipts, merged step and rest bit for bit, and every hospital's measurements. No hospital did any work",
            "to the end twice, no run was left running, every object kept its hash.",
            "",
            f"**{len(faults)} faults in {struck} rounds** of {len(self.rounds)}; Retry was pressed {presses} times. "
            f"**Lost: {'; '.join(self.lost) or 'nothing'}.**",
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
