"""What noise on updates costs in Dice: a federation on a run's own sites and base, round by round, noise by noise."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev

from safetensors.torch import load
from torch import Tensor

from model.factors import Factors, adapter_norm
from model.noise import privatise
from model.seeds import derive_generator
from tasks.pretrain import need_base
from tasks.settings import Dp, Params
from tasks.spending import epsilon_of
from tasks.study.by_steps import run_steps
from tasks.study.members import read_members
from tasks.study.memo import Memo
from tasks.study.scenarios import SCENARIOS
from tasks.study.trial import Trial


@dataclass(frozen=True)
class PrivacyCost:
    """One strength of noise.

    Attributes:
        noise: multiplier; None without clipping and noise.
        epsilon: of a site's contribution to all rounds; None where nothing bounds it.
        dice: after the last round, mean over sites of the validation slices, for each seed.
        norms: of the updates before clipping, over all sites and rounds, for each seed their mean.
    """

    noise: float | None
    epsilon: float | None
    dice: tuple[float, ...]
    norms: tuple[float, ...]

    @property
    def spread(self) -> float:
        """Standard deviation over seeds."""
        return stdev(self.dice) if len(self.dice) > 1 else 0.0


@dataclass(frozen=True)
class PrivacyBench:
    """All strengths of noise.

    Attributes:
        sites: that took part.
        rounds: of each federation.
        clip: L2 norm that updates are clipped to.
        delta: of ε.
        before: Dice of the base, mean over sites of the validation slices.
        costs: one per strength, without noise first.
    """

    sites: int
    rounds: int
    clip: float
    delta: float
    before: float
    costs: tuple[PrivacyCost, ...]


def bench_privacy(
    params: Params,
    root: Path,
    dp: Dp,
    noises: Sequence[float],
    seeds: Sequence[int],
    say: Callable[[str], None] = lambda _: None,
) -> PrivacyBench:
    """Play the protocol of the study (:mod:`tasks.study.by_steps`, no ledger) with noise on every site's update.

    Args:
        params: of the federation.
        root: of a run: its ``cohort/`` and ``base/`` are read.
        dp: clip and δ; its noise is replaced.
        noises: multipliers.
        seeds: of training and noise.
        say: is told what comes next.

    Returns:
        Dice and ε by strength of noise.

    Raises:
        ConfigError: the run has no base.
        UnreadableError: a site's slices cannot be read.
    """
    base = need_base(root / "base")
    weights = load((root / "base" / f"{base.sha256}.safetensors").read_bytes())
    quiet = params.package.model_copy(update={"feedback": False})  # as a site does that adds noise
    costs, sites, before = [], 0, 0.0
    for noise in (None, *noises):
        own = params if noise is None else params.model_copy(update={"package": quiet})
        dice, norms = [], []
        for seed in seeds:
            say(f"noise {noise or 'none'}, seed {seed}")
            members = read_members(root / "cohort", SCENARIOS["clean"], own, seed)
            with tempfile.TemporaryDirectory(prefix="cardiofed-bench-") as memo:
                trial = _NoisyTrial(
                    own, SCENARIOS["clean"], members, weights, seed, Memo(Path(memo), "bench")
                )
                trial.dp = None if noise is None else dp.model_copy(update={"noise": noise})
                run_steps(trial, "rated")
                before = mean(float(trial.validate(weights, s).nanmean(1).nanmean()) for s in trial.sites)
            last = trial.table().query("round == round.max()")
            dice.append(float(last["validation_dice"].mean()))
            norms.append(mean(trial.norms))
            sites = len(trial.sites)
        epsilon = None if noise is None else epsilon_of([noise] * params.federation.rounds, dp.delta)
        costs.append(PrivacyCost(noise, epsilon, tuple(dice), tuple(norms)))
    return PrivacyBench(sites, params.federation.rounds, dp.clip, dp.delta, before, tuple(costs))


@dataclass
class _NoisyTrial(Trial):
    """A trial whose sites add noise to what they have trained; the noise is drawn from the seed, to be repeatable."""

    dp: Dp | None = None
    norms: list[float] = field(default_factory=list)

    def train(self, site: str, start: dict[str, Tensor], steps: int, seed: int) -> dict[str, Factors]:
        """See :meth:`tasks.study.trial.Trial.train`."""
        update = super().train(site, start, steps, seed)
        self.norms.append(adapter_norm(update))
        if self.dp is None:
            return update
        return privatise(update, self.dp.clip, self.dp.noise, derive_generator(seed, "noise"))
