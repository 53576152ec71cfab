"""What happened, round by round: the records a run has published, read from its folder, and what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from model.errors import PackageError, UnreadableError
from tasks.records import Candidates, Close, Evaluation, MergeRecord, Plan, Ratings, Record, Update, Verdict
from tasks.seal import split_seal

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class RoundHistory:
    """The records of one round; None, or no entry for a site, where nothing was published.

    Attributes:
        number: the round.
        plan: how it was opened.
        candidates: what was admitted.
        merge: how the step came about.
        close: how it ended.
        updates: site → passport of its adapter.
        ratings: site → its scores of the others.
        verdicts: site → its scores of the merged step.
        evaluations: site → what local adaptation did there.
    """

    number: int
    plan: Plan | None = None
    candidates: Candidates | None = None
    merge: MergeRecord | None = None
    close: Close | None = None
    updates: dict[str, Update] = field(default_factory=dict)
    ratings: dict[str, Ratings] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    evaluations: dict[str, Evaluation] = field(default_factory=dict)


@dataclass(frozen=True)
class Status:
    """How a round stands, in words.

    Attributes:
        label: complete, degraded, stepped back, rejected, failed or running.
        detail: one sentence; empty when there is nothing to add.
        good: the round ended as planned.
    """

    label: str
    detail: str
    good: bool


@dataclass(frozen=True)
class Traffic:
    """Bytes of one round at one site.

    Attributes:
        sent: the update that the site uploaded.
        candidates: the others' updates that it rated.
        steps: the merged step that it judged, and published steps of earlier rounds that it had slept through.
    """

    sent: int
    candidates: int
    steps: int

    @property
    def received(self) -> int:
        """All that came down."""
        return self.candidates + self.steps


def read_history(folder: Path) -> list[RoundHistory]:
    """Read every round below ``federation/rounds``, in order.

    Args:
        folder: holds ``NNNN/*.json`` of the hub and ``NNNN/sites/<site>/*.json``.

    Returns:
        One entry per round; empty when the folder does not exist.

    Raises:
        SignatureError: a file's bytes are not those that its seal vouches for.
        PackageError: a file holds no valid record of its kind.
        UnreadableError: a file cannot be read.
    """
    rounds = [p for p in folder.glob("[0-9][0-9][0-9][0-9]") if p.is_dir()]
    return [_read_round(path) for path in sorted(rounds)]


def sites_of(history: Sequence[RoundHistory]) -> list[str]:
    """All sites that were invited or published something, sorted."""
    sites: set[str] = set()
    for entry in history:
        sites.update(entry.updates, entry.ratings, entry.verdicts, entry.evaluations)
        sites.update(member.site for member in (entry.plan.members if entry.plan else ()))
    return sorted(sites)


def round_status(entry: RoundHistory) -> Status:
    """How a round ended, or how far it is; a degraded round never reads like a plain success."""
    close = entry.close
    if close is None:
        return Status("running", _progress(entry), False)
    absent = f"without {', '.join(close.missing)}" if close.missing else ""
    if close.outcome in ("failed", "rejected"):
        return Status(close.outcome, _sentences(close.reason, absent), False)
    if close.outcome == "stepped_back":
        part = f"{close.fraction:.0%} of the step was taken"
        label = "stepped back, degraded" if close.degraded else "stepped back"
        return Status(label, _sentences(part, absent, close.reason), False)
    if close.degraded:
        return Status("degraded", _sentences(absent, close.reason), False)
    return Status("complete", "", True)


def validation_dice(history: Sequence[RoundHistory]) -> dict[str, dict[int, float]]:
    """The global model's Dice on each site's validation slices, from what the judges measured.

    Args:
        history: rounds in order, as :func:`read_history` returns them.

    Returns:
        Site → number of rounds behind the model → Dice; 0 is the model before the first round. A later
        round's own measurement of the model it starts from takes the place of "before + gain".
    """
    curves: dict[str, dict[int, float]] = {}
    for entry in history:
        for site, verdict in entry.verdicts.items():
            if verdict.baseline_dice is None:
                continue
            curve = curves.setdefault(site, {})
            curve[entry.number - 1] = verdict.baseline_dice
            gain = _accepted_gain(entry.close, verdict)
            if gain is not None:
                curve[entry.number] = verdict.baseline_dice + gain
    return {site: dict(sorted(curve.items())) for site, curve in sorted(curves.items())}


def full_bytes(history: Sequence[RoundHistory]) -> int | None:
    """Size of the full network's weights, or None before the first plan."""
    plans = [entry.plan for entry in history if entry.plan]
    return plans[-1].base.n_bytes if plans else None


def traffic(history: Sequence[RoundHistory]) -> dict[int, dict[str, Traffic]]:
    """What every site moved over its link, as the records imply it.

    Args:
        history: rounds in order, from the first.

    Returns:
        Round → each site that uploaded, rated, judged or adapted in it → bytes. A site fetches a step once, in the
        round where it first needs it; the base, which it fetches once, and records are not counted.
    """
    sizes = {entry.number: entry.merge.merged_bytes for entry in history if entry.merge}
    fetched: dict[str, set[int]] = {}
    moved: dict[int, dict[str, Traffic]] = {}
    for entry in history:
        moved[entry.number] = {}
        for site in sorted({*entry.updates, *entry.ratings, *entry.verdicts, *entry.evaluations}):
            known = fetched.setdefault(site, set())
            steps = sum(sizes.get(number, 0) for number in _steps_needed(entry, site) - known)
            known |= _steps_needed(entry, site)
            moved[entry.number][site] = Traffic(_sent(entry, site), _rated(entry, site), steps)
    return moved


def _read_round(path: Path) -> RoundHistory:
    return RoundHistory(
        number=int(path.name),
        plan=read_published(path / "plan.json", Plan),
        candidates=read_published(path / "candidates.json", Candidates),
        merge=read_published(path / "merge.json", MergeRecord),
        close=read_published(path / "close.json", Close),
        updates=_read_sites(path, "update.json", Update),
        ratings=_read_sites(path, "ratings.json", Ratings),
        verdicts=_read_sites(path, "verdict.json", Verdict),
        evaluations=_read_sites(path, "evaluation.json", Evaluation),
    )


def _read_sites(path: Path, name: str, kind: type[R]) -> dict[str, R]:
    homes = sorted((path / "sites").glob("*"))
    found = {home.name: read_published(home / name, kind) for home in homes}
    return {site: record for site, record in found.items() if record is not None}


def read_published(path: Path, kind: type[R]) -> R | None:
    """A record of a round as it was published; its seal was checked against its author's key when it was mirrored.

    Args:
        path: ``…/NNNN/plan.json`` of the hub, ``…/NNNN/sites/<site>/update.json`` of a site, and the like.
        kind: what it must be.

    Returns:
        The record; None when there is none.

    Raises:
        SignatureError: its bytes are not those that its seal vouches for, or the file was moved.
        PackageError: it holds no valid record of its kind.
        UnreadableError: it cannot be read.
    """
    try:
        place = published_place(path)
        sealed = split_seal(path.read_bytes(), place)
        sealed.check(place)
        return kind.model_validate_json(sealed.record)
    except FileNotFoundError:
        return None
    except ValidationError as e:
        faults = "; ".join(f"{'.'.join(map(str, f['loc'])) or '(all)'}: {f['msg']}" for f in e.errors())
        mend = "remove the file and version the round again"
        raise PackageError(f"no valid {kind.__name__}: {faults}", str(path), mend) from e
    except OSError as e:
        raise UnreadableError(f"cannot read: {e.strerror}", str(path), "check its permissions") from e


def published_place(path: Path) -> str:
    """Ledger key of a mirrored file: ``…/NNNN/plan.json`` or ``…/NNNN/sites/<site>/update.json``."""
    *_, number, above, folder, name = path.absolute().parts
    if above == "sites":
        return f"sites/{folder}/rounds/{number}/{name}"
    return f"global/rounds/{folder}/{name}"


def _progress(entry: RoundHistory) -> str:
    invited = len(entry.plan.members) if entry.plan else len(entry.updates)
    if entry.merge:
        return f"judging: {len(entry.verdicts)} of {invited} verdicts"
    if entry.candidates:
        return f"rating: {len(entry.ratings)} of {invited} ratings"
    return f"training: {len(entry.updates)} of {invited} updates"


def _sentences(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _accepted_gain(close: Close | None, verdict: Verdict) -> float | None:
    if close is None:
        return None
    if close.fraction == 0:
        return 0.0
    scores = {float(fraction): score for fraction, score in verdict.gains.items()}
    score = scores.get(close.fraction)
    return score.gain if score else None


def _sent(entry: RoundHistory, site: str) -> int:
    return entry.updates[site].adapter_bytes if site in entry.updates else 0


def _rated(entry: RoundHistory, site: str) -> int:
    sizes = {c.id: c.n_bytes for c in entry.candidates.candidates} if entry.candidates else {}
    scores = entry.ratings[site].scores if site in entry.ratings else {}
    return sum(sizes.get(blind, 0) for blind in scores)


def _steps_needed(entry: RoundHistory, site: str) -> set[int]:
    """Rounds whose steps a site has folded or judged by the end of this one."""
    needed = {step.round for step in entry.plan.steps} if entry.plan else set()
    if site in entry.verdicts:
        needed.add(entry.number)
    if site in entry.evaluations and entry.close:
        needed |= {step.round for step in entry.close.steps}
    return needed
