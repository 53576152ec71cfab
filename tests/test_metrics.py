"""Answers derived by hand, and MONAI as an oracle."""

from __future__ import annotations

import warnings
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import GeometryError
from model.labels import LV, MYO, RV
from model.metrics import Distances, Overlap, distances, overlap
from model.volumes import heart_function, volume_ml

EMPTY = np.zeros((6, 20, 20), bool)


def _cube(z: int, y: int, x: int, side: int = 4) -> np.ndarray:
    mask = EMPTY.copy()
    mask[z : z + side, y : y + side, x : x + side] = True
    return mask


def _ball(radius_mm: float, spacing_mm: tuple[float, float, float], reach_mm: float) -> np.ndarray:
    axes = [np.arange(-np.ceil(reach_mm / step), np.ceil(reach_mm / step) + 1) * step for step in spacing_mm]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return np.sqrt(z**2 + y**2 + x**2) <= radius_mm


def test_equal_masks_are_perfect() -> None:
    cube = _cube(1, 5, 5)
    assert overlap(cube, cube) == Overlap(dice=1, voe=0)
    apart = distances(cube, cube, (8.0, 1.5, 1.5))
    assert apart == Distances(0, 0, 0)


def test_a_cube_shifted_by_half_its_side_has_dice_one_half() -> None:
    found = overlap(_cube(1, 5, 5), _cube(1, 5, 7))
    assert found.dice == 0.5
    assert found.voe == pytest.approx(2 / 3)


@pytest.mark.parametrize(("shift", "hd_mm"), [((1, 0, 0), 8.0), ((0, 2, 0), 3.0), ((0, 0, 2), 2.5)])
def test_a_shifted_cube_has_its_shift_in_mm_as_hausdorff_distance(
    shift: tuple[int, int, int], hd_mm: float
) -> None:
    moved = distances(_cube(1, 5, 5), _cube(1 + shift[0], 5 + shift[1], 5 + shift[2]), (8.0, 1.5, 1.25))
    assert moved.hd_mm == pytest.approx(hd_mm)


def test_two_single_voxels_are_apart_by_their_distance() -> None:
    apart = distances(_cube(0, 3, 3, side=1), _cube(1, 6, 7, side=1), (12.0, 1.0, 1.0))
    assert apart.hd_mm == apart.hd95_mm == apart.assd_mm == pytest.approx(13.0)


def test_concentric_spheres_are_apart_by_their_radii() -> None:
    spacing_mm = (1.5, 1.0, 1.0)
    apart = distances(_ball(12, spacing_mm, 18), _ball(16, spacing_mm, 18), spacing_mm)
    assert apart.assd_mm == pytest.approx(4, abs=0.5)
    assert apart.hd_mm == pytest.approx(4, abs=1.5)


def test_both_masks_empty_is_undefined() -> None:
    assert np.isnan([overlap(EMPTY, EMPTY).dice, overlap(EMPTY, EMPTY).voe]).all()
    assert np.isnan(distances(EMPTY, EMPTY, (8, 1, 1)).assd_mm)


@pytest.mark.parametrize("swap", [False, True])
def test_one_mask_empty_is_no_overlap_and_no_distance(swap: bool) -> None:
    pair = (_cube(1, 5, 5), EMPTY) if swap else (EMPTY, _cube(1, 5, 5))
    assert (overlap(*pair).dice, overlap(*pair).voe) == (0, 1)
    apart = distances(*pair, (8, 1, 1))
    assert np.isnan([apart.hd_mm, apart.hd95_mm, apart.assd_mm]).all()


@given(st.integers(0, 2**16))
@settings(max_examples=15, deadline=None)
def test_order_of_the_masks_is_irrelevant(seed: int) -> None:
    a, b = np.random.default_rng(seed).random((2, 4, 9, 9)) > 0.6
    assert overlap(a, b) == overlap(b, a)
    there, back = distances(a, b, (8, 1.5, 1.2)), distances(b, a, (8, 1.5, 1.2))
    assert asdict(there) == pytest.approx(asdict(back))


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of the oracle
@pytest.mark.parametrize("seed", range(3))
def test_distances_agree_with_monai(seed: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the oracle's own imports
        from monai.metrics import HausdorffDistanceMetric, SurfaceDistanceMetric

    shift = np.random.default_rng(seed).integers(0, 4, 3)
    a = np.pad(_ball(9, (3, 1, 1), 9), 6)
    b = np.roll(np.pad(_ball(7, (3, 1, 1), 9), 6), shift, (0, 1, 2))
    ours = distances(a, b, (3.0, 1.5, 1.25))
    pair = [torch.from_numpy(mask.astype(np.float32))[None, None] for mask in (a, b)]
    spacing = {"spacing": [3.0, 1.5, 1.25]}
    assert ours.hd_mm == pytest.approx(float(HausdorffDistanceMetric()(*pair, **spacing)), abs=1e-4)
    assert ours.hd95_mm == pytest.approx(
        float(HausdorffDistanceMetric(percentile=95)(*pair, **spacing)), abs=1e-4
    )
    assert ours.assd_mm == pytest.approx(
        float(SurfaceDistanceMetric(symmetric=True)(*pair, **spacing)), abs=1e-4
    )


@pytest.mark.parametrize("spacing_mm", [(0.0, 1, 1), (8, -1, 1), (8, np.nan, 1), (1, 1)])
def test_spacing_that_is_no_spacing_is_refused(spacing_mm: tuple[float, float, float]) -> None:
    with pytest.raises(GeometryError, match="spacing"):
        distances(EMPTY, EMPTY, spacing_mm)


def test_masks_of_different_shape_are_refused() -> None:
    with pytest.raises(GeometryError):
        overlap(EMPTY, EMPTY[1:])


def test_volumes_ejection_fraction_and_mass_by_hand() -> None:
    ed, es = np.zeros((2, 4, 10, 10), np.uint8)
    ed[0], es[0, :4] = LV, LV  # 100 and 40 voxels
    ed[1, :2], ed[2, :5], es[2, :3] = MYO, RV, RV  # 20, 50 and 30 voxels
    spacing_mm = (10.0, 2.0, 5.0)  # 0.1 ml a voxel
    heart = heart_function(ed, es, spacing_mm)
    assert volume_ml(ed, LV, spacing_mm) == heart.lv.edv_ml == pytest.approx(10.0)
    assert (heart.lv.sv_ml, heart.lv.ef_percent) == pytest.approx((6.0, 60.0))
    assert heart.rv.ef_percent == pytest.approx(40.0)
    assert heart.mass_g == pytest.approx(2.1)


def test_ejection_fraction_of_no_ventricle_is_undefined() -> None:
    assert np.isnan(heart_function(EMPTY, EMPTY, (8, 1, 1)).lv.ef_percent)
