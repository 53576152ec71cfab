"""Rate-My-LoRA's merge equation, which model.merge holds, against its dense form."""

from __future__ import annotations

import torch

from model.factors import Factors, fold
from model.merge import merge_shares, merge_step, volume_weights


def test_the_paper_form_is_the_rated_sum_over_all_slices() -> None:
    generator = torch.Generator().manual_seed(3)
    slices, ratings = {"a": 60, "b": 30, "c": 10}, {"a": 1.0, "b": 0.25, "c": 0.0}
    updates = {
        site: {"w": Factors(torch.randn(5, r, generator=generator), torch.randn(r, 7, generator=generator))}
        for site, r in (("a", 2), ("b", 3), ("c", 1))
    }
    before = torch.randn(5, 7, generator=generator)
    expected = before.double()
    for site in "abc":
        B, A = updates[site]["w"]
        expected = expected + ratings[site] * slices[site] * (B.double() @ A.double()) / (60 + 30 + 10)
    shares = merge_shares(ratings, volume_weights(slices, "linear"), "paper")
    after = fold({"w": before}, merge_step(updates, shares))["w"]
    torch.testing.assert_close(after, expected.float(), rtol=0, atol=1e-6)
