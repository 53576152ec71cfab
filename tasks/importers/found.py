"""What an importer hands over: patients by their own names, each read when its turn comes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from tasks.cases import ALL_LABELS

NOT_SAID = "unknown"
"""Vendor, centre or group of a patient where the archive tells none."""


@dataclass(frozen=True)
class Scan:
    """One cardiac phase.

    Attributes:
        image: ``(X, Y, Z)`` real values along the archive's own axes.
        mask: ``(X, Y, Z)`` in the federation's label order; 255 where nobody annotated.
        affine: ``(4, 4)`` from (x, y, z) indices to RAS+ mm, oblique as acquired.
        labels: structures that were annotated in this phase.
    """

    image: NDArray[Any]
    mask: NDArray[Any]
    affine: NDArray[Any]
    labels: frozenset[int] = ALL_LABELS


@dataclass(frozen=True)
class Study:
    """One patient's ED and ES.

    Attributes:
        group, vendor, centre: as the archive says them.
        scans: by phase, ``ED`` and ``ES``.
        risks: what may identify the patient in the pixels or was hidden in the files, in words without values.
    """

    group: str
    vendor: str
    centre: str
    scans: Mapping[str, Scan]
    risks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """One patient in an archive.

    Attributes:
        name: the archive's own; it goes into the keyed hash and the site's map, nowhere else.
        where: folder or file, for errors and the site's map.
        read: reads the patient; raises a ``DataError`` of its fault.
    """

    name: str
    where: Path
    read: Callable[[], Study]


Importer = Callable[[Path], list[Found]]
"""Finds the patients of one kind of archive below a folder."""
