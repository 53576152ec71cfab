"""Benchmark: what a round costs with encryption, noise, rounding and TLS on and off; what seals and audit log take.

Every site has its keys alone and the hub's pinned, as on a machine of its own, and reaches the store over a relay that
counts bytes. Training, rating and the sites' data are cut short; records and packages have the size the settings give.
"""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from pyrage.x25519 import Identity as AgeKey

from tasks.adapt import adapt_site
from tasks.admit import admit_updates
from tasks.audit.record import append_missing
from tasks.audit.watch import watch
from tasks.bench_run import MeteredStore, MeteredWorkspace, make_run, prepare_patients
from tasks.close import close_round
from tasks.enrol import found_federation
from tasks.judge import judge_merged
from tasks.ledger import candidates_key, get_record, senders_key
from tasks.merge import merge_updates
from tasks.open import open_round
from tasks.rate import rate_candidates
from tasks.records import Candidates, Senders
from tasks.seal import Seals
from tasks.settings import Environment, Params, lay_over
from tasks.train import train_site
from tasks.trust import HUB, Trust, have_all_identities, identity_folder, pin_hub

SHORT = ("training.steps=2", "rating.slices=4", "judge.tolerance=0.99")
"""What is computed, not what is sent; and a step is in force whatever it is worth."""
NOTHING = ("privacy.encrypt=false", "privacy.digits=6", "privacy.fewest=1", "privacy.dp=null")
_ENCRYPT = ("privacy.encrypt=true",)
_ROUND = ("privacy.digits=4", "privacy.fewest=5")
_NOISE = ("privacy.dp={clip: 2.0, noise: 0.01, delta: 1.0e-5}",)
OFF, ON = "all off", "all on"
PARTS = ("seals", "audit log", "padding")
"""What no setting switches off."""


@dataclass(frozen=True)
class Setting:
    """What is switched on.

    Attributes:
        name: in words.
        overrides: of the settings.
        tls: whether the store speaks TLS.
    """

    name: str
    overrides: tuple[str, ...]
    tls: bool


SETTINGS = (
    Setting(OFF, NOTHING, False),
    Setting("encryption", NOTHING + _ENCRYPT, False),
    Setting("rounding, small cells", NOTHING + _ROUND, False),
    Setting("noise", NOTHING + _NOISE, False),
    Setting("TLS of the store", NOTHING, True),
    Setting(ON, NOTHING + _ENCRYPT + _ROUND + _NOISE, True),
)


@dataclass(frozen=True)
class Server:
    """A store, and the way of the sites to it.

    Attributes:
        env: for the hub.
        sites: for the sites, over the relay.
        carried: bytes that the relay has carried so far, up and down.
    """

    env: Environment
    sites: Environment
    carried: Callable[[], tuple[int, int]]


@dataclass(frozen=True)
class Cost:
    """What something took at the hub or at one site; of several, added up.

    Attributes:
        requests: to the store.
        sent_bytes: payloads up.
        received_bytes: payloads down.
        up_bytes: on the relay, headers and TLS included; 0 at the hub, which is not behind it.
        down_bytes: likewise.
        seconds: wall time.
        cpu_s: CPU time of the thread that works, not of relay and store.
    """

    requests: float = 0
    sent_bytes: float = 0
    received_bytes: float = 0
    up_bytes: float = 0
    down_bytes: float = 0
    seconds: float = 0
    cpu_s: float = 0


@dataclass(frozen=True)
class RoundCost:
    """One round.

    Attributes:
        setting: name of what was on.
        seed: of the federation.
        round: its number.
        hub: all of its phases.
        site: all duties of a site, mean over the sites.
        hub_parts: of :data:`PARTS`, at the hub; ``seals`` without those of the log.
        site_parts: at a site, mean over the sites. Bytes of seals and padding are what records and candidates
            would be shorter without.
    """

    setting: str
    seed: int
    round: int
    hub: Cost
    site: Cost
    hub_parts: Mapping[str, Cost]
    site_parts: Mapping[str, Cost]


@dataclass(frozen=True)
class TrustBench:
    """The benchmark's result.

    Attributes:
        sites: of every federation.
        rounds: a :class:`RoundCost` for each.
    """

    sites: int
    rounds: tuple[RoundCost, ...]

    def of(self, setting: str, who: str, name: str, part: str | None = None) -> tuple[float, float]:
        """Mean and standard deviation over rounds and seeds.

        Args:
            setting: name of what was on.
            who: ``hub`` or ``site``.
            name: of a field of :class:`Cost`.
            part: of :data:`PARTS`; None for the whole round.

        Returns:
            Both, in the field's unit; a deviation of 0 where there is one round.
        """
        values = []
        for cost in self.rounds:
            if cost.setting == setting:
                whole, parts = (cost.hub, cost.hub_parts) if who == HUB else (cost.site, cost.site_parts)
                values.append(float(getattr(whole if part is None else parts[part], name)))
        return mean(values), stdev(values) if len(values) > 1 else 0.0


