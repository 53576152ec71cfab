"""Scanner looks: one per site, always the same there, and the anatomy stays in place."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.scanner_shift import BIAS, BLUR_PX, GAMMA, NOISE_SD, ScannerLook, apply_look, site_look
from model.seeds import derive_generator

few = settings(deadline=None, max_examples=25)
seeds = st.integers(0, 2**31 - 1)
NEUTRAL = ScannerLook(gamma=1.0, bias=0.0, bias_angle_rad=0.0, blur_px=0.0, noise_sd=0.0)


def _images(n: int = 3, side: int = 32) -> Tensor:
    return torch.randn(n, 1, side, side, generator=derive_generator(1, "images")) * 1.3 + 0.2


def _look(**change: float) -> ScannerLook:
    return ScannerLook(**{**vars(NEUTRAL), **change})


def _apply(images: Tensor, look: ScannerLook) -> Tensor:
    return apply_look(images, look, derive_generator(2, "noise"))


def test_a_neutral_look_changes_nothing() -> None:
    assert torch.allclose(_apply(_images(), NEUTRAL), _images(), atol=1e-5)


@few
@given(seed=seeds)
def test_a_sites_look_is_the_same_every_time(seed: int) -> None:
    look, again = (site_look(derive_generator(seed, "look", "st-anna")) for _ in range(2))
    assert look == again
    assert torch.equal(_apply(_images(), look), _apply(_images(), again))


def test_sites_look_differently() -> None:
    looks = [site_look(derive_generator(1, "look", site)) for site in ("dcm", "hcm", "minf", "nor", "rv")]
    assert len(set(looks)) == 5
    shown = [_apply(_images(), look) for look in looks]
    for i, one in enumerate(shown):
        assert all((one - other).abs().mean() > 0.05 for other in shown[:i])


@few
@given(seed=seeds)
def test_looks_stay_within_their_bounds_and_off_the_original_contrast(seed: int) -> None:
    look = site_look(derive_generator(seed))
    assert math.log(GAMMA[0]) - 1e-9 <= abs(math.log(look.gamma)) <= math.log(GAMMA[1]) + 1e-9
    assert BIAS[0] <= look.bias <= BIAS[1]
    assert BLUR_PX[0] <= look.blur_px <= BLUR_PX[1]
    assert NOISE_SD[0] <= look.noise_sd <= NOISE_SD[1]


def test_about_half_of_the_sites_are_darker() -> None:
    darker = [site_look(derive_generator(seed)).gamma > 1 for seed in range(200)]
    assert 70 < sum(darker) < 130


@few
@given(seed=seeds)
def test_every_slice_keeps_form_mean_and_standard_deviation(seed: int) -> None:
    images = _images()
    shown = _apply(images, site_look(derive_generator(seed)))
    assert shown.shape == images.shape
    assert shown.dtype == torch.float32
    assert torch.allclose(shown.mean((1, 2, 3)), images.mean((1, 2, 3)), atol=1e-5)
    assert torch.allclose(shown.std((1, 2, 3)), images.std((1, 2, 3)), rtol=1e-4)


def test_without_noise_a_slice_does_not_depend_on_its_neighbours() -> None:
    look = _look(gamma=1.8, bias=0.7, bias_angle_rad=1.0, blur_px=0.9)
    together, alone = _apply(_images(), look), _apply(_images()[1:2], look)
    assert torch.allclose(together[1:2], alone, atol=1e-6)


def test_gamma_keeps_the_order_of_greys() -> None:
    images = _images(1)
    order = images.flatten().argsort()
    for gamma in (0.5, 2.0):
        assert (_apply(images, _look(gamma=gamma)).flatten()[order].diff() >= -1e-5).all()


def test_gamma_above_one_puts_middle_greys_nearer_to_the_dark_end() -> None:
    images = torch.tensor([0.0, 0.5, 1.0] * 3).view(1, 1, 3, 3)
    dark, middle, bright = _apply(images, _look(gamma=2.0))[0, 0, 0].tolist()
    assert (middle - dark) / (bright - dark) == pytest.approx(0.25, abs=1e-5)


@pytest.mark.parametrize(("angle_rad", "brighter"), [(0.0, "right"), (math.pi / 2, "bottom")])
def test_the_side_of_the_coil_is_brighter(angle_rad: float, brighter: str) -> None:
    board = (torch.arange(16)[:, None] + torch.arange(16)[None, :]).remainder(2).float()[None, None]
    shown = _apply(board, _look(bias=0.8, bias_angle_rad=angle_rad))[0, 0]
    near, far = (shown[:, 8:], shown[:, :8]) if brighter == "right" else (shown[8:], shown[:8])
    assert near.amax() > far.amax() + 0.3
    assert near.mean() > far.mean()


def test_blur_spreads_a_point_symmetrically_and_leaves_it_in_place() -> None:
    point = torch.zeros(1, 1, 21, 21)
    point[0, 0, 10, 10] = 1.0
    shown = _apply(point, _look(blur_px=1.0))[0, 0]
    assert shown.argmax() == 10 * 21 + 10
    assert torch.allclose(shown, shown.flip(0), atol=1e-5)
    assert torch.allclose(shown, shown.T, atol=1e-5)
    spread = shown - shown[0, 0]
    assert float(spread[10, 11] / spread[10, 10]) == pytest.approx(math.exp(-0.5), abs=1e-4)


def test_noise_has_the_stated_size() -> None:
    images = _images(4, 64)
    sd = images.std((1, 2, 3), correction=0)[:, None, None, None]
    shown = _apply(images, _look(noise_sd=0.3))
    residual = (shown * math.sqrt(1 + 0.3**2) - images) / sd  # matching shrank the sum by that root
    assert float(residual.std()) == pytest.approx(0.3, abs=0.02)


def test_a_constant_slice_stays_constant() -> None:
    constant = torch.full((2, 1, 16, 16), -1.5)
    assert torch.allclose(_apply(constant, site_look(derive_generator(1))), constant)


def test_the_input_is_left_as_it_was() -> None:
    images = _images()
    _apply(images, site_look(derive_generator(1)))
    assert torch.equal(images, _images())


def test_edges_of_the_heart_stay_where_they_are() -> None:
    """A bright disc on a dark ground: thresholded between local means, the disc is found again."""
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    disc = (y - 30) ** 2 + (x - 34) ** 2 <= 144
    look = _look(gamma=0.55, bias=0.4, bias_angle_rad=2.0, blur_px=1.2)
    shown = _apply(disc.float()[None, None] + 0.3 * (x / 64), look)[0, 0]
    found = shown > (shown[disc].mean() + shown[~disc].mean()) / 2
    near = (y - 30) ** 2 + (x - 34) ** 2 <= 400
    dice = 2 * (found & disc).sum() / ((found & near).sum() + disc.sum())
    assert float(dice) > 0.9
