"""One line of JSON per fact, in the folder of whoever did it: what was done, and what was found done already."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from model.errors import DiskError

Action = Literal["done", "reused", "warned"]


def log_event(home: Path, phase: str, round_number: int | None, action: Action, **numbers: float) -> None:
    """Append one event to ``home/events.jsonl``.

    Args:
        home: the site's folder, or the run's for the hub.
        phase: such as ``train``.
        round_number: None outside rounds.
        action: ``reused`` when the ledger already held the result; ``warned`` for what somebody should look at.
        **numbers: durations in seconds, sizes in bytes and the like; never a name of a file or patient.

    Raises:
        DiskError: the disk is full or the folder cannot be written; what the event tells of is done all the same.
    """
    line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "phase": phase, "action": action}
    tree = line | ({} if round_number is None else {"round": round_number}) | numbers
    path = home / "events.jsonl"
    try:
        home.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps(tree) + "\n")
    except OSError as error:
        what = f"cannot write an event: {error.strerror or error}"
        raise DiskError(what, str(path), "free some space and run again; what was done is kept") from error


def count_events(home: Path, phase: str, action: Action = "done") -> int:
    """How often a phase was truly executed in a folder."""
    path = home / "events.jsonl"
    if not path.exists():
        return 0
    events = (json.loads(line) for line in path.read_text().splitlines())
    return sum(event["phase"] == phase and event["action"] == action for event in events)
