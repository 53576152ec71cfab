"""From a network to trainable adapters and back: PEFT injects, we choose ranks and read the result.

Wide convolutions get LoRA (Hu et al., ICLR 2022: ``ΔW = alpha/r · B A``). Layers too narrow to be low-rank, and the
biases, are trained whole; their change is factorised when the adapter is read, so one algebra serves all layers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from model.factors import Factors, factorise, norm, truncate
from model.network import is_wide

_ADAPTER = "site"


@dataclass(frozen=True)
class LoraSpec:
    """Size of one site's adapter.

    Attributes:
        rank: rank before the cap of :func:`layer_rank`.
        scaling: alpha / r.
        wide_from: weights from which a convolution gets LoRA.
    """

    rank: int
    scaling: float
    wide_from: int


@dataclass(frozen=True)
class Trainable:
    """Parameters of an injected network, by how they are trained.

    Attributes:
        factors: LoRA's A and B.
        whole: weights of narrow layers and biases.
    """

    factors: list[nn.Parameter]
    whole: list[nn.Parameter]


def rank_for_volume(
    n: int, n_max: int, rank_min: int, rank_max: int, rule: Literal["sqrt", "linear", "constant"]
) -> int:
    """Rank by data volume: ``clamp(round(r_max · f(n / n_max)), r_min, r_max)``.

    Args:
        n: training slices of this site, at least 1.
        n_max: training slices of the largest site.
        rank_min: lower clamp.
        rank_max: upper clamp, and the rank of the largest site.
        rule: f is √x, x or 1.

    Returns:
        The site's rank, from ``rank_min`` to ``rank_max``.
    """
    share = n / n_max
    grown = {"sqrt": math.sqrt(share), "linear": share, "constant": 1.0}[rule]
    return max(rank_min, min(rank_max, round(rank_max * grown)))


def layer_rank(weight: Tensor, rank: int) -> int:
    """``rank`` capped where two factors would outweigh the dense layer: ``r ≤ out·in / (out + in)``, at least 1."""
    out, inner = weight.shape[0], weight[0].numel()
    return max(1, min(rank, out * inner // (out + inner)))


def inject(net: nn.Module, spec: LoraSpec, generator: torch.Generator) -> Trainable:
    """Put LoRA branches on the wide convolutions of ``net``, in place, and freeze what they replace.

    Args:
        net: a folded network; afterwards only the returned parameters require gradients.
        spec: ranks and scaling.
        generator: source of A's initial values (Kaiming uniform); B starts at zero, so the output is unchanged.

    Returns:
        What is trained: A ``(r, in, k, k)`` and B ``(out, r, 1, 1)`` of every branch; narrow layers and
        biases whole.
    """
    wide = [name.removesuffix(".weight") for name, p in net.named_parameters() if is_wide(p, spec.wide_from)]
    ranks = {name: layer_rank(net.get_parameter(f"{name}.weight"), spec.rank) for name in wide}
    narrow = [p for p in net.parameters() if not is_wide(p, spec.wide_from)]
    if ranks:
        _inject_peft(net, ranks, spec.scaling, generator)
    for p in narrow:
        p.requires_grad_(True)
    factors = [p for name, p in net.named_parameters() if ".lora_" in name]
    return Trainable(factors=factors, whole=narrow)


def _inject_peft(net: nn.Module, ranks: dict[str, int], scaling: float, generator: torch.Generator) -> None:
    config = LoraConfig(
        r=max(ranks.values()),
        lora_alpha=scaling * max(ranks.values()),
        target_modules=list(ranks),
        rank_pattern=ranks,
        alpha_pattern={name: scaling * r for name, r in ranks.items()},
        bias="none",
    )
    inject_adapter_in_model(config, net, adapter_name=_ADAPTER)
    for name in sorted(ranks):  # PEFT draws A from the global generator; ours replaces it
        A = net.get_parameter(f"{name}.lora_A.{_ADAPTER}.weight")
        nn.init.kaiming_uniform_(A, a=math.sqrt(5), generator=generator)


def read_adapter(
    net: nn.Module, start: dict[str, Tensor], spec: LoraSpec
) -> tuple[dict[str, Factors], float]:
    """The update that training made, as balanced factors per layer of the base.

    Args:
        net: a network after :func:`inject` and training.
        start: the folded state dict it started from.
        spec: as given to :func:`inject`; narrow layers are cut to the same rank.

    Returns:
        Factors by parameter name, and the fraction of the squared norm that cutting narrow layers lost.
    """
    adapter: dict[str, Factors] = {}
    lost = total = 0.0
    for name, W in start.items():
        module = name.rsplit(".", 1)[0]
        if is_wide(W, spec.wide_from):
            factors, cut = _read_branch(net, module, spec.scaling)
        else:
            now = net.get_parameter(name).detach()
            factors, cut = factorise(now - W, layer_rank(W.reshape(W.shape[0], -1), spec.rank))
        adapter[name] = factors
        lost += cut**2
        total += cut**2 + norm(factors) ** 2
    return adapter, lost / total if total > 0 else 0.0


def _read_branch(net: nn.Module, module: str, scaling: float) -> tuple[Factors, float]:
    B = net.get_parameter(f"{module}.lora_B.{_ADAPTER}.weight").detach()
    A = net.get_parameter(f"{module}.lora_A.{_ADAPTER}.weight").detach()
    return truncate(Factors(scaling * B.flatten(1), A.flatten(1)), A.shape[0])
