"""Benchmark: CPU time of one local training step, adapters against full weights, and where it goes.

One thread, processor time. Variants take turns in mirrored order (A B C, C B A, …), so that a machine that slows down
slows all of them; every ratio is between steps taken side by side.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from statistics import median, quantiles
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from model.batches import augmented_batches
from model.labels import N_CLASSES
from model.network import build_net
from model.seeds import derive_generator, derive_seed
from model.training import Group, Training
from tasks.adapter_spec import lora_spec
from tasks.settings import Params
from tasks.slices import Slices
from tasks.train import train_lora

TARGET = 0.75
"""Of a full-weight step's time: the most that a step of an adapter may take."""

FULL = "full weights"
PHASES = ("batch", "forward", "loss", "backward", "optimiser")
"""In their order; ``batch`` is drawing and augmenting, which no way of training can save."""

_WARM_UP = 3
_SLICES = 64
_LOSS = "loss"

K = TypeVar("K")


@dataclass(frozen=True)
class Spread:
    """Median and quartiles."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class StepCost:
    """One way of training.

    Attributes:
        variant: full weights, or an adapter of some rank.
        trained: number of trained parameters.
        phases_ms: time per phase of :data:`PHASES`.
        step_ms: all phases but the batch.
        ratio: ``step_ms`` by that of full weights.
        ratio_with_batch: the same for all phases.
    """

    variant: str
    trained: int
    phases_ms: Mapping[str, Spread]
    step_ms: Spread
    ratio: Spread
    ratio_with_batch: Spread


@dataclass(frozen=True)
class PartCost:
    """A part of the network, or the loss, in one way of training.

    Attributes:
        variant: as in :class:`StepCost`.
        part: such as ``down.0``, the encoder's highest resolution.
        forward_ms: median.
        backward_ms: median; 0 where nothing is computed backwards.
    """

    variant: str
    part: str
    forward_ms: float
    backward_ms: float


@dataclass(frozen=True)
class StepsBench:
    """The benchmark's result.

    Attributes:
        channels: of the network.
        batch: slices per step.
        crop: side of a slice, pixels.
        repetitions: steps per variant.
        steps: one per variant, full weights first.
        parts: by variant, in the order of the forward pass.
    """

    channels: tuple[int, ...]
    batch: int
    crop: int
    repetitions: int
    steps: tuple[StepCost, ...]
    parts: tuple[PartCost, ...]

    @property
    def met(self) -> bool:
        """Whether the adapter of every rank stays within :data:`TARGET`, by the median."""
        return all(s.ratio.median <= TARGET for s in self.steps if s.variant != FULL)


def bench_steps(params: Params, repetitions: int = 40, part_repetitions: int = 10) -> StepsBench:
    """Time training steps as the sites take them, on slices of noise; what they show costs no time.

    Args:
        params: network, batch, crop, and everything of the adapter; its largest and smallest rank are measured.
        repetitions: steps per variant, at least 2.
        part_repetitions: further steps in which the parts of the network are timed.

    Returns:
        Times and ratios, and where the time goes.
    """
    ranks = sorted({params.lora.rank_max, params.lora.rank_min}, reverse=True)
    steps = 2 * _WARM_UP + repetitions + part_repetitions
    with _one_thread():
        trainings = {FULL: _full_training(params, steps)}
        trainings |= {f"adapter of rank {r}": _lora_training(params, r, steps) for r in ranks}
        phases = _by_turns(trainings, time_phases, repetitions)
        parts = _by_turns(trainings, time_parts, part_repetitions)
    return StepsBench(
        channels=params.network.channels,
        batch=params.training.batch,
        crop=params.data.crop,
        repetitions=repetitions,
        steps=tuple(
            _step_cost(variant, training, phases[variant], phases[FULL])
            for variant, training in trainings.items()
        ),
        parts=tuple(cost for variant in trainings for cost in _part_costs(variant, parts[variant])),
    )


def time_phases(training: Training) -> dict[str, float]:
    """Take one step and time its phases, from outside: hooks mark where one ends and the next begins.

    Args:
        training: advanced by one step.

    Returns:
        Milliseconds by phase; gradient clipping and FedProx count as backward.
    """
    marks: list[tuple[str, float]] = []

    def mark(name: str) -> Callable[..., None]:
        return lambda *_: marks.append((name, _now_ms()))

    with _hooked(
        training.net.register_forward_pre_hook(mark("forward")),
        training.net.register_forward_hook(mark("loss")),
        training.loss.register_forward_hook(mark("backward")),
        training.optimizer.register_step_pre_hook(mark("optimiser")),
    ):
        mark("batch")()
        training.step()
        mark("end")()
    return {name: end - start for (name, start), (_, end) in pairwise(marks)}


def time_parts(training: Training) -> dict[tuple[str, str], float]:
    """Take one step and time the network's parts: forward by its calls, backward from gradient to gradient.

    The backward pass reaches the parts in reverse order. A part's share runs from the moment the gradient of its
    output is complete to the same moment of the next part; the last one's to the optimiser.

    Args:
        training: advanced by one step.

    Returns:
        Milliseconds by part and ``forward`` or ``backward``; parts without gradient have no ``backward``.
    """
    started: dict[str, float] = {}
    times: dict[tuple[str, str], float] = {}
    backward: list[tuple[str, float]] = []

    def enter(part: str) -> Callable[..., None]:
        return lambda *_: started.update({part: _now_ms()})

    def leave(part: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            times[part, "forward"] = _now_ms() - started[part]
            if part == _LOSS:
                backward.append((_LOSS, _now_ms()))
            elif output.requires_grad:
                output.register_hook(  # type: ignore[no-untyped-call]
                    lambda _: backward.append((part, _now_ms()))
                )

        return hook

    parts = [*network_parts(training.net), (_LOSS, training.loss)]
    handles = [part.register_forward_pre_hook(enter(name)) for name, part in parts]
    handles += [part.register_forward_hook(leave(name)) for name, part in parts]
    end = training.optimizer.register_step_pre_hook(lambda *_: backward.append(("", _now_ms())))
    with _hooked(*handles, end):
        training.step()
    times |= {(part, "backward"): stop - start for (part, start), (_, stop) in pairwise(backward)}
    return times


def network_parts(net: nn.Module) -> list[tuple[str, nn.Module]]:
    """Name the parts of a network: its children, lists of modules taken apart."""
    parts: list[tuple[str, nn.Module]] = []
    for name, child in net.named_children():
        if isinstance(child, nn.ModuleList):
            parts += [(f"{name}.{i}", part) for i, part in enumerate(child)]
        else:
            parts.append((name, child))
    return parts


def _full_training(params: Params, steps: int) -> Training:
    """As FedAvg of full weights trains a site."""
    settings, slices = params.training, _noise(params)
    net = build_net(params.network.channels, derive_generator(params.seed, "bench", "net"))
    return Training(
        net,
        [Group(net.parameters(), settings.learning_rate_full)],
        augmented_batches(slices.images, slices.masks, settings.batch, derive_seed(params.seed, "order")),
        steps,
        settings.weight_decay,
        derive_generator(params.seed, "train"),
    )


def _lora_training(params: Params, rank: int, steps: int) -> Training:
    net = build_net(params.network.channels, derive_generator(params.seed, "bench", "net"))
    return train_lora(net, _noise(params), lora_spec(params, rank), params, steps, params.seed)


def _noise(params: Params) -> Slices:
    """As many slices as whole batches hold, so that every step has a full one."""
    generator, side = derive_generator(params.seed, "bench", "slices"), params.data.crop
    n = params.training.batch * max(1, _SLICES // params.training.batch)
    images = torch.randn(n, 1, side, side, generator=generator)
    masks = torch.randint(0, N_CLASSES, (n, side, side), generator=generator)
    zeros = torch.zeros(n, dtype=torch.int64)
    return Slices(images, masks, zeros, zeros, zeros)


def _by_turns(
    trainings: dict[str, Training], timed: Callable[[Training], dict[K, float]], repetitions: int
) -> dict[str, list[dict[K, float]]]:
    """Each variant's repetitions, the variants taking turns in mirrored order; warm-up left out."""
    taken: dict[str, list[dict[K, float]]] = {variant: [] for variant in trainings}
    for i in range(-_WARM_UP, repetitions):
        order = list(trainings) if i % 2 == 0 else list(reversed(trainings))
        for variant in order:
            times = timed(trainings[variant])
            if i >= 0:
                taken[variant].append(times)
    return taken


