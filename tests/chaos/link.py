"""A machine's line to the store: a relay that can strike at a chosen byte of a chosen request."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

HOST = "127.0.0.1"
_PIECE = 1 << 16

Strike = Callable[[bytes], bytes | None]
"""Given what is left of a request's body: what goes to the store instead; None breaks the connection."""


@dataclass
class Trap:
    """One strike, on the first request that matches.

    Attributes:
        request: pattern of the request line, such as ``PUT /\\S+/adapter.safetensors``.
        at: share of the body that has gone to the store when it strikes.
        strike: what is done then.
        ready: asked of a request that matches; False lets it pass.
        sprung: set afterwards.
    """

    request: re.Pattern[str]
    at: float
    strike: Strike
    ready: Callable[[], bool] = lambda: True
    sprung: threading.Event = field(default_factory=threading.Event)


class Link:
    """Everything that one machine and the store say to each other goes through here.

    Args:
        store_port: where the store listens.
    """

    def __init__(self, store_port: int) -> None:
        self._store_port, self._traps, self._lock = store_port, list[Trap](), threading.Lock()
        self._server = socket.create_server((HOST, 0))
        threading.Thread(target=self._accept, name="link", daemon=True).start()

    @property
    def url(self) -> str:
        """The store, as the machine sees it."""
        return f"http://{HOST}:{self._server.getsockname()[1]}"

    def set_trap(
        self, request: str, at: float, strike: Strike, ready: Callable[[], bool] = lambda: True
    ) -> Trap:
        """Strike once, on the first request that matches from now on."""
        trap = Trap(re.compile(request), at, strike, ready)
        with self._lock:
            self._traps.append(trap)
        return trap

    def clear(self) -> None:
        """Take all traps away."""
        with self._lock:
            self._traps.clear()

    def close(self) -> None:
        """Take no new connections."""
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with (
            client,
            contextlib.suppress(OSError),
            socket.create_connection((HOST, self._store_port)) as store,
        ):
            threading.Thread(target=_copy, args=(store, client), daemon=True).start()
            with client.makefile("rb") as asked:
                while self._pass_on(asked, store):
                    pass
            _hang_up(store)

    def _pass_on(self, asked: BinaryIO, store: socket.socket) -> bool:
        """One request; False at the end of the connection."""
        head = _read_head(asked)
        if head is None:
            return False
        store.sendall(head)
        length, trap = _body_bytes(head), self._taken(head.split(b"\r\n", 1)[0].decode())
        first = length if trap is None else int(trap.at * length)
        _forward(asked, store, first)
        if trap is None:
            return True
        rest = trap.strike(asked.read(length - first))
        trap.sprung.set()
        if rest is not None:
            store.sendall(rest)
        return rest is not None

    def _taken(self, line: str) -> Trap | None:
        with self._lock:
            for trap in self._traps:
                if trap.request.match(line) and trap.ready():
                    self._traps.remove(trap)
                    return trap
        return None


def _read_head(asked: BinaryIO) -> bytes | None:
    lines = [asked.readline()]
    while lines[-1] not in (b"\r\n", b""):
        lines.append(asked.readline())
    return b"".join(lines) if lines[-1] else None


def _body_bytes(head: bytes) -> int:
    found = re.search(rb"(?im)^content-length: *(\d+)", head)
    return int(found.group(1)) if found else 0


def _forward(asked: BinaryIO, store: socket.socket, count: int) -> None:
    while count > 0 and (piece := asked.read(min(count, _PIECE))):
        store.sendall(piece)
        count -= len(piece)


def _copy(store: socket.socket, client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := store.recv(_PIECE):
            client.sendall(piece)
    _hang_up(client)


def _hang_up(line: socket.socket) -> None:
    with contextlib.suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)
