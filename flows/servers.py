"""The servers of a run on one machine: up while the work lasts, down after it, or kept on request."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.prefect_server import prefect_environment, start_prefect
from infra.process import stop
from infra.s3_server import start_s3

_DRAIN_S = 10.0


@dataclass(frozen=True)
class Servers:
    """Addresses for people."""

    ui_url: str
    store_url: str
    store_folder: Path


@contextmanager
def servers(
    root: Path, s3_port: int | None = None, prefect_port: int | None = None, keep: bool = False
) -> Iterator[Servers]:
    """Start the store and Prefect inside the run's folder and point this process at them.

    Args:
        root: the run's folder.
        s3_port: of the store; None for a free one.
        prefect_port: of Prefect; None for a free one.
        keep: leave both running at the end; ``cardiofed down`` ends them.

    Raises:
        ServerError: a port is taken, or a server does not start.
    """
    store = start_s3(root / "store", s3_port, keep)
    try:
        prefect = start_prefect(root / "prefect", prefect_port, keep)
    except BaseException:
        stop(store.pid_file)
        raise
    os.environ |= {
        "CARDIOFED_S3_ENDPOINT": store.url,
        "CARDIOFED_S3_ACCESS_KEY": store.access_key,
        "CARDIOFED_S3_SECRET_KEY": store.secret_key,
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "ERROR",
        **prefect_environment(prefect.api_url, root / "prefect"),
    }
    try:
        yield Servers(prefect.ui_url, store.url, root / "store")
    finally:
        _send_last_words()
        if not keep:
            stop(prefect.pid_file)
            stop(store.pid_file)


def _send_last_words() -> None:
    """Hand Prefect the logs and events that still wait, before its server goes."""
    if "prefect" not in sys.modules:
        return
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all(timeout=_DRAIN_S)
    EventsWorker.drain_all(timeout=_DRAIN_S)
