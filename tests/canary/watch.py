"""Placed as ``sitecustomize.py`` before every Python process of a federation: no way out, and faults on demand.

It acts while ``armed`` lies beside it. A connection or a look-up that is not of this machine is noted in ``out.log``
and refused; what a pickle names is noted in ``pickle.log``. A read of a site's slices fails while ``fault-SITE`` lies
there: with the class and words in that file.
"""

from __future__ import annotations

import ipaddress
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
_HOSTS = {"", "localhost", "0.0.0.0", "::", "testserver"}
_ADDRESS = {"socket.connect": 1, "socket.sendto": 1, "socket.sendmsg": 1}
_NAME = {"socket.getaddrinfo": 0, "socket.gethostbyname": 0, "socket.gethostbyaddr": 0}
_WATCHED = {*_ADDRESS, *_NAME, "open", "pickle.find_class"}


def is_local(host: object) -> bool:
    """Whether a host is this machine, by name or address."""
    text = host.decode() if isinstance(host, bytes) else str(host or "")
    try:
        return text in _HOSTS or ipaddress.ip_address(text.partition("%")[0]).is_loopback
    except ValueError:
        return False


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """The interpreter tells of everything it is about to do; what this raises is raised in its place."""
    if event not in _WATCHED:  # nearly all
        return
    if event in _ADDRESS and isinstance(address := arguments[_ADDRESS[event]], tuple):
        _refuse(event, address[0])
    elif event in _NAME:
        _refuse(event, arguments[_NAME[event]])
    elif event == "pickle.find_class" and (HERE / "armed").exists():
        _note("pickle.log", f"{arguments[0]}.{arguments[1]}")
    elif event == "open" and isinstance(path := arguments[0], str) and path.endswith(".npz"):
        _fail(path)


def _refuse(event: str, host: object) -> None:
    if not is_local(host) and (HERE / "armed").exists():
        _note("out.log", f"{event} {host!r}")
        raise PermissionError(f"{event} {host!r}")


def _note(log: str, said: str) -> None:
    with (HERE / log).open("a") as file:
        file.write(f"{said} by {' '.join(sys.orig_argv)[:200]}\n")


def _fail(path: str) -> None:
    fault = HERE / f"fault-{Path(path).parent.name}"
    if fault.exists() and (HERE / "armed").exists():
        kind, _, words = fault.read_text().partition("\n")
        raise {"OSError": OSError, "RuntimeError": RuntimeError}[kind](f"{words} {path}")


sys.addaudithook(watch)
