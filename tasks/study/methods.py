"""All methods of the study by name: one setting chooses, data, steps and network stay the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pandas as pd

from tasks.study.by_pairs import PAIR_METHODS, PairMethod, run_pairs
from tasks.study.by_steps import Merge, run_steps
from tasks.study.by_weights import run_alone, run_fedavg, run_fedce, run_pooled, run_zero_shot
from tasks.study.cell import Outcome, Weights
from tasks.study.trial import Trial


@dataclass(frozen=True)
class Method:
    """One way from the base to a model.

    Attributes:
        run: trains; leaves its numbers in the trial.
        family: heading in tables: ``reference``, ``full weights``, ``lora`` or ``ours``.
        adapts: how sites adapt the global model at the end: ``lora``, ``full`` or not at all.
        settings: laid over ``params.yaml``, as ``section.key=value``.
    """

    run: Callable[[Trial], Outcome]
    family: str
    adapts: str = ""
    settings: tuple[str, ...] = ()


def _plain(train: Callable[[Trial], dict[str, Weights]], trial: Trial) -> Outcome:
    return Outcome(train(trial), trial.table(), pd.DataFrame())


def _pairs(method: PairMethod, trial: Trial) -> Outcome:
    return Outcome(run_pairs(trial, method), trial.table(), pd.DataFrame())


def _steps(merge: Merge, trial: Trial, shared_down: bool = False) -> Outcome:
    models, gains = run_steps(trial, merge, shared_down)
    return Outcome(models, trial.table(), gains)


def _by_step(merge: Merge, *settings: str, family: str = "lora", shared_down: bool = False) -> Method:
    return Method(partial(_steps, merge, shared_down=shared_down), family, "lora", settings)


_ALL_RANKS = ("package.dtype=fp16", "package.upload_bytes=0", "package.download_bytes=0")
"""Adapters as the papers send them: every rank, fp16."""

METHODS: dict[str, Method] = {
    "zero-shot": Method(partial(_plain, run_zero_shot), "reference"),
    "local-lora": Method(partial(_plain, partial(run_alone, lora=True)), "reference"),
    "local-full": Method(partial(_plain, partial(run_alone, lora=False)), "reference"),
    "pooled": Method(partial(_plain, run_pooled), "reference"),
    "fedavg": Method(partial(_plain, run_fedavg), "full weights", "full"),
    "fedprox": Method(partial(_plain, partial(run_fedavg, proximal=0.01)), "full weights", "full"),
    "fedce": Method(partial(_plain, run_fedce), "full weights", "full"),
    "fedavgm": _by_step("fedavgm", *_ALL_RANKS),
    "fedadam": _by_step("fedadam", *_ALL_RANKS),
    **{name: Method(partial(_pairs, method), "lora") for name, method in PAIR_METHODS.items()},
    "median": _by_step("median", *_ALL_RANKS),
    "trimmed-mean": _by_step("trimmed-mean", *_ALL_RANKS),
    "krum": _by_step("krum", *_ALL_RANKS),
    "paper": _by_step("paper", *_ALL_RANKS, family="ours"),
    "average": _by_step("average", family="ours"),
    "rated": _by_step("rated", family="ours"),
}
"""Compared on the test."""

CHOICES: dict[str, Method] = {
    **{
        f"fedavg-lr-{rate}": Method(
            METHODS["fedavg"].run, "full weights", settings=(f"training.learning_rate_full={rate}",)
        )
        for rate in ("5e-4", "1e-3", "2e-3", "4e-3")
    },
    "fp16-all-ranks": _by_step("average", *_ALL_RANKS),
    **{
        f"{dtype}-{size}k": _by_step(
            "average", f"package.dtype={dtype}", f"package.upload_bytes={size}000", "package.energy=null"
        )
        for dtype, size in (("int8", 64), ("int8", 32), ("int4", 64), ("int4", 32), ("int4", 16), ("int4", 8))
    },
    "int4-16k-no-feedback": _by_step(
        "average", "package.dtype=int4", "package.upload_bytes=16000", "package.feedback=false"
    ),
    "int4-16k-rank-auto": _by_step(
        "average", "package.dtype=int4", "package.upload_bytes=16000", "lora.rank_rule=auto"
    ),
    "shared-a-16k": _by_step("average", "package.dtype=int4", "package.upload_bytes=16000", shared_down=True),
    "rank-auto-energy-0.9": _by_step(
        "average", "package.dtype=int4", "lora.rank_rule=auto", "package.energy=0.9"
    ),
    "all-levels": _by_step("average", "lora.trained_levels=5"),
}
"""Compared on validation only, to choose settings."""

ALL: dict[str, Method] = METHODS | CHOICES
