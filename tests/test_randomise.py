"""The randomised slices: deterministic, labelled like hearts, normalised like scans."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from model.errors import GeometryError
from model.labels import LV, MYO, RV
from model.randomise import random_slices

Slices = tuple[NDArray[np.float32], NDArray[np.uint8]]


@pytest.fixture(scope="module")
def slices() -> Slices:
    return random_slices(150, 96, 2.0, np.random.default_rng(0))


def test_the_same_generator_gives_the_same_slices() -> None:
    a, b = (random_slices(3, 64, 2.0, np.random.default_rng(4)) for _ in range(2))
    assert np.array_equal(a[0], b[0])
    assert np.array_equal(a[1], b[1])


def test_shapes_and_types(slices: Slices) -> None:
    images, labels = slices
    assert images.shape == labels.shape == (150, 96, 96)
    assert images.dtype == np.float32
    assert labels.dtype == np.uint8
    assert np.isfinite(images).all()


def test_every_kind_of_slice_occurs(slices: Slices) -> None:
    _, labels = slices
    has = {value: (labels == value).any((1, 2)) for value in (RV, MYO, LV)}
    assert (~has[MYO]).any(), "slices without a heart"
    assert (has[MYO] & ~has[RV]).any(), "slices without a right ventricle"
    assert (has[RV] & has[MYO] & has[LV]).mean() > 0.6


def test_the_wall_closes_around_the_cavity(slices: Slices) -> None:
    """Hardly a cavity pixel touches background or RV."""
    _, labels = slices
    ring = ndimage.binary_dilation(labels == LV, np.ones((1, 3, 3), bool)) & (labels != LV)
    assert np.isin(labels[ring], (MYO,)).mean() > 0.97


def test_blood_is_brighter_than_the_wall_in_most_slices(slices: Slices) -> None:
    images, labels = slices
    brighter = [
        image[mask == LV].mean() > image[mask == MYO].mean()
        for image, mask in zip(images, labels, strict=True)
        if (mask == LV).sum() > 40
    ]
    assert np.mean(brighter) > 0.9


def test_intensities_are_about_standard(slices: Slices) -> None:
    images, _ = slices
    assert abs(images.mean()) < 0.3
    assert images.std((1, 2)).mean() == pytest.approx(1, abs=0.15)


def test_sizes_are_in_millimetres() -> None:
    """Half the pixel size: a heart covers four times the pixels."""
    coarse = random_slices(60, 48, 4.0, np.random.default_rng(8))[1]
    fine = random_slices(60, 96, 2.0, np.random.default_rng(8))[1]
    ratio = (fine > 0).sum() / (coarse > 0).sum()
    assert 2.5 < ratio < 6.0


@pytest.mark.parametrize(("size", "spacing_mm"), [(31, 2.0), (96, 0.0), (96, float("nan"))])
def test_an_impossible_grid_is_refused(size: int, spacing_mm: float) -> None:
    with pytest.raises(GeometryError, match="no heart fits"):
        random_slices(1, size, spacing_mm, np.random.default_rng(0))
