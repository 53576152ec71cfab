"""A whole federation on one machine, as separate processes: a store, Prefect, a hub's worker and one per hospital."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from flows import stages
from flows.invitations import invite_site
from flows.live_tls import end_strayed_workers, have_tls
from flows.only_one import only_one
from flows.schedule import check_cron
from flows.stages import Source, has_base
from infra.prefect_server import prefect_environment, start_prefect
from infra.s3_server import S3Server, start_s3
from infra.workers import start_worker
from tasks.enrol import prepared_sites, read_card
from tasks.homes import HOME_FILE, HUB, Credentials, Home, enter_home, read_credentials, write_home
from tasks.identity import have_identity
from tasks.join import announce, enter, offer
from tasks.roster import register_offers
from tasks.settings import Params
from tasks.workspace import open_workspace

HOSPITALS = "hospitals"


@dataclass(frozen=True)
class Up:
    """A federation that is up.

    Attributes:
        ui_url: Prefect's pages.
        store_url: of the store.
        sites: the hospitals.
    """

    ui_url: str
    store_url: str
    sites: tuple[str, ...]


def bring_up(
    root: Path,
    params: Params,
    source: Source,
    say: Callable[[str], None],
    cron: str | None = None,
    database_url: str | None = None,
    s3_port: int | None = None,
    prefect_port: int | None = None,
    tls: bool | None = None,
) -> Up:
    """Have everything of a federation running; what runs already is left alone.

    Args:
        root: the federation's folder.
        params: settings.
        source: the data set, and how hospitals are formed from it.
        say: told every step in a line.
        cron: when rounds start; None for the schedule of ``prefect.yaml``, empty for none.
        database_url: of Prefect, empty for SQLite in the folder; None for the one before, first SQLite.
        s3_port: of the store; None for a free one.
        prefect_port: of Prefect; None for a free one.
        tls: whether both speak TLS alone, with a certificate of this machine's own CA; None for as it was, first no.

    Returns:
        Addresses and hospitals.

    Raises:
        ConfigError: the folder holds a federation of other settings or data, or the schedule cannot be read.
        ServerError: a server does not start.
    """
    if cron:
        check_cron(cron)
    with only_one(root):
        source = replace(source, data=source.data.resolve())  # workers run in folders of their own
        stages.claim(root, params, source, None)
        say("preparing the hospitals' data")
        stages.cohort(root, params, source, replace=False)
        sites = prepared_sites(root / "cohort")
        if not has_base(root / HUB, params):
            say("the base: trained once, in two minutes on two idle cores with the settings of params.yaml")
            stages.pretrain(root / HUB, params)
        machines = [root / HUB, *(root / HOSPITALS / site for site in sites)]
        certificate = have_tls(root, machines, tls)
        store = start_s3(root / "store", s3_port, keep=True, tls=certificate)
        say(f"store: {store.url}")
        prefect = start_prefect(
            root / "prefect", prefect_port, keep=True, database_url=database_url, tls=certificate
        )
        say(f"Prefect: {prefect.ui_url}")
        end_strayed_workers(machines, store.url, prefect.api_url)
        _found(root, params, store, prefect.api_url, sites)
        os.environ |= prefect_environment(prefect.api_url, root / "prefect")
        _deploy(sites, cron)
        for folder in machines:
            start_worker(folder, HUB if folder == root / HUB else "site")
        say(f"workers: hub, {', '.join(sites)}")
    return Up(prefect.ui_url, store.url, sites)


def _found(root: Path, params: Params, store: S3Server, api_url: str, sites: tuple[str, ...]) -> None:
    """The hub's folder, the bucket, and a folder, a user and an invitation per hospital."""
    if (root / HUB / HOME_FILE).exists():
        params = open_workspace(root / HUB).params  # `cardiofed hub set` may have changed some
    home = Home(name=HUB, s3_endpoint=store.url, prefect_api_url=api_url)
    hub = Credentials.model_validate({"access_key": store.access_key, "secret_key": store.secret_key})
    write_home(root / HUB, home, hub, params)
    have_identity(root / HUB)
    ws, _ = enter_home(root / HUB)
    ws.store.ensure_bucket()
    for site in sites:
        folder = root / HOSPITALS / site
        _give_data(root, site, folder)
        if (folder / HOME_FILE).exists():
            own = home.model_copy(update={"name": site})
            write_home(folder, own, read_credentials(folder), params)  # an address may have changed
        else:
            invitation = invite_site(root / HUB, site)
            enter(folder, invitation)
            offer(folder, invitation)
        announce(folder)
    ws, _ = enter_home(root / HUB)
    register_offers(ws)


def _give_data(root: Path, site: str, folder: Path) -> None:
    """Each hospital's prepared data, in its own folder alone; what is there already is left as it is."""
    target = folder / "cohort" / site
    if target.exists() and read_card(target) == read_card(root / "cohort" / site):
        return
    fresh = folder / ".cohort.new"
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(root / "cohort" / site, fresh / site)
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    (fresh / site).rename(target)
    fresh.rmdir()


def _deploy(sites: tuple[str, ...], cron: str | None) -> None:
    from flows.deployments import deploy_hub, deploy_site  # Prefect takes seconds to import

    deploy_hub(cron)
    for site in sites:
        deploy_site(site)
