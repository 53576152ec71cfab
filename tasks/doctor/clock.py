"""This machine's clock against the store's."""

from __future__ import annotations

from datetime import UTC, datetime

from tasks.doctor.endpoint import ask_store
from tasks.doctor.finding import Finding, broken, doubtful, named, well
from tasks.homes import Home
from tasks.workspace import Workspace

WARNING_S, FAILED_S = 30.0, 900.0
SET_CLOCK = "set the clock, and have NTP keep it: timedatectl set-ntp true"


def local_now() -> datetime:
    """This machine's time."""
    return datetime.now(UTC)


@named("clock")
def clock(ws: Workspace, home: Home) -> Finding:
    """This clock and the store's: over 30 s apart a warning, over 15 min failed: S3 then refuses every signature.

    The time comes with the answer to an unsigned request, so it is told even then, and to sites, which may not
    ask for the bucket.
    """
    date = ask_store(home).date
    if date is None:
        return doubtful("the store tells no time", "use a store that sends the Date header HTTP asks for")
    ahead_s = (local_now() - date).total_seconds()
    if abs(ahead_s) <= WARNING_S:
        return well(f"within {WARNING_S:.0f} s of the store's")
    said = f"{abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} the store's"
    if abs(ahead_s) <= FAILED_S:
        return doubtful(said, SET_CLOCK)
    return broken(f"{said}: it refuses signatures more than {FAILED_S / 60:.0f} min old", SET_CLOCK)
