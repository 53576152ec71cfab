"""Doubts about a segmentation: each check against answers derived by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from model.errors import PhaseError
from model.labels import LV, MYO, RV
from model.plausibility import (
    components,
    confidence,
    confidence_flags,
    curve_flags,
    disagreement_flags,
    edge_flags,
    ef_flags,
    holes_px,
    open_share,
    shape_flags,
)
from model.volume_curve import find_phases, jumps

CYCLE = [100.0, 95, 80, 60, 45, 40, 48, 65, 80, 85, 90, 97]


def heart() -> np.ndarray:
    """3 slices of 12 × 12: a cavity of 4 × 4 in a wall one pixel thick, an RV of 2 × 4 beside it."""
    mask = np.zeros((3, 12, 12), np.uint8)
    mask[:, 3:9, 3:9] = MYO
    mask[:, 4:8, 4:8] = LV
    mask[:, 4:8, 1:3] = RV
    return mask


def names(flags) -> set[tuple[str, str]]:
    return {(flag.name, flag.structure) for flag in flags}


def test_a_whole_heart_raises_no_doubt() -> None:
    assert shape_flags(heart(), "ED") == []


def test_holes_are_counted_within_slices() -> None:
    mask = heart()
    mask[1, 5, 5] = 0
    mask[2, 5, 5:7] = MYO
    assert holes_px(mask == LV) == 3
    assert holes_px((mask == LV) | (mask == MYO)) == 1
    assert names(shape_flags(mask, "ED")) >= {("holes", "LV"), ("holes", "MYO")}


def test_a_piece_that_touches_nowhere_is_a_second_component() -> None:
    mask = heart()
    mask[:, 10, 10] = RV
    assert components(mask == RV) == (2, pytest.approx(3 / 27))
    assert names(shape_flags(mask, "ES")) == {("components", "RV")}


def test_pieces_that_touch_by_a_corner_are_one() -> None:
    part = np.zeros((2, 4, 4), bool)
    part[0, 1, 1] = part[1, 2, 2] = True
    assert components(part) == (1, 0.0)
    assert components(np.zeros((2, 4, 4), bool)) == (0, 0.0)


def test_a_cavity_without_wall_on_one_side_is_open_by_a_quarter() -> None:
    mask = heart()
    mask[:, 3, 3:9] = 0  # of 16 pixels around the cavity 4 lie above it
    assert open_share(mask) == pytest.approx(0.25)
    assert ("lv_not_enclosed", "LV") in names(shape_flags(mask, "ED"))
    assert open_share(heart()) == 0
    assert open_share(np.zeros((1, 4, 4), np.uint8)) == 0


def test_the_wall_is_looked_for_within_slices_not_above() -> None:
    mask = heart()
    mask[0] = 0
    assert open_share(mask) == 0


def test_what_is_not_there_is_said() -> None:
    mask = heart()
    mask[mask == RV] = 0
    assert names(shape_flags(mask, "ED")) == {("absent", "RV")}


def test_a_heart_at_the_crops_edge_is_said() -> None:
    assert edge_flags(heart(), "ED") == []
    touching = np.roll(heart(), -1, axis=2)
    assert [flag.said for flag in edge_flags(touching, "ED")] == [
        "the heart touches the edge of the crop at 12 pixels"
    ]


def test_only_the_failed_phase_is_a_jump() -> None:
    assert curve_flags(CYCLE) == []
    failed = [*CYCLE]
    failed[3] = 15.0
    assert [flag.phase for flag in curve_flags(failed)] == ["3"]
    assert curve_flags([100.0, 40, 100, 40]) == [], "four phases are too coarse to judge"
    assert jumps([1.0, 0.5]) == [] and jumps([0.0] * 12) == []


@pytest.mark.parametrize(
    ("ef", "doubt"), [(60, False), (9.9, True), (85.1, True), (-5, True), (math.nan, True)]
)
def test_ejection_fractions_out_of_range_are_said(ef: float, doubt: bool) -> None:
    assert bool(ef_flags({"LV": ef})) is doubt


def test_models_that_disagree_are_said_by_structure() -> None:
    other = heart()
    other[:, 4:8, 1:3] = 0
    other[:, 4:8, 0:2] = RV  # half of it: Dice 0.5
    flags = disagreement_flags(heart(), other, "ED", ("global", "personal"))
    assert names(flags) == {("models_disagree", "RV")} and "Dice 0.50" in flags[0].said
    assert disagreement_flags(heart(), heart(), "ED", ("a", "b")) == []
    nothing = np.zeros_like(heart())
    assert disagreement_flags(nothing, nothing, "ED", ("a", "b")) == []


def test_confidence_is_the_mean_probability_inside_a_structure() -> None:
    probabilities = np.zeros((1, 4, 1, 3))
    probabilities[0, :, 0, 0] = [0.1, 0.0, 0.0, 0.9]
    probabilities[0, :, 0, 1] = [0.3, 0.0, 0.0, 0.7]
    probabilities[0, :, 0, 2] = [0.0, 0.6, 0.4, 0.0]
    sure = confidence(probabilities)
    assert sure["LV"] == pytest.approx(0.8) and sure["RV"] == pytest.approx(0.6) and math.isnan(sure["MYO"])
    assert names(confidence_flags(sure, "ED")) == {("low_confidence", "LV"), ("low_confidence", "RV")}


def test_ed_is_the_largest_and_es_the_smallest_volume() -> None:
    assert find_phases([80, 120, 50]) == (1, 2)
    assert find_phases(CYCLE) == (0, 5)


def test_one_failed_phase_is_neither_ed_nor_es() -> None:
    curve = [*CYCLE]
    curve[2], curve[8] = 0.0, 400.0
    assert find_phases(curve) == (0, 5)


def test_the_cycle_has_no_end() -> None:
    for shift in range(len(CYCLE)):
        assert find_phases(list(np.roll(CYCLE, shift))) == (shift, (shift + 5) % 12)


@pytest.mark.parametrize("curve", [[], [100.0], [0.0, 0.0, 0.0], [70.0] * 12])
def test_a_curve_without_beat_has_no_phases(curve: list[float]) -> None:
    with pytest.raises(PhaseError):
        find_phases(curve)
