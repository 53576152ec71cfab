"""Scores of slices, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from model.labels import LV, MYO, N_CLASSES, RV
from model.network import build_net
from model.scoring import choose_slices, paired_gain, segment, slice_dice
from model.seeds import derive_generator

few = settings(deadline=None, max_examples=40)
NAN = math.nan


def _row(*labels: int) -> Tensor:
    """One slice of a single row."""
    return torch.tensor([[list(labels)]])


def test_dice_by_hand() -> None:
    true = _row(RV, RV, MYO, MYO, LV, LV)
    predicted = _row(RV, 0, MYO, MYO, MYO, LV)
    # RV 2·1/3, MYO 2·2/5, LV 2·1/3
    assert slice_dice(predicted, true).item() == pytest.approx((2 / 3 + 4 / 5 + 2 / 3) / 3)


def test_a_perfect_answer_scores_one_and_a_disjoint_one_zero() -> None:
    assert slice_dice(_row(RV, MYO, LV), _row(RV, MYO, LV)).item() == 1.0
    assert slice_dice(_row(0, LV, RV), _row(LV, RV, 0)).item() == 0.0


def test_a_structure_in_neither_mask_is_left_out_of_the_mean() -> None:
    assert slice_dice(_row(LV, LV, 0), _row(LV, 0, 0)).item() == pytest.approx(2 / 3)


def test_a_structure_in_one_mask_only_counts_as_zero() -> None:
    assert slice_dice(_row(LV, RV), _row(LV, 0)).item() == 0.5
    assert slice_dice(_row(LV, 0), _row(LV, RV)).item() == 0.5


def test_a_slice_without_structures_is_undefined_and_spoils_no_other() -> None:
    true = torch.cat([_row(0, 0), _row(LV, 0)])
    dice = slice_dice(true, true)
    assert dice.isnan().tolist() == [True, False]
    assert dice[1].item() == 1.0
    assert dice.dtype == torch.float64


@few
@given(seed=st.integers(0, 2**31))
def test_dice_is_symmetric_and_lies_between_zero_and_one(seed: int) -> None:
    a, b = torch.randint(0, N_CLASSES, (2, 3, 5, 5), generator=derive_generator(seed))
    dice = slice_dice(a, b)
    assert torch.equal(dice, slice_dice(b, a))
    assert ((dice >= 0) & (dice <= 1)).all()


def test_the_paired_gain_by_hand() -> None:
    before = torch.tensor([0.5, 0.6, 0.7], dtype=torch.float64)
    after = torch.tensor([0.6, 0.8, 0.7], dtype=torch.float64)
    gain, error, n = paired_gain(before, after)
    assert gain == pytest.approx(0.1)
    assert n == 3
    assert error == pytest.approx(0.1 / math.sqrt(3))  # differences .1, .2, 0: deviation .1


def test_a_slice_undefined_on_both_sides_is_not_counted() -> None:
    gain, error, n = paired_gain(torch.tensor([NAN, 0.5]), torch.tensor([NAN, 0.75]))
    assert (gain, n) == (0.25, 1)
    assert math.isnan(error)


def test_a_rightly_empty_answer_counts_as_one() -> None:
    assert paired_gain(torch.tensor([NAN]), torch.tensor([0.0]))[0] == -1.0  # after: false alarm
    assert paired_gain(torch.tensor([0.0]), torch.tensor([NAN]))[0] == 1.0  # after: alarm gone


def test_no_defined_slice_gives_no_gain() -> None:
    for nothing in (torch.tensor([NAN, NAN]), torch.tensor([])):
        gain, error, n = paired_gain(nothing, nothing)
        assert (math.isnan(gain), math.isnan(error), n) == (True, True, 0)


def test_the_same_scores_twice_gain_exactly_nothing() -> None:
    scores = torch.tensor([0.1, NAN, 0.9, 0.4])
    assert paired_gain(scores, scores) == (0.0, 0.0, 3)


def _volumes(patients: int, levels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Phase, patient and level of every slice, in no helpful order."""
    listed = [(f, p, z) for z in range(levels) for f in (0, 1) for p in range(patients)]
    phase, patient, z = torch.tensor(listed).T
    return phase, patient, z


def test_every_volume_gives_its_share_of_slices_from_base_to_apex() -> None:
    phase, patient, z = _volumes(patients=3, levels=8)
    chosen = choose_slices(phase, patient, z, 12)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    for p in range(3):
        for f in (0, 1):
            levels = z[chosen][(patient[chosen] == p) & (phase[chosen] == f)]
            assert levels.numel() == 2
            assert levels.min() < 4 <= levels.max()


@few
@given(n=st.integers(0, 40), count=st.integers(1, 50))
def test_as_many_slices_as_wanted_are_chosen_and_none_twice(n: int, count: int) -> None:
    codes = torch.arange(n)
    chosen = choose_slices(codes % 2, codes // 6, codes, count)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert chosen.numel() == min(n, count)
    assert chosen.dtype == torch.long


def test_the_choice_does_not_depend_on_the_order_of_the_cache() -> None:
    phase, patient, z = _volumes(patients=2, levels=7)
    order = torch.randperm(28, generator=derive_generator(1))
    chosen = choose_slices(phase, patient, z, 9)
    shuffled = order[choose_slices(phase[order], patient[order], z[order], 9)]
    assert sorted(shuffled.tolist()) == chosen.tolist()


def test_segmenting_in_parts_is_segmenting_at_once() -> None:
    net = build_net((4, 8), derive_generator(1))
    images = torch.randn(5, 1, 8, 8, generator=derive_generator(2))
    at_once, in_parts = segment(net, images, batch=5), segment(net, images, batch=2)
    assert at_once.shape == (5, N_CLASSES, 8, 8)
    torch.testing.assert_close(in_parts, at_once, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(at_once.sum(1), torch.ones(5, 8, 8))
    assert not at_once.requires_grad


class _Broken(nn.Module):
    """A network whose weights overflowed."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.full((x.shape[0], N_CLASSES, *x.shape[2:]), math.inf)


def test_a_network_that_answers_no_numbers_scores_zero_and_is_not_left_out() -> None:
    true = torch.full((2, 4, 4), LV)
    predicted = segment(_Broken(), torch.zeros(2, 1, 4, 4)).argmax(1)
    assert slice_dice(predicted, true).tolist() == [0.0, 0.0]
