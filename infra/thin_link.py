"""A thin and unreliable link: a relay on this machine in front of a store, as slow and as broken as wanted."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit

from infra.ports import HOST
from tasks.settings import Environment

Way = Literal["up", "down"]

_PACKET_BYTES, _UNPACED_BYTES = 1448, 1 << 16
_BUFFER_BYTES = 1 << 14  # larger ones would swallow what the link has not carried
_AS_ON_A_NETWORK = (  # with a loopback's packets of 64 KiB the sender's system would take megabytes at once
    (socket.IPPROTO_TCP, socket.TCP_MAXSEG, _PACKET_BYTES),
    (socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES),
)
_IN_FLIGHT = 256  # pieces per connection and way
_BURST_S = 0.01  # a timer that fires late by less costs no capacity
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER for no time: the other end gets an RST


@dataclass(frozen=True)
class LinkSpec:
    """How a link behaves.

    Attributes:
        up_bps: bits per second from the site to the store; None for as fast as it goes.
        down_bps: the other way.
        delay_s: one way; a connection takes a round trip before it carries anything.
        reset_bytes: a connection breaks after a random number of bytes, both ways together, exponential with this
            mean; None for never.
        seed: of these numbers, drawn in the order in which connections arrive.
    """

    up_bps: float | None = None
    down_bps: float | None = None
    delay_s: float = 0.0
    reset_bytes: float | None = None
    seed: int = 1


THIN = LinkSpec(up_bps=256e3, down_bps=256e3, delay_s=0.15)
USUAL = LinkSpec(up_bps=10e6, down_bps=10e6, delay_s=0.015)


class ThinLink:
    """A running link, ended by leaving its ``with`` block; safe to use from any thread.

    All connections share the bandwidth. Every byte that takes it up is counted: headers, what is sent twice, and
    what a break loses on its way.

    Args:
        target: URL of the store.
        spec: how the link behaves.

    Attributes:
        url: of the store over this link. Requests are signed for this address; TLS passes as it is.
        up_bytes: carried to the store so far.
        down_bytes: carried to the site so far.
        connections: made so far.
        resets: connections that were broken so far.
    """

    def __init__(self, target: str, spec: LinkSpec) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname or HOST, parts.port or (443 if parts.scheme == "https" else 80))
        self._spec = spec
        self._draw = random.Random(spec.seed)
        self._bps: dict[Way, float | None] = {"up": spec.up_bps, "down": spec.down_bps}
        self._free_at: dict[Way, float] = {"up": 0.0, "down": 0.0}
        self._open: set[asyncio.Task[None]] = set()
        self.up_bytes = self.down_bytes = self.connections = self.resets = 0
        self._listening = socket.create_server((HOST, 0))
        for level, option, value in _AS_ON_A_NETWORK:
            self._listening.setsockopt(level, option, value)
        self.url = f"{parts.scheme}://{HOST}:{self._listening.getsockname()[1]}"
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="thin link", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    def environment(self, env: Environment) -> Environment:
        """Settings of a client that reaches the store of ``env`` over this link."""
        return env.model_copy(update={"s3_endpoint": self.url})

    def carried(self) -> tuple[int, int]:
        """Bytes so far, to the store and to the site."""
        return self.up_bytes, self.down_bytes

    def reset(self) -> None:
        """Break every open connection now."""
        asyncio.run_coroutine_threadsafe(self._reset(), self._loop).result()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._accept, sock=self._listening, limit=_BUFFER_BYTES)
        await self._over.wait()
        server.close()
        await self._reset()

    async def _reset(self) -> None:
        broken = list(self._open)
        for task in broken:
            task.cancel()
        await asyncio.gather(*broken, return_exceptions=True)

    async def _accept(self, site: asyncio.StreamReader, to_site: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._relay(site, to_site))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _relay(self, site: asyncio.StreamReader, to_site: asyncio.StreamWriter) -> None:
        """One connection, until both ends have closed it or it breaks."""
        self.connections += 1
        mean = self._spec.reset_bytes
        fate = _Fate(self._draw.expovariate(1 / mean) if mean else None)
        ends = [to_site]
        try:
            await asyncio.sleep(2 * self._spec.delay_s)
            store, to_store = await asyncio.open_connection(*self._target, limit=_BUFFER_BYTES)
            ends.append(to_store)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry("up", site, to_store, fate))
                both.create_task(self._carry("down", store, to_site, fate))
        except (asyncio.CancelledError, OSError):
            self._break(ends)
        except BaseExceptionGroup as faults:
            self._break(ends)
            if (ours := faults.split(OSError)[1]) is not None:
                raise ours from None
        finally:
            for end in ends:
                end.close()

    def _break(self, ends: list[asyncio.StreamWriter]) -> None:
        self.resets += 1
        for end in ends:
            end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
            end.transport.abort()

    async def _carry(
        self, way: Way, source: asyncio.StreamReader, sink: asyncio.StreamWriter, fate: _Fate
    ) -> None:
        """One way of one connection: bytes leave at the link's rate and arrive after its delay."""
        flight: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_IN_FLIGHT)
        async with asyncio.TaskGroup() as both:
            both.create_task(self._deliver(flight, sink, fate))
            piece = _PACKET_BYTES if self._bps[way] else _UNPACED_BYTES
            while not fate.broken and (data := await source.read(piece)):
                passed = fate.spare(data)
                await self._transmit(way, len(passed))
                await flight.put((self._loop.time() + self._spec.delay_s, passed))
            await flight.put((self._loop.time() + self._spec.delay_s, b""))

    async def _transmit(self, way: Way, count: int) -> None:
        """Wait for the link's turn and for as long as it takes."""
        bps, now = self._bps[way], self._loop.time()
        if bps:
            self._free_at[way] = max(now - _BURST_S, self._free_at[way]) + 8 * count / bps
            await asyncio.sleep(self._free_at[way] - now)
        if way == "up":
            self.up_bytes += count
        else:
            self.down_bytes += count

    async def _deliver(
        self, flight: asyncio.Queue[tuple[float, bytes]], sink: asyncio.StreamWriter, fate: _Fate
    ) -> None:
        """Hand over what has arrived; the end of a connection, or its break, comes after what was sent before."""
        sink.transport.set_write_buffer_limits(0)
        while True:
            arrival, data = await flight.get()
            await asyncio.sleep(arrival - self._loop.time())
            if not data:
                break
            sink.write(data)
            await sink.drain()
        if fate.broken:
            raise ConnectionResetError("the link broke")
        sink.write_eof()


class _Fate:
    """How many bytes a connection has left, both ways together; None for any number."""

    def __init__(self, left: float | None) -> None:
        self._left = left
        self.broken = False

    def spare(self, data: bytes) -> bytes:
        """The part that still passes; the connection is broken behind it if that is not all."""
        if self._left is None:
            return data
        passed = data[: int(self._left)]
        self._left -= len(passed)
        self.broken = len(passed) < len(data)
        return passed
