"""A hospital's and the hub's folders on the session's store, with users as the hub makes them."""

from __future__ import annotations

import csv
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from federation_files import SITES, template, tiny_params

from infra.s3_server import S3Server
from infra.s3_users import S3User, make_user
from tasks.cases import CASES_FILE
from tasks.doctor.finding import Finding
from tasks.doctor.run import examine
from tasks.enrol import read_card
from tasks.homes import HUB, Credentials, Home, enter_home, write_home
from tasks.ledger import card_key, put_record, roster_key
from tasks.pretrain import need_base
from tasks.registered import Roster, SiteKey
from tasks.roster import gather
from tasks.small_cells import shareable
from tasks.store import Store
from tasks.trust import have_all_identities, pin_hub, with_seals
from tasks.workspace import Workspace

SITE, *OTHERS = SITES


@dataclass(frozen=True)
class Federation:
    """Folders of the hub and of one hospital, and the store with everybody's keys; all hospitals have joined."""

    hub: Path
    site: Path
    store: Store
    root: S3User
    home: Home

    def user(self) -> None:
        """Give the hospital a new user, with the policy as it is now."""
        made = make_user(self.home.s3_endpoint, self.root, SITE, self.home.s3_bucket)
        settle(self.site, self.home, made)

    def gather(self) -> Workspace:
        """What the hub does at the start of every round."""
        ws, _ = enter_home(self.hub)
        gather(ws, need_base(ws.base_home))
        return ws

    @property
    def data(self) -> Path:
        return self.site / "cohort" / SITE

    def edit_row(self, number: int, **fields: str) -> None:
        """Change fields of one row of the hospital's case table."""
        with (self.data / CASES_FILE).open(newline="") as file:
            rows = list(csv.DictReader(file))
        rows[number] |= fields
        with (self.data / CASES_FILE).open("w", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            table.writeheader()
            table.writerows(rows)

    def row(self, number: int) -> dict[str, str]:
        with (self.data / CASES_FILE).open(newline="") as file:
            return list(csv.DictReader(file))[number]


def settle(folder: Path, home: Home, user: S3User) -> None:
    secret = {"access_key": user.access_key, "secret_key": user.secret_key}
    write_home(folder, home, Credentials.model_validate(secret), tiny_params())


@pytest.fixture
def federation(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, s3_server: S3Server, store: Store
) -> Iterator[Federation]:
    before, log = dict(os.environ), logging.getLogger("cardiofed.site")
    handlers = log.handlers[:]
    made = template(tmp_path_factory)
    root = S3User(s3_server.access_key, s3_server.secret_key)
    home = Home(name=SITE, s3_endpoint=s3_server.url, s3_bucket=store.bucket)
    hub, site = tmp_path / HUB, tmp_path / SITE
    settle(hub, home.model_copy(update={"name": HUB}), root)
    shutil.copytree(made / "base", hub / "base")
    shutil.copytree(made / "cohort" / SITE, site / "cohort" / SITE)
    identities = have_all_identities(tmp_path / "all", SITES)
    for name, folder in ((HUB, hub), (SITE, site)):
        shutil.copytree(tmp_path / "all" / "keys" / name, folder, dirs_exist_ok=True)
    pin_hub(site, identities[HUB])
    with_seals(store, tmp_path / "all")
    ready = Federation(hub, site, store, root, home)
    ready.user()
    keys = {name: (SiteKey(identity=identities[name], state="valid"),) for name in SITES}
    put_record(store, roster_key(), Roster(sites=SITES, keys=keys))
    fewest = tiny_params().privacy.fewest
    for name in SITES:
        put_record(store, card_key(name), shareable(read_card(made / "cohort" / name), fewest))
    yield ready
    os.environ.clear()
    os.environ.update(before)
    for handler in set(log.handlers) - set(handlers):
        handler.close()
    log.handlers[:] = handlers


def findings(folder: Path) -> dict[str, Finding]:
    """By check, leaving out what depends on the machine that runs the tests."""
    found = {finding.check: finding for finding in examine(folder)}
    return {name: finding for name, finding in found.items() if name not in ("disk", "memory", "GPU")}
