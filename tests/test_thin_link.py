"""A site behind a thin link that keeps breaking: the same ledger, little sent twice, nothing half there."""

from __future__ import annotations

import random
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from federation_files import PARAMS_FILE, SITES, NewRun, delete, use_store

from flows.bench_tables import link_table
from infra.thin_link import THIN, LinkSpec, ThinLink
from model.errors import StoreUnreachableError
from tasks.admit import admit_updates
from tasks.bench_link import ROUND, STEPS, Line, bench_link, whole_round
from tasks.bench_scale import TINY
from tasks.close import close_round
from tasks.contact import Contact, keep_contact
from tasks.files import json_bytes
from tasks.judge import judge_merged
from tasks.ledger import contact_key, get_record, site_round_prefix, update_key
from tasks.merge import merge_updates
from tasks.open import open_round
from tasks.rate import rate_candidates
from tasks.records import Update
from tasks.settings import Environment, lay_over, load_params
from tasks.site_round import VERBS, take_part
from tasks.store import Store
from tasks.train import train_site
from tasks.workspace import Workspace, open_workspace

SITE, *OTHERS = SITES
QUICK = LinkSpec(up_bps=10e6, down_bps=10e6, delay_s=0.002)
DATA = random.Random(0).randbytes(300_000)


def behind(env: Environment, link: ThinLink) -> Store:
    return Store(link.environment(env))


# --- the link


def test_a_link_is_as_thin_and_as_far_as_it_says(store: Store, s3_environment: Environment) -> None:
    store.put("a", DATA[:16_000])
    with ThinLink(s3_environment.s3_endpoint, THIN) as link:
        far = behind(s3_environment, link)
        far.exists("a")  # connected
        began, carried = time.monotonic(), link.down_bytes
        far.get("a")
        took_s, carried = time.monotonic() - began, link.down_bytes - carried
    assert 16_000 < carried < 18_000
    assert took_s > 0.3 + 8 * 16_000 / 256e3


def test_all_connections_share_the_bandwidth(store: Store, s3_environment: Environment) -> None:
    store.put("a", DATA[:12_000])
    with (
        ThinLink(s3_environment.s3_endpoint, LinkSpec(down_bps=256e3)) as link,
        ThreadPoolExecutor(2) as pool,
    ):
        far, began = behind(s3_environment, link), time.monotonic()
        assert [len(data) for data in pool.map(far.get, ("a", "a"))] == [12_000, 12_000]
        assert time.monotonic() - began > 8 * 24_000 / 256e3
        assert link.connections >= 2


def test_a_reset_at_a_given_moment_breaks_every_connection_and_the_next_request_goes_through(
    store: Store, s3_environment: Environment
) -> None:
    with ThinLink(s3_environment.s3_endpoint, QUICK) as link:
        far = behind(s3_environment, link)
        far.put("a", b"1")
        link.reset()
        assert link.resets == link.connections > 0
        assert far.get("a") == b"1"
        assert link.connections > link.resets


# --- the store behind it


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_download_goes_on_where_a_reset_broke_it(
    store: Store, s3_environment: Environment, seed: int
) -> None:
    sha256 = store.put("base", DATA)
    with ThinLink(s3_environment.s3_endpoint, replace(QUICK, reset_bytes=40_000, seed=seed)) as link:
        far = behind(s3_environment, link)
        assert far.get("base", sha256) == DATA
        assert link.resets >= 3
        assert link.down_bytes < 1.3 * len(DATA)
    assert far.bytes_received == len(DATA)


def test_an_upload_that_breaks_is_sent_again_whole_and_nothing_half_stands_there(
    store: Store, s3_environment: Environment
) -> None:
    store.put("adapter", b"earlier")
    data = DATA[:30_000]
    with ThinLink(s3_environment.s3_endpoint, replace(QUICK, reset_bytes=20_000, seed=4)) as link:
        far = behind(s3_environment, link)
        far.put("adapter", data)
        assert link.resets >= 2
        assert link.up_bytes > 1.5 * len(data)
    assert store.get("adapter") == data
    assert far.bytes_sent == len(data)


def test_a_link_too_broken_for_an_upload_ends_it_and_leaves_what_was_there(
    store: Store, s3_environment: Environment
) -> None:
    store.put("adapter", b"earlier")
    with ThinLink(s3_environment.s3_endpoint, replace(QUICK, reset_bytes=8_000)) as link:
        with pytest.raises(StoreUnreachableError):
            behind(s3_environment, link).put("adapter", DATA)
        assert link.up_bytes < len(DATA)
    assert store.get("adapter") == b"earlier"
    assert [info.key for info in store.list("")] == ["adapter"]


