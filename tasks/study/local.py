"""Local training in memory: whole weights, or LoRA pairs that may go on from earlier ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from model.batches import augmented_batches
from model.factors import Factors
from model.lora import LoraSpec, inject, read_adapter, read_pairs, set_pairs, trained_layers
from model.network import ResidualUNet, build_net
from model.seeds import derive_generator, derive_seed
from model.training import Group, Training
from tasks.settings import Params
from tasks.slices import Slices
from tasks.study.cell import Weights


@dataclass(frozen=True)
class Pairs:
    """A LoRA training's end.

    Attributes:
        pairs: layer → B and A as trained, the scaling inside B.
        whole: weights of the layers trained whole.
    """

    pairs: dict[str, Factors]
    whole: Weights


def train_weights(
    params: Params, slices: Slices, start: Weights, steps: int, seed: int, proximal: float = 0.0
) -> Weights:
    """All weights after a round's steps from ``start``; FedProx pulls them back by ``proximal``."""
    net = _load(params, start)
    rate = params.training.learning_rate_full
    groups = [Group(net.parameters(), rate)]
    _run(params, net, groups, slices, steps, seed, proximal)
    return {name: p.detach().clone() for name, p in net.state_dict().items()}


def train_adapter(
    params: Params, slices: Slices, start: Weights, spec: LoraSpec, steps: int, seed: int
) -> dict[str, Factors]:
    """The update of a fresh adapter on folded weights, as the live federation trains it."""
    net = _load(params, start)
    trainable = inject(net, spec, derive_generator(seed, "A"))
    _run_lora(params, net, [*trainable.factors], trainable.whole, slices, steps, seed)
    return read_adapter(net, start, spec)


def train_pairs(
    params: Params,
    slices: Slices,
    start: Weights,
    spec: LoraSpec,
    seed: int,
    pairs: Mapping[str, Factors],
    freeze_down: bool = False,
) -> Pairs:
    """Train LoRA on from given pairs.

    Args:
        params: rates, batch and steps.
        slices: the site's training slices.
        start: frozen weights, the pairs not folded in; narrow layers go on from here.
        spec: rank of the site; the pairs have it.
        seed: of order and augmentation.
        pairs: layer → B and A to start from.
        freeze_down: train B only.

    Returns:
        The pairs and the narrow layers after the round's steps.
    """
    net = _load(params, start)
    trainable = inject(net, spec, derive_generator(seed, "A"))
    set_pairs(trainable, pairs, spec)
    factors = [*trainable.up.values()] if freeze_down else trainable.factors
    if freeze_down:
        for A in trainable.down.values():
            A.requires_grad_(False)
    _run_lora(params, net, factors, trainable.whole, slices, params.training.steps, seed)
    layers = [name for name in trained_layers(start, spec) if name not in pairs]
    narrow = {name: net.get_parameter(name).detach().clone() for name in layers}
    return Pairs(read_pairs(trainable, spec), narrow)


def fresh_pairs(params: Params, start: Weights, spec: LoraSpec, seed: int) -> dict[str, Factors]:
    """Untrained pairs: A drawn from the seed, B zero."""
    trainable = inject(_load(params, start), spec, derive_generator(seed, "A"))
    return read_pairs(trainable, spec)


def _load(params: Params, weights: Weights) -> ResidualUNet:
    net = build_net(params.network.channels)
    net.load_state_dict(weights)
    return net


def _run_lora(
    params: Params,
    net: torch.nn.Module,
    factors: list[torch.nn.Parameter],
    whole: list[torch.nn.Parameter],
    slices: Slices,
    steps: int,
    seed: int,
) -> None:
    rates = params.training
    groups = [Group(factors, rates.learning_rate_factors), Group(whole, rates.learning_rate_whole)]
    _run(params, net, groups, slices, steps, seed)


def _run(
    params: Params,
    net: torch.nn.Module,
    groups: list[Group],
    slices: Slices,
    steps: int,
    seed: int,
    proximal: float = 0.0,
) -> None:
    rates = params.training
    draw = augmented_batches(slices.images, slices.masks, rates.batch, derive_seed(seed, "order"))
    training = Training(
        net, groups, draw, steps, rates.weight_decay, derive_generator(seed, "train"), proximal=proximal
    )
    while training.done < training.steps:
        training.step()


def dense(adapter: Mapping[str, Factors], like: Weights) -> dict[str, Tensor]:
    """Dense updates in the shapes of the weights they belong to."""
    return {name: f.product().reshape(like[name].shape) for name, f in adapter.items()}
