"""The benchmark of trust measures what it says: counted in bytes and requests, which no load disturbs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from federation_files import PARAMS_FILE

from flows.bench_tables import trust_table
from infra.process import stop
from infra.s3_server import S3Server, start_s3
from infra.thin_link import LinkSpec, ThinLink
from infra.tls import server_certificate
from tasks.bench_scale import TINY
from tasks.bench_trust import OFF, ON, PARTS, SETTINGS, Cost, RoundCost, Server, TrustBench, bench_trust
from tasks.settings import lay_over, load_params
from tasks.trust import HUB

SITES = 3


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    home = tmp_path_factory.mktemp("tls")
    server = start_s3(home / "s3", tls=server_certificate(home / "certificates"))
    yield server
    stop(server.pid_file)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server, tls_server: S3Server) -> TrustBench:
    torch.set_num_threads(1)
    params = lay_over(load_params(PARAMS_FILE), (*TINY, f"rating.raters={SITES - 1}"))
    plain, tls = s3_server.environment(), tls_server.environment()
    with ThinLink(plain.s3_endpoint, LinkSpec()) as one, ThinLink(tls.s3_endpoint, LinkSpec()) as other:
        servers = [
            Server(env, line.environment(env), line.carried) for env, line in ((plain, one), (tls, other))
        ]
        chosen = [setting for setting in SETTINGS if setting.name in (OFF, ON)]
        return bench_trust(params, tmp_path_factory.mktemp("trust"), *servers, [1], 1, chosen)


def test_every_setting_is_played_and_every_part_measured(result: TrustBench) -> None:
    assert result.sites == SITES
    assert [cost.setting for cost in result.rounds] == [OFF, ON]
    for cost in result.rounds:
        assert cost.round == 2 and cost.hub.up_bytes == 0
        assert min(cost.hub.seconds, cost.site.seconds, cost.site.cpu_s) > 0
        for parts in (cost.hub_parts, cost.site_parts):
            assert set(parts) == set(PARTS)
            assert parts["seals"].seconds > 0 and parts["audit log"].requests > 0


def test_what_is_on_costs_bytes_where_it_should(result: TrustBench) -> None:
    def site(setting: str, name: str) -> float:
        return result.of(setting, "site", name)[0]

    assert site(ON, "sent_bytes") < site(OFF, "sent_bytes")  # small cells stay at home
    assert site(ON, "received_bytes") > site(OFF, "received_bytes")
    around = {s: site(s, "up_bytes") - site(s, "sent_bytes") for s in (OFF, ON)}
    assert 0 < around[OFF] < around[ON]
    padding = [result.of(s, "site", "received_bytes", "padding")[0] for s in (OFF, ON)]
    assert 0 < padding[0] < padding[1]


def test_a_site_reads_no_more_of_seals_than_its_records_have(result: TrustBench) -> None:
    """A seal has 163 to 237 bytes; a site seals its update, ratings, verdict and evaluation."""
    sent, spread = result.of(OFF, "site", "sent_bytes", "seals")
    assert 4 * 163 <= sent <= 4 * 237 and spread == 0


def test_the_table_tells_mean_and_spread_of_hub_and_site() -> None:
    some = Cost(10, 2000, 4000, 3000, 5000, 1.0, 0.5)
    parts = dict.fromkeys(PARTS, Cost(1, 100, 200, seconds=0.004, cpu_s=0.002))
    first = RoundCost(OFF, 1, 2, some, some, parts, parts)
    result = TrustBench(3, (first, replace(first, round=3, site=replace(some, cpu_s=1.5))))
    assert result.of(OFF, HUB, "requests") == (10, 0)
    shown = trust_table(result)
    assert f"| site: {OFF} | 10 | 2.0 | 4.0 | 3.0 | 5.0 | 1.00 ± 0.71 | 1.00 |" in shown
    assert f"| hub: seals, {OFF} | 1.0 | 0.1 | 0.2 | 2.0 | 4.0 |" in shown
