"""Training as a value: every step is determined by the state before it, so an interrupted run continues exactly."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from monai.losses import DiceCELoss
from torch import Generator, Tensor, nn

from model.methods.fedprox import proximal_gradient
from model.partial import is_partial, partial_loss

Batch = tuple[Tensor, Tensor]
"""Images ``(N, 1, Y, X)`` float32 and masks ``(N, Y, X)`` int64, which may be partial (:mod:`model.partial`)."""


@dataclass(frozen=True)
class Group:
    """Parameters that share a peak learning rate."""

    parameters: Iterable[nn.Parameter]
    learning_rate: float


@dataclass(frozen=True)
class ColdStart:
    """What training from random weights needs and adapting does not.

    Without it the network settles, for most seeds, on never answering RV, the hardest structure.

    Attributes:
        warm_up: steps over which the learning rate rises.
        clip_norm: largest gradient norm.
        class_weights: of the cross-entropy, by label.
    """

    warm_up: int = 60
    clip_norm: float = 1.0
    class_weights: tuple[float, ...] = (0.25, 1.5, 1.0, 1.0)


class Training:
    """AdamW with a cosine schedule over a fixed number of steps, loss Dice + cross-entropy.

    Args:
        net: trained in place; parameters outside the groups stay frozen.
        groups: what is trained, and how fast.
        draw: takes the step's index and the generator, returns the batch.
        steps: length of the schedule.
        weight_decay: of AdamW.
        generator: the only source of randomness.
        cold: given when the network starts from random weights.
        proximal: μ of FedProx (:func:`model.methods.fedprox.proximal_gradient`); the anchor is what the parameters
            are at construction, so a resumed training must be built from the same start.
    """

    def __init__(
        self,
        net: nn.Module,
        groups: list[Group],
        draw: Callable[[int, Generator], Batch],
        steps: int,
        weight_decay: float,
        generator: Generator,
        cold: ColdStart | None = None,
        proximal: float = 0.0,
    ) -> None:
        self.net, self.draw, self.steps, self.generator, self.cold = net, draw, steps, generator, cold
        self.curve: list[float] = []
        listed = [(list(g.parameters), g.learning_rate) for g in groups]
        self.peaks = [rate for parameters, rate in listed if parameters]
        self.parameters = [p for parameters, _ in listed for p in parameters]
        self.optimizer = torch.optim.AdamW(
            [{"params": parameters} for parameters, _ in listed if parameters], weight_decay=weight_decay
        )
        self.proximal = proximal
        self.anchors = [p.detach().clone() for p in self.parameters] if proximal else []
        self.weights = None if cold is None else torch.tensor(cold.class_weights)
        self.loss = DiceCELoss(
            include_background=False, to_onehot_y=True, softmax=True, batch=True, weight=self.weights
        )

    @property
    def done(self) -> int:
        """Steps taken so far."""
        return len(self.curve)

    def step(self) -> float:
        """Take one step and return its loss."""
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * self._pace()
        self.net.train()
        images, masks = self.draw(self.done, self.generator)
        loss = self._loss(self.net(images), masks)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._pull_back()
        if self.cold is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.cold.clip_norm)
        self.optimizer.step()
        self.curve.append(float(loss.detach()))
        return self.curve[-1]

    def _loss(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Of whole masks as ever; of partial ones over what was annotated."""
        if is_partial(masks):
            return partial_loss(logits, masks, self.weights)
        loss: Tensor = self.loss(logits, masks[:, None])
        return loss

    def _pull_back(self) -> None:
        """Add FedProx's gradient to what the loss gave."""
        if not self.proximal:
            return
        with torch.no_grad():
            for p, anchor in zip(self.parameters, self.anchors, strict=True):
                if p.grad is not None:
                    p.grad += proximal_gradient(p, anchor, self.proximal)

    def _pace(self) -> float:
        """Fraction of the peak learning rate at this step: cosine, after a linear rise from a cold start."""
        fade = 0.5 * (1 + math.cos(math.pi * self.done / self.steps))
        return fade if self.cold is None else fade * min(1.0, (self.done + 1) / self.cold.warm_up)

    def state(self) -> dict[str, Tensor]:
        """All that the remaining steps depend on, as tensors."""
        state = {
            "curve": torch.tensor(self.curve, dtype=torch.float64),
            "generator": self.generator.get_state(),
        }
        for i, p in enumerate(self.parameters):
            state[f"parameter.{i}"] = p.detach().clone()
            for key, value in self.optimizer.state.get(p, {}).items():
                state[f"optimizer.{i}.{key}"] = value.clone()
        return state

    def restore(self, state: dict[str, Tensor]) -> None:
        """Continue from :meth:`state` of a training built the same way."""
        self.curve = state["curve"].tolist()
        self.generator.set_state(state["generator"])
        self.optimizer.state.clear()
        with torch.no_grad():
            for i, p in enumerate(self.parameters):
                p.copy_(state[f"parameter.{i}"])
                prefix = f"optimizer.{i}."
                kept = {k.removeprefix(prefix): v.clone() for k, v in state.items() if k.startswith(prefix)}
                if kept:
                    self.optimizer.state[p] = kept
