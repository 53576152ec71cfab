"""The embedded Prefect server: scheduler, API and pages on loopback, its database inside one folder."""

from __future__ import annotations

import json
import ssl
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from infra.ports import HOST
from infra.prefect_sqlite import sqlite_url
from infra.process import PID_FILE, Service, child_environment, serve, stop
from infra.tls import Certificate, presents
from tasks.files import write_atomic
from tasks.trusted_ca import CA_FILE, trusted_for_prefect

DATABASE_FILE = "database-url"
_PATIENCE_S = 300.0


@dataclass(frozen=True)
class PrefectServer:
    """A running Prefect server."""

    api_url: str
    ui_url: str
    pid: int
    pid_file: Path


def start_prefect(
    folder: Path,
    port: int | None = None,
    keep: bool = False,
    database_url: str | None = None,
    tls: Certificate | None = None,
) -> PrefectServer:
    """Have the Prefect server of ``folder`` running and healthy; takes about 15 s.

    Args:
        folder: holds its home, its SQLite database, its pages and its log; made when missing.
        port: the wanted one; None for a free one that the folder remembers.
        keep: whether the server outlives this process; ``stop`` its pid file then.
        database_url: as SQLAlchemy writes it, such as ``postgresql+asyncpg://…``, empty for SQLite in the folder;
            None for the one before, first SQLite. A server that runs on another one ends.
        tls: its certificate; None for plain http.

    Returns:
        Addresses of the API and the pages, and the process.

    Raises:
        ServerError: port taken or not healthy within 300 s; with the end of the log.
    """
    folder = folder.absolute()
    known = _known_database(folder)
    wanted = known if database_url is None else database_url
    if wanted != known:
        stop(folder / PID_FILE)
    database = wanted or sqlite_url(folder / "home" / ".prefect" / "prefect.db")
    service = Service(
        name="Prefect",
        command=lambda at: _command(at, tls),
        environment=lambda at: child_environment(folder, _settings(folder, _url(at, tls), database)),
        answers=lambda at: _healthy(at, tls),
        patience_s=_PATIENCE_S,
    )
    child, at = serve(service, folder, port, keep)
    if wanted != known:
        write_atomic(folder / DATABASE_FILE, wanted.encode(), mode=0o600)  # a password may stand in it
    url = _url(at, tls)
    return PrefectServer(f"{url}/api", url, child.pid, folder / PID_FILE)


def prefect_environment(api_url: str, folder: Path) -> dict[str, str]:
    """Have a process speak to this server and leave the user's own Prefect alone.

    Args:
        api_url: of the server.
        folder: where Prefect may write; the server's own folder or another one. A CA beside it is trusted.

    Returns:
        Variables to add to that process's environment.
    """
    home = folder.absolute() / "home" / ".prefect"
    beside = folder.absolute().parent / CA_FILE
    ca_file = str(beside) if beside.exists() else trusted_for_prefect()
    return {
        **({"PREFECT_API_SSL_CERT_FILE": ca_file} if ca_file else {}),
        "DO_NOT_TRACK": "1",
        "PREFECT_API_URL": api_url,
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        "PREFECT_LOCAL_STORAGE_PATH": str(home / "storage"),
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }


def _known_database(folder: Path) -> str:
    """The database that the folder remembers, as it does the port; empty for SQLite."""
    file = folder / DATABASE_FILE
    return file.read_text() if file.exists() else ""


def _settings(folder: Path, url: str, database: str) -> dict[str, str]:
    home = folder / "home" / ".prefect"
    return {
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database,
        "PREFECT_SERVER_UI_API_URL": f"{url}/api",  # else the pages look on port 4200
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(folder / "pages"),
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        "PREFECT_LOGGING_LEVEL": "WARNING",
    }


def _url(port: int, tls: Certificate | None) -> str:
    return f"{'https' if tls else 'http'}://{HOST}:{port}"


def _command(port: int, tls: Certificate | None) -> list[str]:
    if tls is None:
        at = ("--host", HOST, "--port", str(port))
        return [sys.executable, "-m", "infra.prefect_sqlite", "server", "start", *at]
    return [  # `prefect server start` knows no certificates; this is what it runs in the background
        *(sys.executable, "-m", "uvicorn", "--factory", "infra.prefect_sqlite:create_app"),
        *("--host", HOST, "--port", str(port), "--timeout-keep-alive", "5", "--log-level", "warning"),
        *("--ssl-certfile", str(tls.certificate), "--ssl-keyfile", str(tls.key)),
    ]


def _healthy(port: int, tls: Certificate | None) -> bool:
    if tls is not None and not presents(port, tls):
        return False
    no_proxy = urllib.request.ProxyHandler({})  # loopback never goes by a proxy
    trust = ssl.create_default_context(cafile=str(tls.ca) if tls else None)
    opener = urllib.request.build_opener(no_proxy, urllib.request.HTTPSHandler(context=trust))
    try:
        with opener.open(f"{_url(port, tls)}/api/health", timeout=5) as answer:
            return json.load(answer) is True
    except (urllib.error.URLError, OSError, ValueError):
        return False
