"""FedProx: local training is pulled back towards where it started."""

from __future__ import annotations

from torch import Tensor

from model.errors import ConfigError


def proximal_gradient(weight: Tensor, start: Tensor, mu: float) -> Tensor:
    """``μ (w − w_t)``, gradient of the term ``μ/2 ‖w − w_t‖²`` that is added to the local loss.

    :class:`model.training.Training` adds it to the loss's gradient before clipping and the step. Departures from
    the paper there: the local solver is AdamW, which rescales the whole gradient; and under LoRA the trained
    parameters are the factors, so these are what is pulled, A towards its random start and B towards zero.

    Args:
        weight: w now.
        start: w_t of the same shape, where the round started.
        mu: μ, 0 or more.

    Returns:
        Tensor of the same shape.

    Raises:
        ConfigError: μ is negative.

    Source: Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020, equation of
        ``h_k(w; w_t)``.
    """
    if not mu >= 0:
        raise ConfigError(f"the proximal weight is {mu}", mend="choose 0 or more")
    return mu * (weight - start)
