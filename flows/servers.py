"""The servers of a run on one machine: up while the work lasts, down after it, or kept on request."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.prefect_server import prefect_environment, start_prefect
from infra.process import PID_FILE, recorded, stop
from infra.s3_server import start_s3
from tasks.settings import load_environment
from tasks.store import Store

_DRAIN_S = 10.0


@dataclass(frozen=True)
class Servers:
    """Addresses for people."""

    ui_url: str
    store_url: str


@contextmanager
def servers(
    root: Path, s3_port: int | None = None, prefect_port: int | None = None, keep: bool = False
) -> Iterator[Servers]:
    """Start the store and Prefect inside the run's folder and point this process at them.

    A store that the environment already names (``CARDIOFED_S3_ENDPOINT``) is used as it is.

    Args:
        root: the run's folder.
        s3_port: of the store; None for a free one.
        prefect_port: of Prefect; None for a free one.
        keep: leave both running at the end; ``cardiofed down`` ends them.

    Yields:
        Addresses of Prefect's pages and of the store, once both answer.

    Raises:
        ServerError: a port is taken, or a server does not start.
        StoreError: the store that the environment names does not answer or refuses us.
    """
    _never_by_proxy()
    with ExitStack() as ends:
        _use_store(ends, root / "store", s3_port, keep)
        environment = load_environment()
        Store(environment).ensure_bucket()
        prefect = start_prefect(root / "prefect", prefect_port, keep)
        _end(ends, prefect.pid_file, keep)
        os.environ |= {
            "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "ERROR",
            **prefect_environment(prefect.api_url, root / "prefect"),
        }
        ends.callback(_send_last_words)
        yield Servers(prefect.ui_url, environment.s3_endpoint)


@contextmanager
def store_alone(root: Path) -> Iterator[None]:
    """Have only the store of a run's folder answering; one that was left running stays so.

    Args:
        root: the run's folder.

    Yields:
        Nothing; this process speaks to that store, or to the one that the environment already names.
    """
    _never_by_proxy()
    with ExitStack() as ends:
        _use_store(ends, root / "store", None, keep=recorded(root / "store" / PID_FILE) is not None)
        yield


def _use_store(ends: ExitStack, folder: Path, port: int | None, keep: bool) -> None:
    """Point this process at the store of ``folder``, unless the environment names one."""
    if "CARDIOFED_S3_ENDPOINT" in os.environ:
        return
    store = start_s3(folder, port, keep)
    _end(ends, store.pid_file, keep)
    os.environ |= {
        "CARDIOFED_S3_ENDPOINT": store.url,
        "CARDIOFED_S3_ACCESS_KEY": store.access_key,
        "CARDIOFED_S3_SECRET_KEY": store.secret_key,
    }
    ends.callback(os.environ.pop, "CARDIOFED_S3_ENDPOINT")


def _never_by_proxy() -> None:
    """Loopback is not reached through a hospital's proxy."""
    for name in ("NO_PROXY", "no_proxy"):
        listed = os.environ.get(name, "").split(",")
        os.environ[name] = ",".join(dict.fromkeys([*filter(None, listed), "127.0.0.1", "localhost"]))


def _end(ends: ExitStack, pid_file: Path, keep: bool) -> None:
    if not keep:
        ends.callback(stop, pid_file)


def _send_last_words() -> None:
    """Hand Prefect the logs and events that still wait, before its server goes."""
    if "prefect" not in sys.modules:
        return
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all(timeout=_DRAIN_S)
    EventsWorker.drain_all(timeout=_DRAIN_S)
