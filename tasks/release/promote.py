"""Release a round's model to the clinical channel, or return the channel to the release before.

Order makes it whole: gate, files, ``dvc push``, commit, version tag, channel tag, ledger. Until the channel's tag is
there the old release is in use; what a killed call left is completed, or overwritten, by the next one.
"""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

from model.errors import DiskError, RoundError, StoreError
from tasks.events import log_event
from tasks.files import json_bytes, write_atomic
from tasks.ledger import get_record, put_record, release_key, released_key
from tasks.release.card import make_card
from tasks.release.channel import (
    ARTIFACT,
    CARD,
    CHANNEL,
    Assignment,
    assign,
    current_release,
    drop_unassigned,
    history,
    in_force,
    next_version,
    read_card,
    register,
)
from tasks.release.decide import Decision, decide, refuse_worse
from tasks.release.judge import undecided_findings
from tasks.release.markdown import card_markdown
from tasks.release.records import AS_SHIPPED, Card, Released
from tasks.release.validate import base_bytes, model_of, published_step, round_records
from tasks.settings import Environment
from tasks.store import Store
from tasks.version_repo import commit_paths, dvc_errors, dvc_in, git, one_writer, prepare
from tasks.workspace import Workspace

MODEL = "release/model"


def release_round(
    ws: Workspace, number: int, approved_by: str, env: Environment, cohort: Path | None = None
) -> Released:
    """Judge a round's model against the released one, and release it if it is nowhere worse.

    Args:
        ws: the run or the hub; its rounds mirrored.
        number: of the round.
        approved_by: who takes responsibility.
        env: the store, for DVC.
        cohort: parent of the prepared sites whose validation patients decide; the run's own when left out, and at a
            hub what the hospitals tell of theirs.

    Returns:
        The new entry of the channel; the one in force when it is this very model already.

    Raises:
        ReleaseRefusedError: a stratum is worse; nothing was changed.
        RoundError: the round has no model, or too little is known of any patients to judge it.
        StoreError: the store does not take it.
        DiskError: git, DVC or the disk fail.
    """
    current = current_release(ws.versions)
    plan, close = round_records(ws, number)
    if current and current.fact.model_sha256 == model_of(plan.base, close.steps).sha256:
        publish_missing(ws.store, history(ws.versions))
        return current.fact
    return promote(ws, number, approved_by, decide(ws, number, current, cohort or ws.cohort), env)


def promote(ws: Workspace, number: int, approved_by: str, decision: Decision, env: Environment) -> Released:
    """Write card and model, push, tag: what remains once the gate has said yes.

    Args:
        ws: the run.
        number: of the round.
        approved_by: who takes responsibility.
        decision: what the gate found.
        env: the store, for DVC.

    Returns:
        The new entry of the channel.

    Raises:
        ReleaseRefusedError: a stratum is worse.
        RoundError: the channel changed while the gate was looking.
        StoreError: the store does not take it.
        DiskError: git, DVC or the disk fail.
    """
    refuse_worse(decision, number)
    repo = ws.versions.absolute()
    with one_writer(repo):
        prepare(repo, env)
        drop_unassigned(repo)
        current = current_release(repo)
        if (current.fact.release if current else AS_SHIPPED) != decision.compared[0]:
            mend = "look at `cardiofed release --show` and decide again"
            raise RoundError("another release came in between", f"{ARTIFACT}#{CHANNEL}", mend)
        release = _register(ws, number, approved_by, decision)
        fact = _fact(repo, "release", release, approved_by, current)
        assign(repo, fact)
    publish_missing(ws.store, history(repo))
    log_event(ws.hub_home, "release", number, "done")
    return fact


