"""Wait for something to be so, no longer than a bound."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from model.errors import StoreError

T = TypeVar("T")


def until(found: Callable[[], T], what: str, within_s: float = 300.0, poll_s: float = 0.1) -> T:
    """What ``found`` returns as soon as it is true; a store that is away says nothing."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            answer = found()
        except StoreError:
            answer = None
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {within_s:.0f} s: {what}"
        time.sleep(poll_s)
