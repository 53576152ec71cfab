"""Who only waits need not fail because the store is away for a while."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from model.errors import StoreUnreachableError

T = TypeVar("T")

PATIENCE_S = 600.0
PAUSE_S = 5.0


def ride_out(ask: Callable[[], T], sleep: Callable[[float], None]) -> T:
    """Ask the ledger, again and again while the store does not answer.

    Args:
        ask: only reads.
        sleep: takes seconds.

    Returns:
        The answer.

    Raises:
        StoreUnreachableError: no answer for ``PATIENCE_S`` seconds, not counting the time that asking takes.
    """
    waited = 0.0
    while True:
        try:
            return ask()
        except StoreUnreachableError:
            if waited >= PATIENCE_S:
                raise
        sleep(PAUSE_S)
        waited += PAUSE_S