def bench_trust(
    params: Params,
    root: Path,
    plain: Server,
    tls: Server,
    seeds: Sequence[int],
    rounds: int,
    settings: Sequence[Setting] = SETTINGS,
    say: Callable[[str], None] = lambda _: None,
) -> TrustBench:
    """Play federations under every setting and measure all rounds but the first, in which everything is loaded.

    For every seed all settings are played, each time in another order, so that a machine that slows down or has other
    work meanwhile does not speak for one of them.

    Args:
        params: of the protocol.
        root: for the runs' folders.
        plain: a store.
        tls: one that speaks TLS.
        seeds: of the federations.
        rounds: of each that are measured.
        settings: to compare.
        say: is told what comes next.

    Returns:
        Costs of all rounds.
    """
    short = lay_over(params, SHORT)
    n = max(params.rating.raters + 1, params.federation.quorum)
    prepared = prepare_patients(root / "patients", short)
    costs: list[RoundCost] = []
    for turn, seed in enumerate(seeds):
        order = [*settings[turn % len(settings) :], *settings[: turn % len(settings)]]
        for place, setting in enumerate(order):
            say(f"seed {seed}: {setting.name}")
            own = lay_over(short, (f"seed={seed}", *setting.overrides))
            federation = _Federation(
                own, prepared, root / f"{turn}-{place}", tls if setting.tls else plain, n
            )
            federation.play(setting.name, 1)
            if not costs:
                gc.collect()
                gc.freeze()  # or whoever comes next would pay for a search through all that was loaded
            costs += [federation.play(setting.name, number) for number in range(2, rounds + 2)]
    gc.unfreeze()
    return TrustBench(n, tuple(costs))


class _Federation:
    """Hub and sites, each with a metered store of its own."""

    def __init__(self, params: Params, prepared: Path, root: Path, server: Server, n: int) -> None:
        sites = tuple(f"site-{k:03d}" for k in range(n))
        env = {
            who: e.model_copy(update={"s3_bucket": f"trust-{root.name}"})
            for who, e in ((HUB, server.env), ("site", server.sites))
        }
        hub, base = make_run(root, prepared, params, sites, env[HUB])
        known = have_all_identities(root, sites)
        found_federation(hub, base)
        self._hub = _Machine(hub, hub.store.seals, lambda: (0, 0))
        self._sites: dict[str, _Machine] = {}
        for site in sites:
            ws, own = MeteredWorkspace(root, params, env["site"]), root / "machines" / site
            shutil.copytree(identity_folder(root, site), identity_folder(own, site))
            pin_hub(own, known[HUB])
            self._sites[site] = _Machine(ws, Trust(own, ws.store), server.carried)

    def play(self, setting: str, number: int) -> RoundCost:
        """A round; what is added up is taken out of the machines."""
        hub = self._hub
        hub.does(lambda: open_round(hub.ws, number), number)
        self._ask(train_site, number)
        hub.does(lambda: admit_updates(hub.ws, number), number)
        self._ask(rate_candidates, number)
        hub.does(lambda: merge_updates(hub.ws, number), number)
        self._ask(judge_merged, number)
        hub.does(lambda: close_round(hub.ws, number), number)
        self._ask(adapt_site, number)
        hub.does(lambda: None, number, thorough=True)  # after the version, which is DVC's work
        own, (at_sites, parts) = hub.taken(), _mean(machine.taken() for machine in self._sites.values())
        padding = self._padding(number)
        return RoundCost(
            setting=setting,
            seed=hub.ws.params.seed,
            round=number,
            hub=own[0],
            site=at_sites,
            hub_parts={**own[1], "padding": Cost(sent_bytes=padding[0])},
            site_parts={**parts, "padding": Cost(received_bytes=padding[1])},
        )

    def _ask(self, verb: Callable[[MeteredWorkspace, int, str], object], number: int) -> None:
        for site, machine in self._sites.items():
            machine.takes_part(verb, number, site)

    def _padding(self, number: int) -> tuple[float, float]:
        """What candidates are longer than the packages in them: all that the hub sends, and what a site receives."""
        store = self._hub.ws.store
        listed = get_record(store, candidates_key(number), Candidates)
        updates = get_record(store, senders_key(number), Senders).updates
        longer = {c.id: c.n_bytes - updates[c.id].adapter_bytes for c in listed.candidates}
        received = [longer[c] for rated in listed.assigned.values() for c in rated]
        return float(sum(longer.values())), sum(received) / len(self._sites)


