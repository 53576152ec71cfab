"""Training as a value: every step is determined by the state before it, so an interrupted run continues exactly."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from monai.losses import DiceCELoss
from torch import Generator, Tensor, nn

Batch = tuple[Tensor, Tensor]
"""Images ``(N, 1, Y, X)`` float32 and masks ``(N, Y, X)`` int64."""


@dataclass(frozen=True)
class Group:
    """Parameters that share a peak learning rate."""

    parameters: Iterable[nn.Parameter]
    learning_rate: float


class Training:
    """AdamW with a cosine schedule over a fixed number of steps, loss Dice + cross-entropy.

    Args:
        net: trained in place; parameters outside the groups stay frozen.
        groups: what is trained, and how fast.
        draw: takes the step's index and the generator, returns the batch.
        steps: length of the schedule.
        weight_decay: of AdamW.
        generator: the only source of randomness.
    """

    def __init__(
        self,
        net: nn.Module,
        groups: list[Group],
        draw: Callable[[int, Generator], Batch],
        steps: int,
        weight_decay: float,
        generator: Generator,
    ) -> None:
        self.net, self.draw, self.steps, self.generator = net, draw, steps, generator
        self.curve: list[float] = []
        listed = [(list(g.parameters), g.learning_rate) for g in groups]
        self.peaks = [rate for parameters, rate in listed if parameters]
        self.parameters = [p for parameters, _ in listed for p in parameters]
        self.optimizer = torch.optim.AdamW(
            [{"params": parameters} for parameters, _ in listed if parameters], weight_decay=weight_decay
        )
        self.loss = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)

    @property
    def done(self) -> int:
        """Steps taken so far."""
        return len(self.curve)

    def step(self) -> float:
        """Take one step and return its loss."""
        fade = 0.5 * (1 + math.cos(math.pi * self.done / self.steps))
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * fade
        self.net.train()
        images, masks = self.draw(self.done, self.generator)
        loss: Tensor = self.loss(self.net(images), masks[:, None])
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.curve.append(float(loss.detach()))
        return self.curve[-1]

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
