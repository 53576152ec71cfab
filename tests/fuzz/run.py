"""Fuzz what strangers send: ``python -m tests.fuzz.run --cases 100000`` writes ``docs/results/fuzz.md``.

Every case is drawn from ``--seed``, its kind and its number, so that one alone can be run again:
``python -m tests.fuzz.run --only package/1234``.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the helpers of all tests

from . import envelopes, targets

ROOT = Path(__file__).resolve().parents[2]
SHARES = {"package": 0.5, "record": 0.34, "envelope": 0.05, "invitation": 0.1, "admission": 0.01}
WHAT = {
    "package": "`open_package`, as admission calls it; a tenth of the accepted are folded, added up and cut",
    "record": "`parse_record`, as every read of the ledger calls it, ten kinds; the accepted are put to use",
    "envelope": "`open_seal`, `open_sealed`, `read_line` and `parse_record`: seals, age, the audit log, offered keys",
    "invitation": "`read_invitation`, `enter`, `enter_home` on real files",
    "admission": "`admit_updates` over a real S3 server; two other hospitals must be admitted each time",
}


@dataclass
class Tally:
    """How the cases of one kind ended."""

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0
    slowest: tuple[float, str] = (0.0, "")
    largest: tuple[float, str] = (0.0, "")


def fuzz(kind: str, target: targets.Target, numbers: range, seed: int) -> Tally:
    """Run cases of one kind.

    Args:
        kind: names them.
        target: runs one.
        numbers: of the cases.
        seed: of all of them.

    Returns:
        Outcomes, and every case that ended in anything but an acceptance or a refusal of ours.
    """
    tally = Tally()
    for number in numbers:
        name = f"{kind}/{number}"
        draw = Random(f"{seed}/{name}")
        sent = target.make(draw)
        before, started = peak_mb(), time.process_time()
        try:
            outcome = target.read(sent, draw)
        except Exception:
            outcome = "fault"
            tally.faults.append(f"{name}\n{traceback.format_exc()}")
        took = time.process_time() - started
        tally.outcomes[outcome] += 1
        tally.seconds += took
        tally.slowest = max(tally.slowest, (took, name))
        tally.largest = max(tally.largest, (peak_mb() - before, name))
    return tally


def peak_mb() -> float:
    """The most memory that this process ever held, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


@contextmanager
def in_process(folder: Path) -> Iterator[dict[str, targets.Target]]:
    """The kinds that need no store."""
    (folder / "hospital").mkdir()
    yield {
        "package": targets.packages(),
        "record": targets.records(),
        "envelope": envelopes.envelopes(),
        "invitation": targets.invitations(folder / "hospital"),
    }


@contextmanager
def all_kinds(folder: Path) -> Iterator[dict[str, targets.Target]]:
    """Those, and admissions over a store that is started for it."""
    from infra.process import stop
    from infra.s3_server import start_s3

    from .admission import Admission, Folders

    server = start_s3(folder / "store")
    env = server.environment(bucket="fuzz")
    os.environ |= {
        f"CARDIOFED_S3_{n.upper()}": getattr(env, f"s3_{n}") for n in ("endpoint", "access_key", "bucket")
    }
    os.environ["CARDIOFED_S3_SECRET_KEY"] = env.s3_secret_key.get_secret_value()
    try:
        with in_process(folder) as kinds:
            round_ = Admission(Folders(folder), folder / "run")
            yield {**kinds, "admission": targets.Target(round_.send, round_.admit)}
    finally:
        stop(server.pid_file)


def page(tallies: Mapping[str, Tally], cases: int, seed: int, before_mb: float) -> str:
    """The result as markdown."""
    lines = [
        "# Fuzzing",
        "",
        f"`python -m tests.fuzz.run --cases {cases} --seed {seed}`: damaged records, packages and the like, each",
        "read by the function that the program reads it with ([`tests/fuzz`](../../tests/fuzz)). A case may end in an",
        "acceptance, after which the result is put to use, or in an error of ours; anything else is a fault.",
        "",
        "| kind | cases | accepted | refused, by class | faults | slowest, CPU s | most memory by one case, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, tally in tallies.items():
        good = tally.outcomes["accepted"] + tally.outcomes["admitted"]
        classes = {o: n for o, n in tally.outcomes.items() if o not in ("accepted", "admitted", "fault")}
        by_class = ", ".join(f"{n} {o}" for o, n in sorted(classes.items(), key=lambda pair: -pair[1]))
        slow, big = tally.slowest, tally.largest
        lines.append(
            f"| {kind} | {tally.outcomes.total()} | {good} | {by_class} | {len(tally.faults)} "
            f"| {slow[0]:.2f} ({slow[1]}) | {big[0]:.0f} ({big[1]}) |"
        )
    grown = peak_mb() - before_mb
    faults = sum(len(tally.faults) for tally in tallies.values())
    seconds = sum(tally.seconds for tally in tallies.values())
    lines += [
        "",
        f"{sum(t.outcomes.total() for t in tallies.values())} cases took {seconds / 60:.1f} minutes of one core, "
        f"{faults} faults. Peak memory grew by {grown:.0f} MB over the whole run, from {before_mb:.0f} MB with the "
        "seeds in memory.",
        "",
        "What is called:",
        "",
        *(f"- **{kind}** {WHAT[kind]}" for kind in tallies),
        "",
        "One case alone: `python -m tests.fuzz.run --only package/1234`.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the cases, print faults, write the page; exit 1 where a fault was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="one case, such as package/1234")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "fuzz.md")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, all_kinds(Path(folder)) as kinds:
        if given.only:
            kind, number = given.only.split("/")
            tally = fuzz(kind, kinds[kind], range(int(number), int(number) + 1), given.seed)
            print(tally, *tally.faults, sep="\n")
            return
        gc.collect()
        before, tallies = peak_mb(), {}
        for kind, share in SHARES.items():
            tallies[kind] = fuzz(kind, kinds[kind], range(round(share * given.cases)), given.seed)
            print(kind, dict(tallies[kind].outcomes), f"{tallies[kind].seconds:.0f} s", flush=True)
        text = page(tallies, given.cases, given.seed, before)
    faults = [fault for tally in tallies.values() for fault in tally.faults]
    print(*faults[:20], text, sep="\n")
    if faults:
        sys.exit(1)
    given.out.write_text(text)


if __name__ == "__main__":
    main()