class _Machine:
    """The hub or a site: does its work, and adds up what that and its parts cost."""

    def __init__(self, ws: MeteredWorkspace, seals: Seals, carried: Callable[[], tuple[int, int]]) -> None:
        self.ws, self._carried = ws, carried
        self._whole, self._parts, self._within = Cost(), dict.fromkeys(PARTS[:2], Cost()), False
        ws.store.seals = _MeteredSeals(seals, self._seal)

    def does(self, work: Callable[[], object], number: int, thorough: bool = False) -> None:
        """A phase of the hub, after which it continues the log."""
        with self._measured() as whole:
            work()
            with self._part("audit log"):
                append_missing(self.ws, number, thorough=thorough)
        self._whole = _sum(self._whole, whole())

    def takes_part(
        self, verb: Callable[[MeteredWorkspace, int, str], object], number: int, site: str
    ) -> None:
        """A duty of a site, before which it looks at the log."""
        with self._measured() as whole:
            with self._part("audit log"):
                watch(self.ws.store, self.ws.site_home(site))
            verb(self.ws, number, site)
        self._whole = _sum(self._whole, whole())

    def taken(self) -> tuple[Cost, Mapping[str, Cost]]:
        """What has been added up since the last time."""
        taken = self._whole, dict(self._parts)
        self._whole, self._parts = Cost(), dict.fromkeys(PARTS[:2], Cost())
        return taken

    @contextmanager
    def _seal(self, bytes_of: Callable[[], tuple[int, int]]) -> Iterator[None]:
        """Sealing or opening; the requests are those for the list of keys, the bytes those of the seal."""
        if self._within:
            yield
            return
        with self._part("seals"):
            yield
        sent, received = bytes_of()
        self._parts["seals"] = _sum(self._parts["seals"], Cost(sent_bytes=sent, received_bytes=received))

    @contextmanager
    def _part(self, name: str) -> Iterator[None]:
        """What is within a part already belongs to that."""
        self._within = True
        try:
            with self._measured() as cost:
                yield
        finally:
            self._within = False
        self._parts[name] = _sum(self._parts[name], cost())

    @contextmanager
    def _measured(self) -> Iterator[Callable[[], Cost]]:
        before = self._meters()
        yield lambda: Cost(*(now - then for now, then in zip(after, before, strict=True)))
        after = self._meters()

    def _meters(self) -> tuple[float, ...]:
        store: MeteredStore = self.ws.store
        counted = store.calls, store.bytes_sent, store.bytes_received, *self._carried()
        return (*counted, time.perf_counter(), time.thread_time())


_Meter = Callable[[Callable[[], tuple[int, int]]], AbstractContextManager[None]]


class _MeteredSeals:
    """Seals that tell a meter when they work, and how many bytes a record is longer for them."""

    def __init__(self, seals: Seals, meter: _Meter) -> None:
        self._seals, self._meter = seals, meter

    def sealed(self, place: str, record: bytes) -> bytes:
        """See :class:`tasks.seal.Seals`."""
        data = b""
        with self._meter(lambda: (len(data) - len(record), 0)):
            data = self._seals.sealed(place, record)
        return data

    def opened(self, place: str, data: bytes) -> bytes:
        """See :class:`tasks.seal.Seals`."""
        record = b""
        with self._meter(lambda: (0, len(data) - len(record))):
            record = self._seals.opened(place, data)
        return record

    def private_key(self, name: str) -> AgeKey:
        """See :class:`tasks.seal.Seals`."""
        return self._seals.private_key(name)

    def public_key(self, name: str) -> str:
        """See :class:`tasks.seal.Seals`."""
        return self._seals.public_key(name)

    def saw(self, count: int, sha256: str) -> None:
        """See :class:`tasks.seal.Seals`."""
        self._seals.saw(count, sha256)


def _sum(*costs: Cost) -> Cost:
    return Cost(*(sum(values) for values in zip(*map(_values, costs), strict=True)))


def _mean(costs: Iterator[tuple[Cost, Mapping[str, Cost]]]) -> tuple[Cost, dict[str, Cost]]:
    each = list(costs)

    def of(some: Sequence[Cost]) -> Cost:
        return Cost(*(value / len(each) for value in _values(_sum(*some))))

    return of([whole for whole, _ in each]), {
        name: of([parts[name] for _, parts in each]) for name in PARTS[:2]
    }


def _values(cost: Cost) -> tuple[float, ...]:
    return (
        cost.requests,
        cost.sent_bytes,
        cost.received_bytes,
        cost.up_bytes,
        cost.down_bytes,
        cost.seconds,
        cost.cpu_s,
    )