def roll_back(ws: Workspace, approved_by: str, env: Environment) -> Released:
    """Return the channel to the release before the current one.

    Args:
        ws: the run.
        approved_by: who decided it.
        env: the store, for DVC.

    Returns:
        The new entry of the channel.

    Raises:
        RoundError: there is no release before the current one.
    """
    repo = ws.versions.absolute()
    with one_writer(repo):
        prepare(repo, env)
        standing = in_force(history(repo))
        if len(standing) < 2:
            now = standing[0].fact.release if standing else "nothing"
            mend = "release another round; to use none, take the model out of service"
            raise RoundError(f"{now} is released, and nothing before it", f"{ARTIFACT}#{CHANNEL}", mend)
        before, current = standing[-2:]
        fact = _fact(repo, "rollback", before.fact.release, approved_by, current)
        assign(repo, fact)
    publish_missing(ws.store, history(repo))
    log_event(ws.hub_home, "release", fact.round, "done")
    return fact


def publish_missing(store: Store, entries: tuple[Assignment, ...]) -> None:
    """Tell the ledger every change of the channel that it does not know yet, and what is in force."""
    for entry in entries:
        if not store.exists(release_key(entry.number)):
            put_record(store, release_key(entry.number), entry.fact)
    if entries and (
        not store.exists(released_key()) or get_record(store, released_key(), Released) != entries[-1].fact
    ):
        put_record(store, released_key(), entries[-1].fact)


def _register(ws: Workspace, number: int, approved_by: str, decision: Decision) -> str:
    """Commit card and model under a new version, pushed to the DVC remote before it has a name."""
    repo = ws.versions.absolute()
    release = next_version(repo, decision.candidate.base.sha256)
    made = datetime.now(UTC).replace(microsecond=0)
    card = make_card(ws, round_records(ws, number), decision, release, approved_by, made)
    _write_files(ws, repo, card)
    _add_and_push(repo)
    paths = (CARD, "release/card.md", f"{MODEL}.dvc", "release/.gitignore")
    commit_paths(repo, paths, f"Release {release}: round {number}")
    commit = git(repo, "log", "-1", "--format=%H", "--", CARD)
    register(repo, release, commit, f"{ARTIFACT} {release}: round {number}, approved by {approved_by}")
    return release


def _write_files(ws: Workspace, repo: Path, card: Card) -> None:
    folder, model = repo / MODEL, card.model
    shutil.rmtree(folder, ignore_errors=True)
    write_atomic(folder / "base.safetensors", base_bytes(ws, model))
    for step in model.steps:
        write_atomic(folder / "steps" / f"{step.round:04d}.safetensors", published_step(ws, step))
    write_atomic(folder / "model.json", json_bytes(model.model_dump(mode="json")))
    write_atomic(repo / CARD, json_bytes(card.model_dump(mode="json")))
    write_atomic(repo / "release" / "card.md", card_markdown(card).encode())


def _add_and_push(repo: Path) -> None:
    try:
        with dvc_in(repo) as dvc:
            dvc.add([str(repo / MODEL)])
    except dvc_errors() as error:
        mend = "free some space and run again"
        raise DiskError(f"DVC could not add the model: {error}", str(repo / MODEL), mend) from error
    try:
        with dvc_in(repo) as dvc:
            dvc.push(targets=[str(repo / f"{MODEL}.dvc")])
    except dvc_errors() as error:
        where = f"DVC remote of {repo}"
        raise StoreError(
            f"DVC could not push the model: {error}", where, "run again; it continues"
        ) from error


def _fact(repo: Path, action: str, release: str, approved_by: str, current: Assignment | None) -> Released:
    card, sha256 = read_card(repo, release)
    entries = history(repo)
    return Released.model_validate(
        {
            "number": entries[-1].number + 1 if entries else 1,
            "action": action,
            "channel": CHANNEL,
            "release": release,
            "round": card.round,
            "model_sha256": card.model.sha256,
            "steps": card.model.steps,
            "before": current.fact.release if current else None,
            "compared_with": card.compared_with,
            "undecided": len(undecided_findings(card.findings)),
            "approved_by": approved_by,
            "card_sha256": sha256,
            "at": datetime.now(UTC).replace(microsecond=0),
        }
    )
