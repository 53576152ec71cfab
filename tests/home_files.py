"""Folders of the hub and of three hospitals that have joined, as they lie on machines of their own; no Prefect."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from doctor_files import SITE, settle
from federation_files import SITES, template, tiny_params
from phantom_files import write_group

from infra.s3_server import S3Server
from infra.s3_users import S3User, make_user
from tasks.adapt import adapt_site
from tasks.admit import admit_updates
from tasks.close import close_round
from tasks.enrol import read_card
from tasks.files import json_bytes
from tasks.homes import HUB, Home, enter_home
from tasks.judge import judge_merged
from tasks.ledger import card_key, put_record, roster_key
from tasks.merge import merge_updates
from tasks.mirror import keep_round
from tasks.open import open_round
from tasks.prepare import prepare
from tasks.pretrain import need_base
from tasks.rate import rate_candidates
from tasks.records import Close
from tasks.registered import Roster, SiteKey
from tasks.roster import gather
from tasks.small_cells import shareable
from tasks.store import Store
from tasks.train import train_site
from tasks.trust import have_all_identities, pin_hub
from tasks.workspace import Workspace


@dataclass(frozen=True)
class Homes:
    """A machine's folder for each, with keys of its own; the first hospital has a user of its own at the store."""

    root: Path

    def enter(self, name: str) -> Workspace:
        """Be that machine."""
        ws, _ = enter_home(self.root / name)
        ws.store.exists("global/roster.json")  # the store is this machine's before another one is entered
        return ws

    def keep_round(self, number: int) -> None:
        """Version it at the hub."""
        keep_round(self.enter(HUB), number)

    def play_round(self, number: int) -> Close:
        """All phases, each on its machine."""
        hub, sites = self.enter(HUB), {site: self.enter(site) for site in SITES}
        gather(hub, need_base(hub.base_home))
        open_round(hub, number)
        for site, ws in sites.items():
            train_site(ws, number, site)
        admit_updates(hub, number)
        for site, ws in sites.items():
            rate_candidates(ws, number, site)
        merge_updates(hub, number)
        for site, ws in sites.items():
            judge_merged(ws, number, site)
        close = close_round(hub, number)
        for site, ws in sites.items():
            adapt_site(ws, number, site)
        return close


@pytest.fixture
def homes(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, s3_server: S3Server, store: Store
) -> Iterator[Homes]:
    """Hospitals of three or four patients."""
    with _settled(template(tmp_path_factory), tmp_path, s3_server, store) as ready:
        yield ready


@pytest.fixture
def large_homes(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, s3_server: S3Server, store: Store
) -> Iterator[Homes]:
    """Hospitals with as many validation patients as may be told of, and the smallest one with a patient unlike all."""
    made, settings = tmp_path / "made", ("data.validation=0.5", "data.test=0.1")
    for i, site in enumerate(SITES):
        write_group(made / "data" / site, "NOR", 10, first=100 * i)
    write_group(made / "data" / SITES[-1], "HCM", 1, first=500)
    prepare(made / "data", "acdc", "folder", made / "cohort", tiny_params(*settings))
    shutil.copytree(template(tmp_path_factory) / "base", made / "base")
    with _settled(made, tmp_path, s3_server, store, *settings) as ready:
        yield ready


@contextmanager
def _settled(
    made: Path, tmp_path: Path, s3_server: S3Server, store: Store, *settings: str
) -> Iterator[Homes]:
    before, log = dict(os.environ), logging.getLogger("cardiofed.site")
    handlers, root = log.handlers[:], tmp_path / "machines"
    admin = S3User(s3_server.access_key, s3_server.secret_key)
    params = tiny_params("privacy.encrypt=true", "judge.tolerance=0.99", *settings)
    identities = have_all_identities(tmp_path / "all", SITES)
    for name in (HUB, *SITES):
        home = Home(name=name, s3_endpoint=s3_server.url, s3_bucket=store.bucket)
        user = make_user(s3_server.url, admin, name, store.bucket) if name == SITE else admin
        settle(root / name, home, user)
        (root / name / "params.json").write_bytes(json_bytes(params.model_dump(mode="json")))
        shutil.copytree(tmp_path / "all" / "keys" / name, root / name, dirs_exist_ok=True)
    shutil.copytree(made / "base", root / HUB / "base")
    ready = Homes(root)
    keys = {name: (SiteKey(identity=identities[name], state="valid"),) for name in SITES}
    put_record(ready.enter(HUB).store, roster_key(), Roster(sites=SITES, keys=keys))
    for site in SITES:
        shutil.copytree(made / "cohort" / site, root / site / "cohort" / site)
        pin_hub(root / site, identities[HUB])
        card = shareable(read_card(root / site / "cohort" / site), params.privacy.fewest)
        put_record(ready.enter(site).store, card_key(site), card)
    try:
        yield ready
    finally:
        os.environ.clear()
        os.environ.update(before)
        for handler in set(log.handlers) - set(handlers):
            handler.close()
        log.handlers[:] = handlers
