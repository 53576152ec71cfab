"""Averaging of full weights: the classic that adapters are compared with."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from model.errors import RoundError


def average_weights(
    trained: Mapping[str, Mapping[str, Tensor]], volumes: Mapping[str, float]
) -> dict[str, Tensor]:
    """FedAvg: ``W = Σ_c v_c W_c / Σ_c v_c``, summed in float64 in the order of the sites' names.

    Args:
        trained: site → state dict, all of one architecture.
        volumes: site → v_c, positive.

    Returns:
        float32 state dict.

    Raises:
        RoundError: nobody trained.

    Source: McMahan et al., "Communication-Efficient Learning of Deep Networks", AISTATS 2017, algorithm 1.
    """
    if not trained:
        raise RoundError("no site sent weights", mend="see why the sites' training failed; run it again")
    total = sum(volumes[site] for site in trained)
    names = next(iter(trained.values())).keys()
    return {
        name: torch.stack([volumes[site] / total * trained[site][name].double() for site in sorted(trained)])
        .sum(0)
        .float()
        for name in names
    }
