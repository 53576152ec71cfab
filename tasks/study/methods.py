"""The methods of the study by name: one setting chooses, data, steps and network stay the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pandas as pd

from model.attacks import UPDATE_ATTACKS
from tasks.study.by_pairs import PAIR_METHODS, PairMethod, run_pairs
from tasks.study.by_steps import run_steps
from tasks.study.by_weights import run_alone, run_fedavg, run_fedce, run_pooled, run_zero_shot
from tasks.study.cell import Outcome, Weights
from tasks.study.merging import OURS, RATES, Merge
from tasks.study.scenarios import Scenario
from tasks.study.trial import Trial


@dataclass(frozen=True)
class Method:
    """One way from the base to a model.

    Attributes:
        run: trains; leaves its numbers in the trial.
        module: the code that it runs.
        family: heading in tables: ``reference``, ``full weights``, ``lora`` or ``ours``.
        merge: the rule, of methods that send one update per round; only these can be attacked by updates, be late or
            miss a site.
        adapts: how sites adapt the global model at the end: ``lora``, ``full`` or not at all.
        settings: laid over ``params.yaml``, as ``section.key=value``.
        default: of a choice, the method that has the default in place of what the choice tries.
    """

    run: Callable[[Trial], Outcome]
    module: str
    family: str
    merge: Merge | None = None
    adapts: str = ""
    settings: tuple[str, ...] = ()
    default: str = ""

    def is_reached_by(self, scenario: Scenario) -> bool:
        """Whether the scenario changes anything for this method."""
        if self.merge is None and (scenario.attack in UPDATE_ATTACKS or scenario.absent or scenario.late):
            return False
        listens = self.merge in (*OURS, *RATES)
        return listens or not scenario.rater_fault or bool(scenario.attack)


_WEIGHTS, _PAIRS, _STEPS = (f"tasks.study.by_{what}" for what in ("weights", "pairs", "steps"))


def _plain(train: Callable[[Trial], dict[str, Weights]], trial: Trial) -> Outcome:
    return Outcome(train(trial), trial.table(), pd.DataFrame())


def _pairs(method: PairMethod, trial: Trial) -> Outcome:
    return Outcome(run_pairs(trial, method), trial.table(), pd.DataFrame())


def by_steps(merge: Merge, trial: Trial, shared_down: bool = False) -> Outcome:
    """A method that sends one update per round, see :func:`tasks.study.by_steps.run_steps`."""
    models, gains = run_steps(trial, merge, shared_down)
    return Outcome(models, trial.table(), gains)


def _by_step(merge: Merge, *settings: str, family: str = "lora") -> Method:
    return Method(partial(by_steps, merge), _STEPS, family, merge, "lora", settings)


def _fedprox(trial: Trial) -> dict[str, Weights]:
    return run_fedavg(trial, trial.params.study.proximal)


ALL_RANKS = ("package.dtype=fp16", "package.upload_bytes=0", "package.download_bytes=0")
"""Adapters as the papers send them: every rank, fp16."""

METHODS: dict[str, Method] = {
    "zero-shot": Method(partial(_plain, run_zero_shot), _WEIGHTS, "reference"),
    "local-lora": Method(partial(_plain, partial(run_alone, lora=True)), _WEIGHTS, "reference"),
    "local-full": Method(partial(_plain, partial(run_alone, lora=False)), _WEIGHTS, "reference"),
    "pooled": Method(partial(_plain, run_pooled), _WEIGHTS, "reference"),
    "fedavg": Method(partial(_plain, run_fedavg), _WEIGHTS, "full weights", adapts="full"),
    "fedprox": Method(partial(_plain, _fedprox), _WEIGHTS, "full weights", adapts="full"),
    "fedce": Method(partial(_plain, run_fedce), _WEIGHTS, "full weights", adapts="full"),
    "upper-levels": _by_step(
        "plain", *ALL_RANKS, "lora.wide_from=1000000000", "merge.rank_max=512", family="full weights"
    ),
    "fedavgm": _by_step("fedavgm", *ALL_RANKS),
    "fedadam": _by_step("fedadam", *ALL_RANKS),
    **{name: Method(partial(_pairs, method), _PAIRS, "lora") for name, method in PAIR_METHODS.items()},
    "median": _by_step("median", *ALL_RANKS),
    "trimmed-mean": _by_step("trimmed-mean", *ALL_RANKS),
    "krum": _by_step("krum", *ALL_RANKS),
    "paper": _by_step("paper", *ALL_RANKS),
    "plain": _by_step("plain", family="ours"),
    "average": _by_step("average", family="ours"),
    "rated": _by_step("rated", family="ours"),
}
"""Compared on the test."""
