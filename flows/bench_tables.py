"""The tables of ``cardiofed bench link``, ``scale``, ``privacy`` and ``trust``, in markdown."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.bench_link import StepCost, whole_round
from tasks.bench_privacy import PrivacyBench
from tasks.bench_scale import PHASES, RECORDS, PhaseCost, ScaleBench, in_all
from tasks.bench_trust import OFF, ON, PARTS, TrustBench
from tasks.trust import HUB


def link_table(costs: Sequence[StepCost]) -> str:
    """A row per link and step, and one for all steps of a round together."""
    heads = ("link", "step", "requests", "payload up, kB", "down", "on the link up, kB", "down", "seconds")
    rows = []
    for link in dict.fromkeys(cost.link for cost in costs):
        for c in (*(c for c in costs if c.link == link), whole_round(costs, link)):
            sizes = map(_kb, (c.sent_bytes, c.received_bytes, c.up_bytes, c.down_bytes))
            rows.append((c.link, c.step, str(c.requests), *sizes, f"{c.seconds:.1f}"))
    return _table(heads, rows)


def scale_table(result: ScaleBench) -> str:
    """What each phase took per site, for all numbers of sites side by side; then what every site reads."""
    counts = tuple(result.records_bytes)
    by_phase = [[c for c in result.costs if c.phase == phase] for phase in PHASES]
    by_phase.append([in_all(result, n) for n in counts])
    heads = (f"per site, of {_side_by_side(counts)} sites", "wall, ms", "CPU, ms", "memory, kB", "requests")
    costs = _table(heads, [(row[0].phase, *_per_site(row)) for row in by_phase])
    sizes = [(name, *(_kb(result.records_bytes[n][name]) for n in counts)) for name in RECORDS]
    return f"{costs}\n\n{_table(('record, kB', *(f'{n} sites' for n in counts)), sizes)}"


def privacy_table(result: PrivacyBench) -> str:
    """A row per strength of noise."""
    heads = (
        "noise multiplier",
        f"ε of a site, {result.rounds} rounds, δ = {result.delta:.0e}",
        "Dice",
        "± over seeds",
    )
    rows = [("base as shipped", "0", f"{result.before:.3f}", "")]
    for cost in result.costs:
        noise = "no clipping, no noise" if cost.noise is None else f"{cost.noise:g}"
        epsilon = "∞" if cost.epsilon is None else f"{cost.epsilon:.3g}"
        rows.append((noise, epsilon, f"{sum(cost.dice) / len(cost.dice):.3f}", f"{cost.spread:.3f}"))
    return _table(heads, rows)


def trust_table(result: TrustBench) -> str:
    """What a round costs a site and the hub under every setting; then what no setting switches off."""
    names = tuple(dict.fromkeys(cost.setting for cost in result.rounds))
    heads = ("on", "requests", "payload up, kB", "down", "on the link up, kB", "down", "CPU s", "seconds")
    whole = [
        (f"{who}: {setting}", *_spread_row(result, setting, who))
        for who in ("site", HUB)
        for setting in names
    ]
    parts = [
        (f"{who}: {part}, {setting}", *_part_row(result, setting, who, part))
        for who in ("site", HUB)
        for part in PARTS
        for setting in (OFF, ON)
        if setting in names
    ]
    part_heads = ("cannot be switched off", "requests", "up, kB", "down", "CPU ms", "ms")
    return f"{_table(heads, whole)}\n\n{_table(part_heads, parts)}"


def _spread_row(result: TrustBench, setting: str, who: str) -> tuple[str, ...]:
    kb = ("sent_bytes", "received_bytes", "up_bytes", "down_bytes")
    link = kb if who != HUB else kb[:2]
    cells = [_spread(*result.of(setting, who, name), 1e-3, 1) if name in link else "" for name in kb]
    seconds = (_spread(*result.of(setting, who, name), 1, 2) for name in ("cpu_s", "seconds"))
    return (_spread(*result.of(setting, who, "requests"), 1, 0), *cells, *seconds)


def _part_row(result: TrustBench, setting: str, who: str, part: str) -> tuple[str, ...]:
    scales = {"requests": (1, 1), "sent_bytes": (1e-3, 1), "received_bytes": (1e-3, 1)}
    if part != "padding":
        scales |= {"cpu_s": (1e3, 1), "seconds": (1e3, 1)}
    cells = [_spread(*result.of(setting, who, name, part), *scale) for name, scale in scales.items()]
    return (*cells, *([""] * (5 - len(cells))))


def _spread(middle: float, spread: float, scale: float, digits: int) -> str:
    shown, around = f"{middle * scale:.{digits}f}", f"{spread * scale:.{digits}f}"
    return shown if float(around) == 0 else f"{shown} ± {around}"


def _per_site(costs: Sequence[PhaseCost]) -> tuple[str, ...]:
    return (
        _side_by_side([f"{1e3 * c.seconds / c.sites:.0f}" for c in costs]),
        _side_by_side([f"{1e3 * c.cpu_s / c.sites:.0f}" for c in costs]),
        _side_by_side([f"{c.peak_bytes / 1e3 / c.sites:.0f}" for c in costs]),
        _side_by_side([f"{c.calls / c.sites:.1f}" for c in costs]),
    )


def _side_by_side(values: Sequence[object]) -> str:
    return " / ".join(map(str, values))


def _kb(n_bytes: int) -> str:
    return f"{n_bytes / 1e3:.1f}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *("---:" for _ in heads[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in (heads, rule, *rows))
