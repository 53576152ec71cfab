"""Benchmark: what a round costs the hub per site, for few sites and for many.

Every site is real but for its size: a tiny network, a few small patients, two steps. So what is left is the protocol;
the merge of networks of full size has a benchmark of its own (:mod:`tasks.bench_merge`).
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.adapt import adapt_site
from tasks.admit import admit_updates
from tasks.audit.record import append_missing
from tasks.awaiting import await_sites
from tasks.bench_merge import _peak_bytes, _reset_peak
from tasks.bench_run import MeteredWorkspace, make_run, prepare_patients, speaking_to
from tasks.close import close_round
from tasks.durations import SitePhase
from tasks.enrol import found_federation
from tasks.judge import judge_merged
from tasks.ledger import candidates_key, close_key, merge_key, plan_key
from tasks.merge import merge_updates
from tasks.mirror import keep_round
from tasks.open import open_round
from tasks.rate import rate_candidates
from tasks.report import render_report
from tasks.settings import Environment, Params, lay_over
from tasks.standing import round_standing
from tasks.train import train_site

TINY = (
    "network.channels=[4,8]",
    "data.crop=32",
    "data.spacing_mm=4.0",
    "pretrain.steps=1",
    "training.steps=2",
    "training.batch=16",
    "rating.slices=4",
    "lora.rank_max=4",
    "lora.rank_min=2",
    "lora.wide_from=500",
    "lora.trained_levels=1",
    "merge.rank_max=16",
)
PHASES = ("found", "open", "wait", "admit", "merge", "close", "version", "report", "audit", "status")
"""What the hub does in a round. ``wait`` is one look at every site in each of the four phases that it waits for;
``audit`` continues the audit log after each of the hub's phases."""
RECORDS = {"plan": plan_key, "candidates": candidates_key, "merge": merge_key, "close": close_key}
"""The hub's records that every site reads."""


@dataclass(frozen=True)
class PhaseCost:
    """What one phase took at the hub.

    Attributes:
        sites: in the round.
        phase: of :data:`PHASES`.
        seconds: wall time.
        cpu_s: CPU time of this process and of its children (git), not of the store.
        peak_bytes: highest resident set above the one before.
        calls: of the store, DVC's own left out.
    """

    sites: int
    phase: str
    seconds: float
    cpu_s: float
    peak_bytes: int
    calls: int


@dataclass(frozen=True)
class ScaleBench:
    """The benchmark's result.

    Attributes:
        costs: per number of sites and phase, in order.
        records_bytes: number of sites → each of :data:`RECORDS` → its size.
    """

    costs: tuple[PhaseCost, ...]
    records_bytes: dict[int, dict[str, int]]


def site_counts(most: int) -> tuple[int, ...]:
    """A quarter as many every time, down to 4, and last ``most``, which is at least 4."""
    counts = [most]
    while counts[0] >= 8:
        counts.insert(0, max(4, counts[0] // 4))
    return tuple(counts)


def bench_scale(params: Params, root: Path, env: Environment, counts: Sequence[int]) -> ScaleBench:
    """Play a round with every number of sites, one site after the other, and measure the hub's phases.

    Args:
        params: of the protocol; what makes networks and training large is replaced.
        root: for the runs' folders.
        env: of a store; every run gets a bucket of its own.
        counts: numbers of sites, at least 2 each.

    Returns:
        Costs and sizes of records.
    """
    tiny = lay_over(params, TINY)
    prepared = prepare_patients(root / "patients", tiny)
    play(tiny, prepared, root / "first", env, 2)  # loads what a phase loads on its first use
    played = {n: play(tiny, prepared, root / f"of-{n}", env, n) for n in counts}
    return ScaleBench(
        costs=tuple(cost for costs, _ in played.values() for cost in costs),
        records_bytes={n: records for n, (_, records) in played.items()},
    )


def in_all(result: ScaleBench, sites: int) -> PhaseCost:
    """All phases of a round together; of memory the highest."""
    return _together("in all", [cost for cost in result.costs if cost.sites == sites])


def play(
    params: Params, prepared: Path, run: Path, env: Environment, n: int
) -> tuple[list[PhaseCost], dict[str, int]]:
    """One round of ``n`` sites.

    Args:
        params: of the run.
        prepared: the patients of every site.
        run: its folder, new; its name becomes part of the bucket's.
        env: of the store.
        n: number of sites, at least 2.

    Returns:
        Costs in the order of :data:`PHASES`, and the sizes of :data:`RECORDS`.
    """
    own = env.model_copy(update={"s3_bucket": f"scale-{run.name}"})
    sites = [f"site-{k:03d}" for k in range(n)]
    gc.freeze()  # or every measurement of memory would begin with a search through all loaded code
    with speaking_to(own):
        ws, base = make_run(run, prepared, params, sites, own)
        hub = _Hub(ws, n)
        hub.does("found", lambda: found_federation(ws, base))
        hub.does("open", lambda: open_round(ws, 1))
        hub.does("audit", lambda: append_missing(ws, 1))
        hub.asks("train", train_site, sites)
        hub.does("admit", lambda: admit_updates(ws, 1))
        hub.does("audit", lambda: append_missing(ws, 1))
        hub.asks("rate", rate_candidates, sites)
        hub.does("merge", lambda: merge_updates(ws, 1))
        hub.does("audit", lambda: append_missing(ws, 1))
        hub.asks("judge", judge_merged, sites)
        hub.does("close", lambda: close_round(ws, 1))
        hub.does("audit", lambda: append_missing(ws, 1))
        hub.asks("adapt", adapt_site, sites)
        hub.does("version", lambda: keep_round(ws, 1))
        hub.does("audit", lambda: append_missing(ws, 1, thorough=True))
        hub.does(
            "report", lambda: render_report(ws.root, ws.hub_home / "report.html", images=False, tested=False)
        )
        hub.does("status", lambda: round_standing(ws, 1))
    gc.unfreeze()
    records = {name: len(ws.store.get(key(1))) for name, key in RECORDS.items()}
    return [hub.cost(phase) for phase in PHASES], records


class _Hub:
    """Measures what the hub does; what several waits cost is added up."""

    def __init__(self, ws: MeteredWorkspace, n: int) -> None:
        self._ws, self._n = ws, n
        self._costs: dict[str, list[PhaseCost]] = {}

    def does(self, phase: str, work: Callable[[], object]) -> None:
        before, _ = _reset_peak()
        calls, started, cpu = self._ws.store.calls, time.perf_counter(), _cpu_s()
        work()
        seconds, cpu_s = time.perf_counter() - started, _cpu_s() - cpu
        cost = PhaseCost(self._n, phase, seconds, cpu_s, _peak_bytes() - before, self._ws.store.calls - calls)
        self._costs.setdefault(phase, []).append(cost)

    def asks(
        self, phase: SitePhase, verb: Callable[[MeteredWorkspace, int, str], object], sites: list[str]
    ) -> None:
        for site in sites:
            verb(self._ws, 1, site)
        self.does("wait", lambda: await_sites(self._ws, 1, phase, sites))

    def cost(self, phase: str) -> PhaseCost:
        return _together(phase, self._costs[phase])


def _together(phase: str, costs: Sequence[PhaseCost]) -> PhaseCost:
    return PhaseCost(
        sites=costs[0].sites,
        phase=phase,
        seconds=round(sum(c.seconds for c in costs), 4),
        cpu_s=round(sum(c.cpu_s for c in costs), 4),
        peak_bytes=max(c.peak_bytes for c in costs),
        calls=sum(c.calls for c in costs),
    )


def _cpu_s() -> float:
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system