def _step_cost(
    variant: str, training: Training, own: list[dict[str, float]], full: list[dict[str, float]]
) -> StepCost:
    wholes, steps = _sums(own)
    full_wholes, full_steps = _sums(full)
    return StepCost(
        variant=variant,
        trained=sum(p.numel() for p in training.parameters),
        phases_ms={name: _spread([times[name] for times in own]) for name in PHASES},
        step_ms=_spread(steps),
        ratio=_spread([a / b for a, b in zip(steps, full_steps, strict=True)]),
        ratio_with_batch=_spread([a / b for a, b in zip(wholes, full_wholes, strict=True)]),
    )


def _sums(taken: list[dict[str, float]]) -> tuple[list[float], list[float]]:
    """Per repetition all phases, and all but the batch."""
    wholes = [sum(times.values()) for times in taken]
    return wholes, [whole - times["batch"] for whole, times in zip(wholes, taken, strict=True)]


def _part_costs(variant: str, taken: list[dict[tuple[str, str], float]]) -> Iterator[PartCost]:
    for part in dict.fromkeys(name for name, _ in taken[0]):
        forward, backward = (
            median(times.get((part, way), 0.0) for times in taken) for way in ("forward", "backward")
        )
        yield PartCost(variant, part, round(forward, 2), round(backward, 2))


def _spread(values: list[float]) -> Spread:
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return Spread(round(middle, 4), round(low, 4), round(high, 4))


def _now_ms() -> float:
    return 1000 * time.process_time()


@contextmanager
def _hooked(*handles: Any) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
