"""Sunnybrook Cardiac Data: a DICOM cine with contours as text, endocardium at ED and ES, epicardium at ED.

``IM-0001-0159-icontour-manual.txt`` belongs to ``159.dcm``: a line per point, column and row in pixels.

Source: Radau et al., MIDAS Journal 2009. Points are read as positions where the first pixel's centre is 0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.path import Path as Outline
from numpy.typing import NDArray

from model.errors import GeometryError, LabelError, PairError, PhaseError, UnreadableError
from model.labels import LV, MYO
from tasks.dicom.cine import Cine, read_cine

NAME = re.compile(r"IM-\d+-0*(\d+)-([io])contour-manual\.txt", re.IGNORECASE)
FIX = "get the contours again from the data set's publisher"


@dataclass(frozen=True)
class Sunnybrook:
    """One patient. There is no RV anywhere, and no MYO at ES: those voxels are 0 and mean nothing.

    Attributes:
        ed, es: index along T.
        ed_mask, es_mask: ``(Z, Y, X)`` uint8.
        ed_slices, es_slices: ``(Z,)`` True where a reader has drawn all that the phase's labels promise.
        ed_labels, es_labels: the labels that were drawn.
    """

    cine: Cine
    ed: int
    es: int
    ed_mask: NDArray[np.uint8]
    es_mask: NDArray[np.uint8]
    ed_slices: NDArray[np.bool_]
    es_slices: NDArray[np.bool_]
    ed_labels: frozenset[int] = frozenset({LV, MYO})
    es_labels: frozenset[int] = frozenset({LV})


def read_sunnybrook(images: Path, contours: Path) -> Sunnybrook:
    """Read one patient's cine and its contours; ED is the phase with epicardial ones.

    Args:
        images: folder of the DICOM files.
        contours: folder of the text files.

    Returns:
        The cine, its two phases and their masks.

    Raises:
        PairError: a contour without image, or an epicardium without endocardium.
        PhaseError: ED or ES is missing or not one phase.
        LabelError: an endocardium outside its epicardium.
        GeometryError: a contour outside the image or with fewer than three points.
        UnreadableError: no contours, or one that is not lines of two numbers.
    """
    cine = read_cine(images)
    place = {file.stem: (t, z) for t, row in enumerate(cine.files) for z, file in enumerate(row)}
    drawn: dict[str, dict[tuple[int, int], NDArray[np.bool_]]] = {"i": {}, "o": {}}
    for path in sorted(contours.rglob("*.txt")):
        if match := NAME.fullmatch(path.name):
            if match[1] not in place:
                raise PairError(f"no image {match[1]}.dcm in the cine", str(path), "check the folders' pair")
            shape = cine.values.shape[2], cine.values.shape[3]
            drawn[match[2].lower()][place[match[1]]] = fill(read_contour(path), shape, path)
    if not drawn["i"]:
        raise UnreadableError("no contours found", str(contours), FIX)
    ed = _one({t for t, _ in drawn["o"]}, "ED", contours)
    es = _one({t for t, _ in drawn["i"]} - {ed}, "ES", contours)
    if lonely := sorted(set(drawn["o"]) - set(drawn["i"])):
        raise PairError(f"epicardium without endocardium in slice {lonely[0][1]}", str(contours), FIX)
    inner, outer = drawn["i"], drawn["o"]
    depth = range(cine.values.shape[1])  # at ED a slice counts with both contours, outer implies inner
    marks = {t: np.array([(t, z) in drawn for z in depth]) for t, drawn in ((ed, outer), (es, inner))}
    ed_mask, es_mask = (_mask(t, cine, inner, outer, contours) for t in (ed, es))
    return Sunnybrook(cine, ed, es, ed_mask, es_mask, marks[ed], marks[es])


def read_contour(path: Path) -> NDArray[np.float64]:
    """Read ``(N, 2)`` points, column and row."""
    try:
        lines = path.read_text("ascii").splitlines()
        points = np.array([[float(word) for word in line.split()] for line in lines if line.strip()])
    except (OSError, ValueError) as error:
        raise UnreadableError(f"not lines of two numbers: {error}", str(path), FIX) from error
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3 or not np.isfinite(points).all():
        raise GeometryError("a contour needs three or more points of two finite numbers", str(path), FIX)
    return points


def fill(points: NDArray[np.float64], shape: tuple[int, int], path: Path) -> NDArray[np.bool_]:
    """Fill a contour: the ``(Y, X)`` pixels whose centres lie inside."""
    if points.min() < -0.5 or (points > np.array(shape[::-1]) - 0.5).any():
        raise GeometryError("a contour leaves its image", str(path), FIX)
    y, x = np.mgrid[: shape[0], : shape[1]]
    inside = Outline(points).contains_points(np.stack([x.ravel(), y.ravel()], 1), radius=1e-9)
    return np.asarray(inside.reshape(shape), bool)


def _mask(
    t: int,
    cine: Cine,
    inner: Mapping[tuple[int, int], NDArray[np.bool_]],
    outer: Mapping[tuple[int, int], NDArray[np.bool_]],
    where: Path,
) -> NDArray[np.uint8]:
    mask = np.zeros(cine.values.shape[1:], np.uint8)
    for z in range(len(mask)):
        if (t, z) in outer:
            if (inner[t, z] & ~outer[t, z]).sum() > 0.05 * inner[t, z].sum():
                raise LabelError(f"endocardium outside epicardium in slice {z}", str(where), FIX)
            mask[z][outer[t, z]] = MYO
        if (t, z) in inner:
            mask[z][inner[t, z]] = LV
    return mask


def _one(phases: set[int], name: str, where: Path) -> int:
    if len(phases) != 1:
        said = f"{name} is drawn in {len(phases)} phases {sorted(phases)}, not one"
        raise PhaseError(said, str(where), FIX)
    return phases.pop()
