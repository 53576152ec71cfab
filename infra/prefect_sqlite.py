"""Prefect's server on SQLite, for many workers: one connection, and no limit on those who only listen.

Two of Prefect's choices for SQLite do not hold 16 workers. It opens up to 15 connections, of which a writer fails with
"database is locked" as soon as another one wrote since it began to read; one connection, for which they queue, cannot
be locked out. And it answers at most 100 requests at once but counts the web sockets that every worker and run keeps
open (six of each worker and its run), so that 16 of them leave no room for a request; here sockets are not counted.

Source: https://www.sqlite.org/lang_transaction.html (SQLITE_BUSY_SNAPSHOT);
https://docs.sqlalchemy.org/en/20/core/connections.html#sqlalchemy.engine.CreateEnginePlugin;
``RequestLimitMiddleware`` in ``prefect.server.api.server``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import URL
from sqlalchemy.engine import CreateEnginePlugin
from sqlalchemy.pool import Pool

_QUEUE_S = 120.0


def sqlite_url(path: Path) -> str:
    """The database of a Prefect server.

    Args:
        path: of its file.

    Returns:
        Where SQLAlchemy finds it, by one connection.
    """
    return f"sqlite+aiosqlite:///{path}?plugin=cardiofed"


class OneConnection(CreateEnginePlugin):
    """Registered as ``cardiofed`` in ``pyproject.toml``."""

    def update_url(self, url: URL) -> URL:
        """Nothing in the address is for this plugin but its name, which SQLAlchemy takes out."""
        return url

    def handle_pool_kwargs(self, pool_cls: type[Pool], pool_args: dict[str, Any]) -> None:
        """In place of SQLAlchemy's 5 and 10 more."""
        pool_args |= {"pool_size": 1, "max_overflow": 0, "timeout": _QUEUE_S}


def main() -> None:
    """Be Prefect's command line."""
    from prefect.cli import app

    _count_requests_only()
    app()


def create_app() -> Any:
    """Prefect's server, for uvicorn."""
    from prefect.server.api import server

    _count_requests_only()
    return server.create_app()


def _count_requests_only() -> None:
    from prefect.server.api.server import RequestLimitMiddleware as Limit

    limited = Limit.__call__

    async def call(self: Limit, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await self.app(scope, receive, send)
        else:
            await limited(self, scope, receive, send)

    Limit.__call__ = call  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