def test_small_requests_survive_many_resets(store: Store, s3_environment: Environment) -> None:
    with ThinLink(s3_environment.s3_endpoint, replace(QUICK, reset_bytes=6_000)) as link:
        far = behind(s3_environment, link)
        for k in range(6):
            far.put(f"{k}", bytes([k]))
            assert far.get(f"{k}") == bytes([k])
        assert len(far.list("")) == 6
        assert link.resets >= 4


# --- the site behind it


@pytest.fixture
def hub(start: NewRun, s3_environment: Environment) -> Workspace:
    """A founded federation of three hospitals, no round opened."""
    hub = start()
    assert hub.store.endpoint == s3_environment.s3_endpoint
    return hub


def linked(hub: Workspace, env: Environment, link: ThinLink, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The same folder, by a process that reaches the store over a link."""
    use_store(monkeypatch, link.environment(env))
    site = open_workspace(hub.root)
    assert site.store.endpoint == link.url
    return site


def test_a_site_counts_its_payloads_and_not_what_the_link_repeats(
    hub: Workspace, s3_environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = replace(QUICK, reset_bytes=20_000, seed=4)
    with ThinLink(s3_environment.s3_endpoint, spec) as link:
        site = linked(hub, s3_environment, link, monkeypatch)
        with keep_contact(site, 1, SITE):
            site.store.put("sites/adapter", DATA[:30_000])
            site.store.get("sites/adapter")
        assert link.resets >= 2
    contact = get_record(hub.store, contact_key(SITE, 1), Contact)
    assert (contact.sent_bytes, contact.received_bytes) == (30_000, 30_000)


@pytest.mark.parametrize(
    "spec",
    [
        replace(QUICK, reset_bytes=20_000),
        pytest.param(replace(THIN, reset_bytes=20_000), marks=pytest.mark.slow),
    ],
    ids=["quick", "thin"],
)
def test_a_round_over_a_link_that_breaks_leaves_the_ledger_of_a_round_without(
    spec: LinkSpec, hub: Workspace, s3_environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThinLink(s3_environment.s3_endpoint, spec) as link:
        site = linked(hub, s3_environment, link, monkeypatch)
        open_round(hub, 1)
        for other in OTHERS:
            train_site(hub, 1, other)
        assert take_part(site, 1, SITE, patience_s=0) == ("train",)
        admit_updates(hub, 1)
        for other in OTHERS:
            rate_candidates(hub, 1, other)
        assert take_part(site, 1, SITE, patience_s=0) == ("rate",)
        merge_updates(hub, 1)
        for other in OTHERS:
            judge_merged(hub, 1, other)
        assert take_part(site, 1, SITE, patience_s=0) == ("judge",)
        assert close_round(hub, 1).missing == ()
        assert take_part(site, 1, SITE, patience_s=0) == ("adapt",)
        assert link.resets >= 3

    over_the_link = own_objects(hub)
    delete(hub.store, *over_the_link)
    shutil.rmtree(hub.site_home(SITE))
    for verb in VERBS.values():
        verb(hub, 1, SITE)
    assert own_objects(hub) == over_the_link


def own_objects(hub: Workspace) -> dict[str, bytes]:
    """What the site has published, its signs of life and the seconds that training took left out."""
    infos = hub.store.list(site_round_prefix(SITE, 1))
    found = {info.key: hub.store.get(info.key) for info in infos if not info.key.endswith("contact.json")}
    update = get_record(hub.store, update_key(SITE, 1), Update)
    return found | {update_key(SITE, 1): json_bytes(update.model_dump(mode="json", exclude={"seconds"}))}


def test_a_round_is_measured_step_by_step_on_every_link(s3_environment: Environment, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    params = lay_over(load_params(PARAMS_FILE), (*TINY, "rating.raters=2"))
    with (
        ThinLink(s3_environment.s3_endpoint, QUICK) as one,
        ThinLink(s3_environment.s3_endpoint, QUICK) as two,
    ):
        lines = [
            Line(name, link.environment(s3_environment), link.carried)
            for name, link in (("1", one), ("2", two))
        ]
        costs = bench_link(params, tmp_path, s3_environment, lines)
        assert [(c.link, c.step) for c in costs] == [(name, step) for name in "12" for step in STEPS]
        assert sum(c.down_bytes for c in costs if c.link == "1") == one.down_bytes
    assert all(c.up_bytes > c.sent_bytes and c.down_bytes > c.received_bytes > 0 for c in costs)
    assert whole_round(costs, "1").requests == sum(
        c.requests for c in costs if c.link == "1" and c.step in ROUND
    )
    assert len(link_table(costs).splitlines()) == 2 + 2 * (len(STEPS) + 1)
