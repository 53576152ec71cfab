"""Keep what a round published: under a DVC tag, and as plain files for the stages that come after."""

from __future__ import annotations

import shutil
from pathlib import Path

from model.errors import DiskError, PackageError, SignatureError
from tasks.events import Action, log_event
from tasks.ledger import merged_key, site_round_prefix
from tasks.limits import OF_SITE, parse_record
from tasks.payloads import unwrap
from tasks.records import Evaluation, Ratings, Update, Verdict
from tasks.settings import load_environment
from tasks.trust import HUB
from tasks.version import Versioned, version_round
from tasks.workspace import Workspace

SITE_RECORDS: dict[str, type[Update | Ratings | Verdict | Evaluation]] = {
    "update.json": Update,
    "ratings.json": Ratings,
    "verdict.json": Verdict,
    "evaluation.json": Evaluation,
}


def keep_round(ws: Workspace, number: int) -> Versioned:
    """Version a round with DVC, push it, and mirror its files and the personal adapters to ``ws.federation``.

    A site's record that cannot be read, or is not by that site about this round, stays in the version and is left out
    of the mirror.

    Args:
        ws: the run.
        number: of the round.

    Returns:
        The round's tag and commit, and how many files and bytes it has.

    Raises:
        StoreError: the store or the DVC remote does not answer.
        DiskError: the folder cannot be written.
    """
    versioned = version_round(ws.versions, ws.store, number, load_environment())
    target = ws.rounds / f"{number:04d}"
    action: Action = "reused" if target.exists() else "done"
    try:
        _mirror(ws, number, ws.versions / "rounds" / target.name, target)
        _mirror_personal(ws, number)
    except OSError as error:
        what = f"cannot keep the files of round {number}: {error.strerror or error}"
        raise DiskError(what, str(ws.federation), "free some space and run again") from error
    log_event(ws.hub_home, "version", number, action, sent_bytes=versioned.bytes)
    return versioned


def _mirror(ws: Workspace, number: int, source: Path, target: Path) -> None:
    """Copy a folder so that ``target`` is whole or absent, with the merged step in the clear."""
    fresh = target.with_name(f".{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(source, fresh, copy_function=shutil.copyfile)
    for path in fresh.glob("sites/*/*.json"):
        if not _is_answer(ws, number, path):
            path.unlink()
    step = fresh / "merged.safetensors"
    if step.exists():
        step.write_bytes(unwrap(ws.store, merged_key(number), step.read_bytes(), HUB))
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)


def _mirror_personal(ws: Workspace, number: int) -> None:
    """The personal adapters of this round; older ones do not fit the model it closed with."""
    folder = ws.federation / "personal"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for personal in ws.root.glob(f"sites/*/personal/{number:04d}.safetensors"):
        shutil.copyfile(personal, folder / f"{personal.parts[-3]}.safetensors")


def _is_answer(ws: Workspace, number: int, path: Path) -> bool:
    """Whether a file is a site's own record about this round."""
    site = path.parent.name
    place = site_round_prefix(site, number) + path.name
    try:
        data = ws.store.seals.opened(place, path.read_bytes())
        record = parse_record(data, SITE_RECORDS[path.name], place, OF_SITE)
    except (KeyError, PackageError, SignatureError):
        return False
    return (record.site, record.round) == (site, number)
