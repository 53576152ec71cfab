"""File axes, native grid, network grid: every way there has a way back."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import GeometryError, IntensityError
from model.geometry import Crop, Orientation, orientation_of
from model.intensity import normalise

SIGNS = [(x, y, z) for x in (1, -1) for y in (1, -1) for z in (1, -1)]


def _ramp(shape: tuple[int, int], spacing_mm: tuple[float, float]) -> np.ndarray:
    """A plane whose value is its position: 3·y_mm + 7·x_mm."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return (3 * y * spacing_mm[0] + 7 * x * spacing_mm[1])[None].astype(np.float32)


@pytest.mark.parametrize("signs", SIGNS)
def test_native_axes_are_nibabels_closest_canonical_ones(signs: tuple[int, int, int]) -> None:
    values = np.random.default_rng(0).integers(0, 99, (4, 5, 3)).astype(np.int16)
    tilt = nib.eulerangles.euler2mat(0.2, 0.1, -0.15)
    affine = np.eye(4)
    affine[:3, :3] = tilt @ np.diag(np.array(signs) * (1.5, 1.4, 8.0))
    canonical = nib.as_closest_canonical(nib.Nifti1Image(values, affine))
    native = orientation_of(affine).to_native(values)
    assert np.array_equal(native, np.asarray(canonical.dataobj).transpose(2, 1, 0))


def test_slices_stay_slices_in_a_doubly_oblique_stack() -> None:
    affine = np.eye(4)
    affine[:3, :3] = [
        [-0.87, -0.41, 7.9],
        [0.0, -1.02, -4.5],
        [0.8, -0.44, 4.2],
    ]  # slices lie nearest to left-right
    assert orientation_of(affine).axes == (2, 1, 0)


def test_the_coarsest_axis_is_the_slice_axis_wherever_it_is_stored() -> None:
    assert orientation_of(np.diag([8.0, 1.5, 1.4, 1.0])).axes[0] == 0


def test_equal_spacing_leaves_the_last_axis_as_slices() -> None:
    assert orientation_of(np.diag([1.5, 1.5, 1.5, 1.0])).axes == (2, 1, 0)


@given(st.permutations([0, 1, 2]), st.tuples(st.booleans(), st.booleans(), st.booleans()))
@settings(max_examples=30, deadline=None)
def test_file_axes_come_back_unchanged(axes: list[int], flips: tuple[bool, bool, bool]) -> None:
    orientation = Orientation((axes[0], axes[1], axes[2]), flips)
    stored = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    native = orientation.to_native(stored)
    assert np.array_equal(orientation.to_file(native), stored)
    assert orientation.spacing_to_file_mm([float(n) for n in native.shape]) == (2.0, 3.0, 4.0)


def test_singular_affine_is_refused() -> None:
    with pytest.raises(GeometryError, match="singular"):
        orientation_of(np.diag([1.0, 0.0, 8.0, 1.0]))


def test_equal_grids_make_the_crop_a_copy() -> None:
    volume = np.random.default_rng(0).normal(size=(3, 16, 16)).astype(np.float32)
    crop = Crop(16, 1.5, (7.5, 7.5), (16, 16), (1.5, 1.5))
    assert np.allclose(crop.to_network(volume)[:, 0].numpy(), volume, atol=1e-5)
    assert np.array_equal(crop.to_network(volume > 0, nearest=True)[:, 0].numpy(), volume > 0)


@given(
    st.floats(1.0, 2.4),
    st.floats(1.0, 2.4),
    st.integers(61, 90),
    st.integers(61, 90),
    st.floats(-5, 5),
    st.floats(-5, 5),
)
@settings(max_examples=40, deadline=None)
def test_network_pixels_sit_at_their_millimetre(
    y_mm: float, x_mm: float, rows: int, columns: int, dy: float, dx: float
) -> None:
    size, step_mm = 17, 2.0
    centre = ((rows - 1) / 2 + dy, (columns - 1) / 2 + dx)
    crop = Crop(size, step_mm, centre, (rows, columns), (y_mm, x_mm))
    offset_mm = (np.arange(size) - (size - 1) / 2) * step_mm
    expected = 3 * (centre[0] * y_mm + offset_mm)[:, None] + 7 * (centre[1] * x_mm + offset_mm)[None]
    assert np.allclose(
        crop.to_network(_ramp((rows, columns), (y_mm, x_mm)))[0, 0].numpy(), expected, atol=0.05
    )


