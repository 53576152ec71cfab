"""``cardiofed bench``: what a training step, a merge, a thin link, many sites, noise and all that makes trust cost."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tasks.files import json_bytes, write_atomic
from tasks.settings import load_params

if TYPE_CHECKING:
    from tasks.bench_merge import MergeBench
    from tasks.bench_steps import Spread, StepsBench
    from tasks.settings import Environment

bench = typer.Typer(no_args_is_help=True, help="What steps, merges, links and rounds cost on this machine.")
console = Console()

Set = Annotated[list[str] | None, typer.Option("--set", help="Override a setting, e.g. lora.rank_max=8.")]
Out = Annotated[Path, typer.Option(help="File of the result, JSON.")]


@bench.command()
def steps(
    repetitions: Annotated[int, typer.Option(min=2, help="Timed steps per variant.")] = 40,
    out: Out = Path("runs/bench/steps.json"),
    overrides: Set = None,
) -> None:
    """CPU time of a local training step: adapters against full weights. Best on a machine that idles."""
    params = load_params(Path("params.yaml"), tuple(overrides or ()))
    from tasks.bench_steps import bench_steps

    with console.status("taking training steps"):
        result = bench_steps(params, repetitions)
    _write(out, asdict(result) | {"met": result.met})
    for table in (phase_table(result), part_table(result)):
        console.print(table)
    console.print(steps_verdict(result), soft_wrap=True, highlight=False)


@bench.command()
def merge(
    sites: Annotated[int, typer.Option(min=1, help="Number of updates.")] = 200,
    out: Out = Path("runs/bench/merge.json"),
    overrides: Set = None,
) -> None:
    """Time and memory of a merge on the 26 MB network, beside dense averaging."""
    params = load_params(Path("params.yaml"), tuple(overrides or ()))
    from flows.compute import one_thread_each
    from tasks.bench_merge import bench_merge

    one_thread_each()
    with console.status(f"merging {sites} sites"):
        result = bench_merge(params, sites)
    _write(out, asdict(result) | {"met": result.met})
    console.print(merge_table(result))
    console.print(merge_verdict(result), soft_wrap=True, highlight=False)


@bench.command()
def link(out: Out = Path("runs/bench/link.json"), overrides: Set = None) -> None:
    """What a round costs a site on a link of 256 kbit/s and 300 ms, and on one of 10 Mbit/s and 30 ms."""
    params = load_params(Path("params.yaml"), tuple(overrides or ()))
    from flows.bench_tables import link_table
    from flows.compute import one_thread_each
    from infra.thin_link import THIN, USUAL, ThinLink
    from tasks.bench_link import Line, bench_link

    one_thread_each()
    with (
        _store() as (root, env),
        ThinLink(env.s3_endpoint, THIN) as thin,
        ThinLink(env.s3_endpoint, USUAL) as usual,
    ):
        named = {"256 kbit/s, 300 ms": thin, "10 Mbit/s, 30 ms": usual}
        lines = [Line(name, link.environment(env), link.carried) for name, link in named.items()]
        costs = bench_link(params, root, env, lines)
    _write(out, {"costs": [asdict(cost) for cost in costs]})
    print(link_table(costs))


@bench.command()
def scale(
    sites: Annotated[
        int, typer.Option(min=4, help="Most sites; a quarter as many come before, down to 4.")
    ] = 64,
    out: Out = Path("runs/bench/scale.json"),
    overrides: Set = None,
) -> None:
    """What a round costs the hub per site, with networks so small that only the protocol counts."""
    params = load_params(Path("params.yaml"), tuple(overrides or ()))
    from flows.bench_tables import scale_table
    from flows.compute import one_thread_each
    from tasks.bench_scale import bench_scale, site_counts

    one_thread_each()
    with _store() as (root, env):
        result = bench_scale(params, root, env, site_counts(sites))
    _write(out, asdict(result))
    print(scale_table(result))


@bench.command()
def privacy(
    run: Annotated[Path, typer.Option(help="A run whose sites and base are used.")] = Path("runs/demo"),
    noise: Annotated[list[float] | None, typer.Option(help="Noise multiplier; may be given again.")] = None,
    clip: Annotated[float, typer.Option(help="L2 norm that an update is clipped to.")] = 2.0,
    delta: Annotated[float, typer.Option(help="Probability with which ε may be exceeded.")] = 1e-5,
    seeds: Annotated[int, typer.Option(min=1, help="Federations per strength of noise.")] = 3,
    out: Out = Path("runs/bench/privacy.json"),
    overrides: Set = None,
) -> None:
    """What noise on updates costs in Dice, and the ε it buys."""
    params = load_params(Path("params.yaml"), tuple(overrides or ()))
    from flows.bench_tables import privacy_table
    from flows.compute import one_thread_each
    from tasks.bench_privacy import bench_privacy
    from tasks.settings import Dp

    one_thread_each()
    dp = Dp(clip=clip, noise=1.0, delta=delta)
    with console.status("playing federations") as status:
        result = bench_privacy(
            params, run, dp, noise or [0.003, 0.01, 0.03, 0.1, 1.0], range(1, seeds + 1), status.update
        )
    _write(out, asdict(result))
    print(privacy_table(result))


@bench.command()
def trust(
    rounds: Annotated[int, typer.Option(min=1, help="Measured rounds of each federation.")] = 2,
    seeds: Annotated[int, typer.Option(min=1, help="Federations per setting.")] = 3,
    out: Out = Path("runs/bench/trust.json"),
    overrides: Set = None,
) -> None:
    """Seconds and bytes of a round with encryption, noise, rounding and TLS on and off; what seals and audit take."""
    params = load_params(Path("params.yaml"), tuple(overrides or ()))
    from flows.bench_tables import trust_table
    from flows.compute import one_thread_each
    from infra.thin_link import LinkSpec, ThinLink
    from tasks.bench_trust import Server, bench_trust

    one_thread_each()
    with (
        _store() as (root, plain),
        _store(tls=True) as (_, tls),
        ThinLink(plain.s3_endpoint, LinkSpec()) as open_line,
        ThinLink(tls.s3_endpoint, LinkSpec()) as tls_line,
        console.status("playing federations") as status,
    ):
        open_server, tls_server = (
            Server(env, line.environment(env), line.carried)
            for env, line in ((plain, open_line), (tls, tls_line))
        )
        result = bench_trust(
            params, root, open_server, tls_server, range(1, seeds + 1), rounds, say=status.update
        )
    _write(out, asdict(result))
    print(trust_table(result))


def phase_table(result: StepsBench) -> Table:
    """Median and quartiles per phase and variant, ms of CPU time."""
    from tasks.bench_steps import PHASES

    table = Table(
        title=f"CPU ms of a step: batch {result.batch}, {result.crop}², one thread, median (quartiles)"
    )
    table.add_column("")
    for step in result.steps:
        table.add_column(step.variant, justify="right")
    for phase in PHASES:
        table.add_row(
            phase, *(_ms(s.phases_ms[phase]) for s in result.steps), end_section=phase == PHASES[-1]
        )
    table.add_row("step without batch", *(_ms(s.step_ms) for s in result.steps))
    table.add_row("ratio to full weights", *(_ratio(s.ratio) for s in result.steps))
    table.add_row("ratio with batch", *(_ratio(s.ratio_with_batch) for s in result.steps))
    table.add_row("trained parameters", *(f"{s.trained:,}" for s in result.steps))
    return table


def part_table(result: StepsBench) -> Table:
    """Where the time goes: forward and backward by part of the network."""
    table = Table(
        title="CPU ms by part, forward + backward, medians; down.0 and the last up are at full size"
    )
    table.add_column("part")
    for step in result.steps:
        table.add_column(step.variant, justify="right")
    for part in dict.fromkeys(cost.part for cost in result.parts):
        costs = [cost for cost in result.parts if cost.part == part]
        table.add_row(part, *(f"{c.forward_ms:.1f} + {c.backward_ms:.1f}" for c in costs))
    return table


def steps_verdict(result: StepsBench) -> str:
    """Ratios against the target, in words."""
    from tasks.bench_steps import FULL, TARGET

    said = ", ".join(f"{s.variant} {s.ratio.median:.2f}" for s in result.steps if s.variant != FULL)
    return f"target {TARGET:.2f} of a full-weight step: {_met(result.met)} ({said})"


def merge_table(result: MergeBench) -> Table:
    """Time and memory per method."""
    table = Table(title=f"merge of {result.sites} sites, {_mb(result.weights_bytes)} network, one thread")
    for name in ("method", "wall s", "CPU s", "peak memory", "read", "cut energy"):
        table.add_column(name, justify="left" if name == "method" else "right")
    for c in result.costs:
        lost = "" if c.lost is None else f"{c.lost:.2%}"
        numbers = f"{c.seconds:.1f}", f"{c.cpu_s:.1f}", _mb(c.peak_bytes), _mb(c.read_bytes)
        table.add_row(c.method, *numbers, lost)
    return table


def merge_verdict(result: MergeBench) -> str:
    """Memory against the target, and how it was measured, in words."""
    spread = f"rank {min(result.ranks)} to {max(result.ranks)}, {result.dtype}"
    how = "the highest resident set above the one before the merge"
    if not result.exact_peak:
        how = "a lower bound: this system cannot reset its record of the highest resident set"
    return (
        f"target 3 packages ({_mb(result.package_bytes)} each, {spread}) + the largest layer "
        f"({_mb(result.layer_bytes)}) = {_mb(result.target_bytes)}: {_met(result.met)}. Memory is {how}."
    )


def _met(met: bool) -> str:
    return "met" if met else "not met"


def _ms(spread: Spread) -> str:
    return f"{spread.median:.1f} ({spread.low:.1f}–{spread.high:.1f})"


def _ratio(spread: Spread) -> str:
    return f"{spread.median:.3f} ({spread.low:.3f}–{spread.high:.3f})"


def _mb(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:.2f} MB"


def _write(out: Path, tree: dict[str, Any]) -> None:
    write_atomic(out, json_bytes(tree))
    console.print(f"wrote {out}", soft_wrap=True)


@contextmanager
def _store(tls: bool = False) -> Iterator[tuple[Path, Environment]]:
    """A store of one's own and an empty folder, both gone at the end."""
    from infra.process import stop
    from infra.s3_server import start_s3
    from infra.tls import server_certificate

    with tempfile.TemporaryDirectory(prefix="cardiofed-bench-") as folder:
        certificate = server_certificate(Path(folder) / "tls") if tls else None
        server = start_s3(Path(folder) / "store", tls=certificate)
        try:
            yield Path(folder), server.environment()
        finally:
            stop(server.pid_file)
