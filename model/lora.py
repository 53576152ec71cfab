"""From a network to trainable adapters and back: PEFT injects, we choose ranks and read the result.

Wide convolutions get LoRA (Hu et al., ICLR 2022: ``ΔW = alpha/r · B A``). Layers too narrow to be low-rank, and the
biases, are trained whole; their change is factorised when the adapter is read, so one algebra serves all layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from model.factors import Factors, factorise, truncate
from model.network import ResidualUNet, is_wide, level_of

_ADAPTER = "site"
ALL_LEVELS = 99


@dataclass(frozen=True)
class LoraSpec:
    """Size of one site's adapter.

    Attributes:
        rank: rank before the cap of :func:`layer_rank`.
        scaling: alpha / r.
        wide_from: weights from which a convolution gets LoRA.
        trained_levels: levels of the network, from the top, that are trained. Deeper ones stay as in the base and
            no gradient is computed through them.
    """

    rank: int
    scaling: float
    wide_from: int
    trained_levels: int = ALL_LEVELS


def trained_layers(weights: Mapping[str, Tensor], spec: LoraSpec) -> list[str]:
    """Names of the parameters that training may change, in the order of the state dict."""
    depth = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("down."))
    return [name for name in weights if level_of(name, depth) < spec.trained_levels]


@dataclass(frozen=True)
class Trainable:
    """Parameters of an injected network, by how they are trained.

    Attributes:
        down: LoRA's A by layer.
        up: LoRA's B by layer.
        whole: weights of narrow layers and biases.
    """

    down: dict[str, nn.Parameter]
    up: dict[str, nn.Parameter]
    whole: list[nn.Parameter]

    @property
    def factors(self) -> list[nn.Parameter]:
        """All of LoRA's parameters."""
        return [*self.down.values(), *self.up.values()]


def rank_for_volume(
    n: int, n_max: int, rank_min: int, rank_max: int, rule: Literal["sqrt", "linear", "constant", "auto"]
) -> int:
    """Rank by data volume: ``clamp(round(r_max · f(n / n_max)), r_min, r_max)``.

    Args:
        n: training slices of this site, at least 1.
        n_max: training slices of the largest site.
        rank_min: lower clamp.
        rank_max: upper clamp, and the rank of the largest site.
        rule: f is √x, x or 1; ``auto`` trains everywhere at ``rank_max`` and leaves the ranks that travel to the
            package, which keeps what the update needs.

    Returns:
        The site's rank, from ``rank_min`` to ``rank_max``.
    """
    share = n / n_max
    grown = {"sqrt": math.sqrt(share), "linear": share, "constant": 1.0, "auto": 1.0}[rule]
    return max(rank_min, min(rank_max, round(rank_max * grown)))


def layer_rank(weight: Tensor, rank: int) -> int:
    """``rank`` capped where two factors would outweigh the dense layer: ``r ≤ out·in / (out + in)``, at least 1."""
    out, inner = weight.shape[0], weight[0].numel()
    return max(1, min(rank, out * inner // (out + inner)))


def inject(net: ResidualUNet, spec: LoraSpec, generator: torch.Generator) -> Trainable:
    """Put LoRA branches on the wide convolutions of ``net``, in place, and freeze what they replace.

    Args:
        net: a folded network; afterwards only the returned parameters require gradients.
        spec: ranks and scaling.
        generator: source of A's initial values (Kaiming uniform); B starts at zero, so the output is unchanged.

    Returns:
        What is trained: A ``(r, in, k, k)`` and B ``(out, r, 1, 1)`` of every branch, by the name of the base's
        parameter; narrow layers and biases whole.
    """
    every = dict(net.named_parameters())
    trained = {name: every[name] for name in trained_layers(every, spec)}
    wide = [name for name, p in trained.items() if is_wide(p, spec.wide_from)]
    narrow = [p for p in trained.values() if not is_wide(p, spec.wide_from)]
    net.requires_grad_(False)
    net.trained_levels = spec.trained_levels
    if wide:
        ranks = {name.removesuffix(".weight"): layer_rank(trained[name], spec.rank) for name in wide}
        _inject_peft(net, ranks, spec.scaling, generator)
    for p in narrow:
        p.requires_grad_(True)
    return Trainable(
        down={name: _branch(net, name, "A") for name in wide},
        up={name: _branch(net, name, "B") for name in wide},
        whole=narrow,
    )


def _branch(net: nn.Module, name: str, factor: str) -> nn.Parameter:
    return net.get_parameter(f"{name.removesuffix('.weight')}.lora_{factor}.{_ADAPTER}.weight")


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
        A = _branch(net, name, "A")
        nn.init.kaiming_uniform_(A, a=math.sqrt(5), generator=generator)


def set_pairs(trainable: Trainable, pairs: Mapping[str, Factors], spec: LoraSpec) -> None:
    """Let LoRA go on from given pairs.

    Args:
        trainable: of :func:`inject`, changed in place.
        pairs: layer → ``B (out, r)``, the scaling inside, and ``A (r, in)``; r as injected.
        spec: as given to :func:`inject`.
    """
    with torch.no_grad():
        for name, (B, A) in pairs.items():
            trainable.up[name].copy_((B / spec.scaling).reshape(trainable.up[name].shape))
            trainable.down[name].copy_(A.reshape(trainable.down[name].shape))


def read_pairs(trainable: Trainable, spec: LoraSpec) -> dict[str, Factors]:
    """B and A of every branch as they were trained, the scaling inside B."""
    return {
        name: Factors(spec.scaling * trainable.up[name].detach().flatten(1), A.detach().flatten(1).clone())
        for name, A in trainable.down.items()
    }


def read_adapter(net: nn.Module, start: dict[str, Tensor], spec: LoraSpec) -> dict[str, Factors]:
    """The update that training made, as balanced factors per layer of the base.

    Args:
        net: a network after :func:`inject` and training.
        start: the folded state dict it started from.
        spec: as given to :func:`inject`.

    Returns:
        Factors by parameter name, of the trained levels only; narrow layers at their full rank, nothing is cut.
    """
    adapter: dict[str, Factors] = {}
    for name in trained_layers(start, spec):
        W = start[name]
        if is_wide(W, spec.wide_from):
            adapter[name] = _read_branch(net, name, spec.scaling)
        else:
            now = net.get_parameter(name).detach()
            adapter[name] = factorise(now - W, W.shape[0])[0]
    return adapter


def _read_branch(net: nn.Module, name: str, scaling: float) -> Factors:
    B, A = _branch(net, name, "B").detach(), _branch(net, name, "A").detach()
    return truncate(Factors(scaling * B.flatten(1), A.flatten(1)), A.shape[0])[0]