@given(st.floats(1.0, 2.4), st.floats(1.0, 2.4), st.integers(20, 61), st.integers(20, 61), st.floats(-9, 9))
@settings(max_examples=40, deadline=None)
def test_to_native_inverts_to_network_where_the_square_covers_the_image(
    y_mm: float, x_mm: float, rows: int, columns: int, shift: float
) -> None:
    # a linear field is what bilinear resampling keeps exactly; as class 1's 'probability' it needs no sum to 1
    crop = Crop(31, 2.0, ((rows - 1) / 2 + shift, (columns - 1) / 2 - shift), (rows, columns), (y_mm, x_mm))
    field = _ramp((rows, columns), (y_mm, x_mm))
    there = crop.to_network(field)
    back = crop.to_native(torch.cat([torch.zeros_like(there), there], 1))[0, 1].numpy()
    reach = (crop.size - 1) / 2 * crop.spacing_mm
    y, x = np.mgrid[:rows, :columns]
    inside = (np.abs(y - crop.centre_px[0]) * y_mm < reach) & (np.abs(x - crop.centre_px[1]) * x_mm < reach)
    within = np.pad(np.ones((rows - 6, columns - 6), bool), 3)  # away from edges that to_network repeats
    assert np.allclose(back[inside & within], field[0][inside & within], atol=0.05)


def test_outside_the_square_all_is_background() -> None:
    crop = Crop(8, 2.0, (20.5, 30.5), (41, 61), (1.0, 1.0))
    heart = torch.zeros(2, 4, 8, 8)
    heart[:, 3] = 1
    native = crop.to_native(heart)
    assert torch.allclose(native.sum(1), torch.ones(2, 41, 61))
    assert native[:, 0, 5, 5].eq(1).all()
    assert native[:, 3, 20, 30].eq(1).all()
    assert native.argmax(1).eq(3).sum() == 2 * 16 * 16  # 8 px of 2 mm cover 16 px of 1 mm


def test_a_square_larger_than_the_image_repeats_edges_but_not_labels() -> None:
    crop = Crop(64, 2.0, (5.0, 6.0), (11, 13), (1.5, 1.5))
    image = crop.to_network(np.full((1, 11, 13), 4.0))
    mask = crop.to_network(np.ones((1, 11, 13)), nearest=True)
    assert image.eq(4).all()
    assert mask[0, 0, 0, 0] == 0
    assert abs(float(mask.sum()) * 4 - 11 * 13 * 1.5**2) < 0.15 * 11 * 13 * 1.5**2


def test_slices_of_another_shape_are_refused() -> None:
    crop = Crop(8, 2.0, (5.0, 6.0), (11, 13), (1.5, 1.5))
    with pytest.raises(GeometryError, match=r"\(11, 12\)"):
        crop.to_network(np.zeros((1, 11, 12)))
    with pytest.raises(GeometryError, match=r"\(9, 8\)"):
        crop.to_native(torch.zeros(1, 4, 9, 8))


@given(st.floats(0.1, 1000), st.floats(-1000, 1000))
@settings(max_examples=20, deadline=None)
def test_normalised_intensity_ignores_scale_and_offset(scale: float, offset: float) -> None:
    volume = np.random.default_rng(0).gamma(2, size=(4, 9, 9))
    normal = normalise(volume)
    assert np.allclose(normalise(volume * scale + offset), normal, atol=1e-3)
    assert abs(normal.mean()) < 1e-5
    assert abs(normal.std() - 1) < 1e-5


@pytest.mark.parametrize("volume", [np.zeros((2, 3, 3)), np.array([[[1.0, np.nan, 2.0]]])])
def test_constant_or_unfinite_volume_is_refused(volume: np.ndarray) -> None:
    with pytest.raises(IntensityError):
        normalise(volume)
