"""What a site costs the hub does not grow with the number of sites; counted in requests, which no load disturbs."""

from __future__ import annotations

import math

import pytest
import torch
from federation_files import PARAMS_FILE

from flows.bench_tables import scale_table
from infra.s3_server import S3Server
from tasks import trust
from tasks.bench_run import prepare_patients
from tasks.bench_scale import PHASES, RECORDS, TINY, PhaseCost, ScaleBench, in_all, play, site_counts
from tasks.settings import lay_over, load_params

FEW, MANY = 3, 6
Played = tuple[list[PhaseCost], dict[str, int]]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> dict[int, Played]:
    """A round of few sites and one of many; the list of keys, read again every two seconds, is not counted anew."""
    torch.set_num_threads(1)
    root, params = tmp_path_factory.mktemp("scale"), lay_over(load_params(PARAMS_FILE), TINY)
    prepared, env = prepare_patients(root / "patients", params), s3_server.environment()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trust, "_FRESH_S", math.inf)
        return {n: play(params, prepared, root / f"of-{n}", env, n) for n in (FEW, MANY)}


@pytest.mark.parametrize("phase", PHASES)
def test_the_hubs_requests_per_site_do_not_grow_with_the_sites(played: dict[int, Played], phase: str) -> None:
    few, many = (next(c for c in played[n][0] if c.phase == phase) for n in (FEW, MANY))
    for_each = (many.calls - few.calls) / (MANY - FEW)
    of_the_round = few.calls - FEW * for_each
    assert for_each == int(for_each)  # every further site costs the same
    most = {
        "audit": 55,
        "wait": 30,
    }  # the log is continued five times; a long wait reads the list of keys again
    assert 0 <= of_the_round <= most.get(phase, 20)


def test_every_phase_is_measured_and_shown(played: dict[int, Played]) -> None:
    costs = tuple(cost for n in played for cost in played[n][0])
    assert [(c.sites, c.phase) for c in costs] == [(n, phase) for n in (FEW, MANY) for phase in PHASES]
    assert all(c.seconds > 0 and c.peak_bytes >= 0 for c in costs)
    result = ScaleBench(costs, {n: records for n, (_, records) in played.items()})
    assert in_all(result, MANY).calls == sum(c.calls for c in costs if c.sites == MANY)
    shown = scale_table(result)
    assert shown.startswith("| per site, of 3 / 6 sites | wall, ms")
    assert all(f"| {phase} |" in shown for phase in (*PHASES, "in all", *RECORDS))


def test_numbers_of_sites_end_with_the_wanted_one() -> None:
    assert site_counts(64) == (4, 16, 64)
    assert site_counts(4) == (4,)
    assert site_counts(20) == (5, 20)
