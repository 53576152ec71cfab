"""Benchmark: what a round costs a site on its link, in requests, bytes and seconds of waiting for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.admit import admit_updates
from tasks.bench_run import MeteredWorkspace, make_run, prepare_patients
from tasks.close import close_round
from tasks.enrol import found_federation
from tasks.judge import judge_merged
from tasks.ledger import get_record, plan_key
from tasks.merge import merge_updates
from tasks.open import open_round
from tasks.rate import rate_candidates
from tasks.records import Plan
from tasks.settings import Environment, Params, lay_over
from tasks.site_round import next_duty, take_part
from tasks.train import train_site
from tasks.weights import base_weights

SHORT = ("training.steps=2", "judge.tolerance=0.99")
"""Two steps fill the budget of an upload as well as twenty; and a step is in force whatever it is worth."""
ROUND = ("train", "rate", "judge", "adapt")
LOOKS = ("each look before admission", "each look before the close")
STEPS = ("base, once", *ROUND, *LOOKS)


@dataclass(frozen=True)
class Line:
    """A link under test.

    Attributes:
        name: in words.
        env: of the store behind it.
        carried: bytes that it has carried so far, up and down.
    """

    name: str
    env: Environment
    carried: Callable[[], tuple[int, int]]


@dataclass(frozen=True)
class StepCost:
    """What one step of a round took on one link.

    Attributes:
        link: its name.
        step: of :data:`STEPS`.
        requests: to the store.
        sent_bytes: payloads up.
        received_bytes: payloads down.
        up_bytes: on the link, headers included.
        down_bytes: likewise.
        seconds: of waiting for the store.
    """

    link: str
    step: str
    requests: int
    sent_bytes: int
    received_bytes: int
    up_bytes: int
    down_bytes: int
    seconds: float


def bench_link(params: Params, root: Path, env: Environment, lines: Sequence[Line]) -> tuple[StepCost, ...]:
    """Play one round in which a site sits behind every line, and as many beside them as rating asks for.

    Payloads and records have the size that the settings give them; only the training is cut short.

    Args:
        params: settings of the federation.
        root: for the run's folder.
        env: of the store, for the hub and the other sites.
        lines: the links, which end at that store.

    Returns:
        A cost per line and step, in the order of :data:`STEPS`.
    """
    n = max(params.rating.raters + 1, params.federation.quorum, len(lines) + 1)
    others = [f"site-{k:03d}" for k in range(len(lines), n)]
    sites = [f"site-{k:03d}" for k in range(n)]
    short = lay_over(params, SHORT)
    hub, base = make_run(root / "run", prepare_patients(root / "patients", short), short, sites, env)
    found_federation(hub, base)
    open_round(hub, 1)
    behind = [_Behind(line, hub, site) for line, site in zip(lines, sites, strict=False)]
    for each in behind:
        each.does("base, once", each.fetch_base)
        each.takes_part("train")
        each.does(LOOKS[0], each.look)
    for site in others:
        train_site(hub, 1, site)
    admit_updates(hub, 1)
    for each in behind:
        each.takes_part("rate")
    for site in others:
        rate_candidates(hub, 1, site)
    merge_updates(hub, 1)
    for each in behind:
        each.takes_part("judge")
        each.does(LOOKS[1], each.look)
    for site in others:
        judge_merged(hub, 1, site)
    close_round(hub, 1)
    for each in behind:
        each.takes_part("adapt")
    return tuple(each.costs[step] for each in behind for step in STEPS)


def whole_round(costs: Sequence[StepCost], link: str) -> StepCost:
    """What the steps of :data:`ROUND` took together on one link."""
    own = [c for c in costs if c.link == link and c.step in ROUND]
    return StepCost(
        link=link,
        step="a round",
        requests=sum(c.requests for c in own),
        sent_bytes=sum(c.sent_bytes for c in own),
        received_bytes=sum(c.received_bytes for c in own),
        up_bytes=sum(c.up_bytes for c in own),
        down_bytes=sum(c.down_bytes for c in own),
        seconds=sum(c.seconds for c in own),
    )


class _Behind:
    """A site behind a line, which measures what it does."""

    def __init__(self, line: Line, hub: MeteredWorkspace, site: str) -> None:
        self._line, self._site = line, site
        self._ws = MeteredWorkspace(hub.root, hub.params, line.env)
        self.costs: dict[str, StepCost] = {}

    def does(self, step: str, work: Callable[[], object]) -> None:
        store, (up, down) = self._ws.store, self._line.carried()
        calls, sent, received, seconds = store.calls, store.bytes_sent, store.bytes_received, store.seconds
        work()
        now_up, now_down = self._line.carried()
        self.costs[step] = StepCost(
            link=self._line.name,
            step=step,
            requests=store.calls - calls,
            sent_bytes=store.bytes_sent - sent,
            received_bytes=store.bytes_received - received,
            up_bytes=now_up - up,
            down_bytes=now_down - down,
            seconds=round(store.seconds - seconds, 3),
        )

    def takes_part(self, duty: str) -> None:
        def work() -> None:
            done = take_part(self._ws, 1, self._site, patience_s=0)
            assert done == (duty,), done

        self.does(duty, work)

    def fetch_base(self) -> None:
        self._plan = get_record(self._ws.store, plan_key(1), Plan)
        base_weights(self._ws.store, self._plan.base, self._ws.site_home(self._site))

    def look(self) -> None:
        """As a site does that waits; it has read the plan before."""
        next_duty(self._ws, 1, self._site, self._plan)
