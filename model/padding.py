"""Bytes of one length: what is padded to the same says nothing by its size.

The bytes, then zeros, then how many bytes there were, 8 bytes little-endian.
"""

from __future__ import annotations

from collections.abc import Iterable

from model.errors import PackageError

STEP_BYTES = 4096
_COUNT_BYTES = 8


def common_length(lengths: Iterable[int]) -> int:
    """The shortest multiple of 4 KiB that holds each of several packages with its trailer.

    Args:
        lengths: bytes of each; none makes the length of an empty one.

    Returns:
        Bytes.
    """
    longest = max(lengths, default=0) + _COUNT_BYTES
    return -(-longest // STEP_BYTES) * STEP_BYTES


def pad(data: bytes, length: int) -> bytes:
    """Bytes of exactly this length that :func:`unpad` makes ``data`` of; ``length`` is at least 8 more than its own."""
    return data.ljust(length - _COUNT_BYTES, b"\0") + len(data).to_bytes(_COUNT_BYTES, "little")


def unpad(padded: bytes) -> bytes:
    """The bytes that were padded.

    Args:
        padded: of :func:`pad`.

    Returns:
        As they were before.

    Raises:
        PackageError: a trailer that is cut off, tells another length, or is not of zeros.
    """
    n = int.from_bytes(padded[-_COUNT_BYTES:], "little")
    room = len(padded) - _COUNT_BYTES - n
    if len(padded) < _COUNT_BYTES or room < 0 or padded[n : n + room].count(0) != room:
        raise PackageError(
            "the padding of a package is not understood", mend="ask the hub to publish it again"
        )
    return padded[:n]
