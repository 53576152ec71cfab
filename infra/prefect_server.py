"""The embedded Prefect server: scheduler, API and pages on loopback, its database inside one folder."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from infra.ports import HOST
from infra.prefect_sqlite import sqlite_url
from infra.process import PID_FILE, Service, child_environment, serve

_PATIENCE_S = 120.0


@dataclass(frozen=True)
class PrefectServer:
    """A running Prefect server."""

    api_url: str
    ui_url: str
    pid: int
    pid_file: Path


def start_prefect(
    folder: Path, port: int | None = None, keep: bool = False, database_url: str | None = None
) -> PrefectServer:
    """Have the Prefect server of ``folder`` running and healthy; takes about 15 s.

    Args:
        folder: holds its home, its SQLite database, its pages and its log; made when missing.
        port: the wanted one; None for a free one that the folder remembers.
        keep: whether the server outlives this process; ``stop`` its pid file then.
        database_url: as SQLAlchemy writes it, such as ``postgresql+asyncpg://…``; None for SQLite in the folder.

    Returns:
        Addresses of the API and the pages, and the process.

    Raises:
        ServerError: port taken or not healthy within 120 s; with the end of the log.
    """
    folder = folder.absolute()
    service = Service(
        name="Prefect",
        command=_command,
        environment=lambda at: child_environment(folder, _settings(folder, at, database_url)),
        answers=_healthy,
        patience_s=_PATIENCE_S,
    )
    child, at = serve(service, folder, port, keep)
    return PrefectServer(f"http://{HOST}:{at}/api", f"http://{HOST}:{at}", child.pid, folder / PID_FILE)


def prefect_environment(api_url: str, folder: Path) -> dict[str, str]:
    """Have a process speak to this server and leave the user's own Prefect alone.

    Args:
        api_url: of the server.
        folder: where Prefect may write; the server's own folder or another one.

    Returns:
        Variables to add to that process's environment.
    """
    home = folder.absolute() / "home" / ".prefect"
    return {
        "DO_NOT_TRACK": "1",
        "PREFECT_API_URL": api_url,
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        "PREFECT_LOCAL_STORAGE_PATH": str(home / "storage"),
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }


def _settings(folder: Path, port: int, database_url: str | None) -> dict[str, str]:
    home = folder / "home" / ".prefect"
    return {
        "DO_NOT_TRACK": "1",
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database_url or sqlite_url(home / "prefect.db"),
        "PREFECT_SERVER_UI_API_URL": f"http://{HOST}:{port}/api",  # else the pages look on port 4200
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(folder / "pages"),
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        "PREFECT_LOGGING_LEVEL": "WARNING",
    }


def _command(port: int) -> list[str]:
    return [
        sys.executable,
        "-m",
        "infra.prefect_sqlite",
        "server",
        "start",
        "--host",
        HOST,
        "--port",
        str(port),
    ]


def _healthy(port: int) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback never goes by a proxy
    try:
        with opener.open(f"http://{HOST}:{port}/api/health", timeout=5) as answer:
            return json.load(answer) is True
    except (urllib.error.URLError, OSError, ValueError):
        return False
