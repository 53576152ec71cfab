"""Keep what a round published: under a DVC tag, and as plain files for the stages that come after."""

from __future__ import annotations

import shutil
from pathlib import Path

from tasks.events import log_event
from tasks.settings import load_environment
from tasks.version import Versioned, version_round
from tasks.workspace import Workspace


def keep_round(ws: Workspace, number: int) -> Versioned:
    """Version a round with DVC, push it, and mirror its files and the personal adapters to ``ws.federation``.

    Raises:
        StoreError: the store or the DVC remote does not answer.
        DiskError: the folder cannot be written.
    """
    versioned = version_round(ws.versions, ws.store, number, load_environment())
    _mirror(ws.versions / "rounds" / f"{number:04d}", ws.rounds / f"{number:04d}")
    for personal in ws.root.glob(f"sites/*/personal/{number:04d}.safetensors"):
        target = ws.federation / "personal" / f"{personal.parts[-3]}.safetensors"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(personal, target)
    log_event(ws.hub_home, "version", number, "done", sent_bytes=versioned.bytes)
    return versioned


def _mirror(source: Path, target: Path) -> None:
    """Copy a folder so that ``target`` is whole or absent."""
    fresh = target.with_name(f".{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(source, fresh, copy_function=shutil.copyfile)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
