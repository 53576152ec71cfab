"""Base, mid and apex are thirds of the slices with left heart, from the wide end."""

from __future__ import annotations

import numpy as np
import pytest

from model.labels import LV, MYO, RV
from model.levels import score_levels, slice_levels


def cone(widths: list[int]) -> np.ndarray:
    """A stack whose slice z holds a square of LV of that width in one corner; 0 for an empty slice."""
    truth = np.zeros((len(widths), 20, 20), np.uint8)
    for z, width in enumerate(widths):
        truth[z, :width, :width] = LV
    return truth


def test_thirds_are_counted_from_the_wide_end() -> None:
    widths = [0, 9, 8, 7, 6, 5, 4, 0]
    expected = ["", "base", "base", "mid", "mid", "apex", "apex", ""]
    assert list(slice_levels(cone(widths))) == expected
    assert list(slice_levels(cone(widths[::-1]))) == expected[::-1]


@pytest.mark.parametrize(
    ("n", "names"),
    [(1, "m"), (2, "ba"), (3, "bma"), (4, "bmma"), (5, "bbmaa"), (8, "bbbmmaaa"), (10, "bbbmmmmaaa")],
)
def test_every_number_of_slices_is_divided_symmetrically(n: int, names: str) -> None:
    levels = slice_levels(cone(list(range(n + 2, 2, -1))))
    assert "".join(name[0] for name in levels) == names


def test_slices_with_rv_alone_have_no_level() -> None:
    truth = cone([9, 8, 7])
    truth[0] = np.where(truth[0] > 0, RV, 0)
    truth[1] = np.where(truth[1] > 0, MYO, 0)
    assert slice_levels(truth) == ("", "base", "apex")


def test_an_empty_reference_has_no_level_and_no_score() -> None:
    empty = np.zeros((3, 5, 5), bool)
    assert slice_levels(empty.astype(np.uint8)) == ("", "", "")
    scores = score_levels(empty, empty, ("", "", ""), (1.0, 1.0))
    assert all(np.isnan(score.dice) and score.slices == 0 for score in scores.values())


def test_scores_by_hand() -> None:
    """A square moved by 2 px of 1.5 mm at the apex, missed in one of two mid slices, perfect at the base."""
    truth = np.zeros((4, 30, 30), bool)
    truth[:, 5:15, 5:15] = True
    prediction = truth.copy()
    prediction[2] = False
    prediction[3] = np.roll(truth[3], 2, axis=1)
    scores = score_levels(prediction, truth, ("base", "mid", "mid", "apex"), (1.0, 1.5))
    assert (scores["base"].dice, scores["base"].hd_mm) == (1, 0)
    assert scores["mid"].dice == pytest.approx(2 * 100 / 300)
    assert (scores["mid"].slices, scores["mid"].measured, scores["mid"].hd95_mm) == (2, 1, 0)
    assert scores["apex"].dice == pytest.approx(0.8)
    assert scores["apex"].hd_mm == pytest.approx(3.0)


def test_levels_together_are_the_whole_overlap() -> None:
    rng = np.random.default_rng(2)
    truth, prediction = (rng.random((9, 12, 12)) < 0.4 for _ in range(2))
    levels = ("base",) * 3 + ("mid",) * 3 + ("apex",) * 3
    scores = score_levels(prediction, truth, levels, (1.0, 1.0)).values()
    sizes = [int(prediction[k : k + 3].sum() + truth[k : k + 3].sum()) for k in (0, 3, 6)]
    pooled = sum(s.dice * n for s, n in zip(scores, sizes, strict=True)) / sum(sizes)
    assert pooled == pytest.approx(2 * (prediction & truth).sum() / (prediction.sum() + truth.sum()))
