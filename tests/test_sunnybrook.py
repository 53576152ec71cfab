"""Sunnybrook: contours as text become masks of what was drawn, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import T, Z, stack
from real_files import REAL, needs_real

from model.errors import DataError, GeometryError, LabelError, PairError, PhaseError, UnreadableError
from model.labels import LV, MYO
from tasks.dicom.sunnybrook import read_sunnybrook


def square(low: float, high: float) -> str:
    return f"{low} {low}\n{high} {low}\n{high} {high}\n{low} {high}\n"


def patient(root: Path) -> tuple[Path, Path]:
    """ED is phase 3, ES phase 1, drawn on slices 1 to 3."""
    images, contours = root / "images", root / "contours"
    images.mkdir()
    contours.mkdir()
    for data in stack().values():
        pydicom.dcmwrite(images / f"{data.InstanceNumber}.dcm", data, enforce_file_format=True)
    for z in (1, 2, 3):
        draw(contours, z * T + 4, "i", square(4.5, 9.5))
        draw(contours, z * T + 4, "o", square(2.5, 11.5))
        draw(contours, z * T + 2, "i", square(5.5, 8.5))
    return images, contours


def draw(contours: Path, number: int, kind: str, text: str) -> None:
    (contours / f"IM-0001-{number:04d}-{kind}contour-manual.txt").write_text(text)


def test_masks_hold_the_pixels_inside_and_only_what_was_drawn(tmp_path: Path) -> None:
    found = read_sunnybrook(*patient(tmp_path))
    assert (found.ed, found.es) == (3, 1)
    assert [int((found.ed_mask[2] == label).sum()) for label in (1, MYO, LV)] == [0, 81 - 25, 25]
    assert [int((found.es_mask[2] == label).sum()) for label in (1, MYO, LV)] == [0, 0, 9]
    assert found.ed_slices.tolist() == [False, True, True, True, False] and len(found.ed_slices) == Z
    assert found.es_labels == {LV} and found.ed_labels == {LV, MYO}


@pytest.mark.parametrize(
    ("number", "kind", "text", "error"),
    [
        (99, "i", square(4, 9), PairError),
        (1, "o", square(2, 9), PhaseError),
        (3, "i", square(4, 9), PhaseError),
        (4, "o", square(2, 9), PairError),
        (8, "o", square(6, 8), LabelError),
        (8, "i", "1 2\n3 4\n", GeometryError),
        (8, "i", square(4, 90), GeometryError),
        (8, "i", "1 2 3\n4 5 6\n7 8 9\n", GeometryError),
        (8, "i", "1 nan\n4 5\n7 8\n", GeometryError),
        (8, "i", "one two\n", UnreadableError),
    ],
    ids=[
        *("no image", "two EDs", "two ESs", "epi without endo", "endo outside epi"),
        *("two points", "outside the image", "three columns", "not finite", "words"),
    ],
)
def test_hostile_contours_are_refused(
    number: int, kind: str, text: str, error: type[DataError], tmp_path: Path
) -> None:
    images, contours = patient(tmp_path)
    draw(contours, number, kind, text)
    with pytest.raises(error):
        read_sunnybrook(images, contours)


@needs_real
def test_real_patient_has_a_smaller_ventricle_at_es() -> None:
    root = REAL / "sunnybrook"
    found = read_sunnybrook(root / "SCD0000101", root / "SCD0000101_contours")
    assert found.cine.values.shape == (20, 12, 256, 256)
    assert np.count_nonzero(found.es_mask == LV) < np.count_nonzero(found.ed_mask == LV)
    assert found.ed_slices.sum() == 9
