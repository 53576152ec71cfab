"""The federation's undisturbed twin: the same hospitals, base and settings, round after round, and no fault."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from federation_files import SITES, finish_round, found, trained
from machines import Federation, chaos_params

from tasks.adapt import adapt_site
from tasks.files import json_bytes
from tasks.store import Store
from tasks.train import train_site
from tasks.trust import with_seals
from tasks.workspace import Workspace, open_workspace


def make_twin(federation: Federation, root: Path, store: Store) -> Workspace:
    """Copy what the federation started from, with a ledger of its own.

    Args:
        federation: before its first round.
        root: the twin's folder.
        store: an empty bucket that no fault reaches.
    """
    torch.set_num_threads(1)
    shutil.copytree(federation.root / "cohort", root / "cohort")
    shutil.copytree(federation.root / "hub" / "base", root / "base")
    (root / "params.json").write_bytes(json_bytes(chaos_params().model_dump(mode="json")))
    ws = open_workspace(root)
    ws.__dict__["store"] = with_seals(store, root)  # in place of the one that the environment names
    return found(ws)


def play(
    twin: Workspace,
    number: int,
    fresh: Sequence[str] = SITES,
    late: Sequence[str] = (),
    before_admission: Callable[[Store], None] = lambda _: None,
) -> None:
    """A whole round without any fault.

    Args:
        twin: after the round before.
        number: of the round.
        fresh: hospitals that train in time, rate, judge and adapt.
        late: hospitals whose update comes when the round is closed; they adapt.
        before_admission: done to the ledger when all fresh updates are there.
    """
    trained(twin, number, fresh)
    before_admission(twin.store)
    finish_round(twin, number, fresh)
    for site in late:
        train_site(twin, number, site)
    for site in (*fresh, *late):
        adapt_site(twin, number, site)
