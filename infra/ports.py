"""Which port a server listens on: the one asked for, or a free one that its folder remembers."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path

from model.errors import ServerError
from tasks.files import write_atomic

HOST = "127.0.0.1"
_FIRST, _COUNT = 20_000, 10_000  # below the range from which systems take ports for outgoing connections


def choose_port(folder: Path, wanted: int | None) -> int:
    """Choose the port for the server of ``folder``; remembered there, so that a restart gets the same one.

    Args:
        folder: the server's own.
        wanted: the user's choice; None leaves it to us.

    Returns:
        The wanted port, else the remembered one if it is free, else any free one.

    Raises:
        ServerError: the wanted port is taken or no port at all.
    """
    if wanted is not None and not 1 <= wanted <= 65535:
        raise ServerError(f"{wanted} is no port", str(folder), "choose one from 1024 to 65535")
    if wanted is not None and not is_free(wanted):
        raise _taken(wanted)
    port = wanted or _remembered_if_free(folder) or _any_free()
    write_atomic(folder / "port", f"{port}\n".encode())
    return port


def remembered_port(folder: Path) -> int | None:
    """The port this folder's server had last; None when it never ran."""
    try:
        return int((folder / "port").read_text())
    except (FileNotFoundError, ValueError):
        return None


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback interface now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections do not count
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _remembered_if_free(folder: Path) -> int | None:
    port = remembered_port(folder)
    return port if port is not None and 0 < port <= 65535 and is_free(port) else None


def _any_free() -> int:
    for _ in range(200):
        port = _FIRST + secrets.randbelow(_COUNT)
        if is_free(port):
            return port
    raise ServerError("200 ports tried, none was free", HOST, "name a free port yourself")


def _taken(port: int) -> ServerError:
    mend = f"choose another port, or end what listens there (ss -ltnp 'sport = :{port}' names it)"
    return ServerError(f"port {port} is taken or not allowed", f"{HOST}:{port}", mend)
