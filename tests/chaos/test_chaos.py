"""Whatever strikes a round, it ends as it would have without, and nothing is lost."""

from __future__ import annotations

from pathlib import Path
from random import Random
from time import sleep

import pytest
from check import immutable, trainings
from faults import (
    ask_doctor,
    damage_at_rest,
    damage_in_transit,
    fill_disk,
    freeze,
    kill_in_request,
    kill_training,
    lose_prefect,
    replace_bytes,
    restart_prefect,
    restart_store,
    set_clock,
    start_foreign_hub,
    start_second_hub,
    stop_store,
    wrong_clock,
)
from federation_files import SITES
from link import Trap
from machines import SMALL_DISK
from operating import HUB_FLOW
from prefect_api import BROKEN
from rounds import Chaos, moments
from until import until

from tasks.ledger import (
    adapter_key,
    candidates_key,
    evaluation_key,
    get_record,
    merge_key,
)
from tasks.records import Candidates, MergeRecord

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SITE, *OTHERS = SITES
HUB_MOMENTS = {
    "admit": (r"candidates/\S+", r"senders\.json", r"candidates\.json"),
    "merge": (r"merged\.safetensors", r"rest\.safetensors", r"merge\.json"),
    "close": (r"close\.json",),
    "version": (r"dvc/files/md5/\S+", r"dvc/files/md5/\S+\.dir"),
}
LATER = (r"ratings\.json", r"verdict\.json", r"evaluation\.json")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_hub_and_hospitals_killed_again_and_again_finish_the_round_with_the_same_bytes(
    chaos: Chaos, seed: int
) -> None:
    chance, machines, table = Random(seed), chaos.federation.machines, chaos.table
    trained, sends, later = (machines[site] for site in chance.sample(SITES, 3))
    number = chaos.begin()
    traps: list[Trap] = []
    for phase, requests in HUB_MOMENTS.items():
        hub, kind = machines["hub"], f"kill -9 of the hub in {phase}"
        traps.append(kill_in_request(table, hub, kind, chance.choice(requests), chance, hub.kill))
    upload = chance.choice((r"adapter\.safetensors", r"update\.json"))
    kind = "kill -9 of a site while uploading"
    traps.append(kill_in_request(table, sends, kind, upload, chance, sends.kill))
    kind, request = "kill -9 of a site while rating or judging", chance.choice(LATER[:2])
    traps.append(kill_in_request(table, sends, kind, request, chance, sends.kill))
    kind, request = "power cut at a site", chance.choice(LATER)
    traps.append(kill_in_request(table, later, kind, request, chance, later.cut_power))
    chaos.await_phase(number, trained.name, "train")
    kill_training(table, trained, chaos.federation.store, number, chance.uniform(0, 2))
    close = chaos.end(number)
    assert all(trap.sprung.is_set() for trap in traps)
    assert not close.degraded
    if seed == 3:
        chaos.quiet()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_store_that_dies_and_comes_back_costs_no_work(chaos: Chaos, seed: int) -> None:
    chance = Random(seed)
    faults = chance.sample((restart_store, restart_store, stop_store), 3)
    number = chaos.begin()
    for fault, moment in zip(faults, moments(chance, 3), strict=True):
        fault(chaos.table, chaos.federation, chaos.reach(number, *moment))
    assert not chaos.end(number).degraded
    if seed == 3:
        chaos.quiet()


@pytest.mark.parametrize("seed", [1, 2])
def test_a_prefect_server_that_restarts_and_forgets_everything_costs_no_work(chaos: Chaos, seed: int) -> None:
    chance = Random(seed)
    number = chaos.begin()
    first, second, third = moments(chance, 3)
    restart_prefect(chaos.table, chaos.federation, chaos.reach(number, *first))
    lose_prefect(chaos.table, chaos.federation, chaos.reach(number, *second))
    restart_prefect(chaos.table, chaos.federation, chaos.reach(number, *third))
    assert not chaos.end(number).degraded
    if seed == 2:
        chaos.quiet()


def test_a_suspended_hospital_comes_late_and_speaks_in_the_next_round_that_it_misses(chaos: Chaos) -> None:
    federation, table = chaos.federation, chaos.table
    site = federation.machines[SITE]
    number = chaos.begin()
    chaos.await_phase(number, SITE, "train")
    wake = freeze(table, site, "in its training")
    start_second_hub(table, federation, chaos.reach(number, "opened", 0.0))
    start_foreign_hub(table, federation, "while the hub waits")
    chaos.go_on(number, lambda: federation.store.exists(candidates_key(number)), "the hub goes on")
    wake()
    close = chaos.end(number, OTHERS, late=[SITE])
    assert (close.degraded, close.missing) == (True, (SITE,))
    assert trainings(federation, number)[SITE] == 1

    federation.off.add(SITE)
    site.stop()
    number = chaos.begin()
    table.struck("worker offline for a whole round", "from its start to its end")
    start_second_hub(table, federation, chaos.reach(number, "opened", 1.0))
    close = chaos.end(number, OTHERS)
    assert (close.degraded, close.missing) == (True, (SITE,))
    assert set(close.participants) == set(SITES)
    receipts = get_record(federation.store, merge_key(number), MergeRecord).receipts
    assert [receipt.age for receipt in receipts if receipt.site == SITE] == [1]
    federation.off.remove(SITE)
    site.start()
    calls_nobody_waits_for(chaos, number)
    chaos.quiet()


def calls_nobody_waits_for(chaos: Chaos, last: int) -> None:
    """Runs of rounds that are over change nothing but what the hospital had missed for itself."""
    federation = chaos.federation
    before, trained = immutable(federation), [trainings(federation, number) for number in (last - 1, last)]
    for deployment, number in (
        (f"site-round/{SITE}", last - 1),
        (f"site-round/{SITE}", last),
        (HUB_FLOW, last),
    ):
        run_id = federation.prefect.begin(deployment, round=number)
        chaos.table.struck(
            "stale queued run of a closed round", f"{deployment.split('/')[0]}, {last - number} back"
        )
        until(lambda run_id=run_id: _ended(chaos, run_id), f"the stale {deployment} ends", poll_s=1.0)  # type: ignore[misc]
    after = immutable(federation)
    assert set(after) - set(before) <= {evaluation_key(SITE, last)}
    assert not {key for key, sha256 in before.items() if after.get(key) != sha256}
    assert [trainings(federation, number) for number in (last - 1, last)] == trained


def _ended(chaos: Chaos, run_id: str) -> bool:
    run = chaos.federation.prefect.run(run_id)
    assert run is not None
    assert run.state not in ("FAILED", "CRASHED"), run.message
    return run.state == "COMPLETED"


@pytest.mark.parametrize("off_s", [3600, -3600])
def test_a_hospital_whose_clock_is_an_hour_off_says_so_and_is_missed_for_a_round(
    chaos: Chaos, off_s: int, tmp_path: Path
) -> None:
    clock = wrong_clock(tmp_path, off_s)
    if clock is None:
        pytest.skip("no C compiler to build a clock with")
    federation, site = chaos.federation, chaos.federation.machines[SITE]
    federation.off.add(SITE)
    set_clock(chaos.table, site, clock)
    number = chaos.begin()
    other = federation.machines[OTHERS[0]]
    damaged = damage_in_transit(chaos.table, other, r"adapter\.safetensors", Random(off_s), cut=off_s > 0)
    close = chaos.end(number, OTHERS)
    assert (close.degraded, close.missing) == (True, (SITE,))
    assert damaged.sprung.is_set()
    assert f"{'ahead of' if off_s > 0 else 'behind'} the store's" in ask_doctor(site, clock)
    (run,) = (run for run in federation.prefect.runs() if run.pool == site.pool and run.round == number)
    # a worker whose clock is slow takes its call for one of the future and never begins
    assert ("clock" in run.message) if off_s > 0 else (run.state == "CANCELLED"), run
    site.stop()
    federation.off.remove(SITE)
    site.start()
    if off_s < 0:
        chaos.quiet()


@pytest.mark.parametrize("truncate", [True, False])
def test_full_disks_and_damaged_uploads_cost_at_most_the_damaged_update_which_is_named(
    chaos: Chaos, truncate: bool
) -> None:
    federation, table, chance = chaos.federation, chaos.table, Random(truncate)
    if not federation.small_disk:
        pytest.skip("no right to mount a disk that can be filled")
    number = chaos.begin()
    spoilt, flipped = (site for site in SITES if site != SMALL_DISK)
    key = adapter_key(spoilt, number)
    traps = [
        damage_in_transit(table, federation.machines[flipped], r"adapter\.safetensors", chance, cut=truncate),
        damage_in_transit(table, federation.machines[flipped], r"ratings\.json", chance, cut=not truncate),
        damage_in_transit(table, federation.hub, r"merged\.safetensors", chance, cut=truncate),
        damage_at_rest(table, federation, spoilt, number, truncate),
    ]
    chaos.await_phase(number, SMALL_DISK, "train")
    free = fill_disk(table, federation.machines[SMALL_DISK], "in its training")
    if truncate:
        sleep(chance.uniform(1, 8))  # space comes back while the phase tries again by itself
    else:
        until(lambda: _has_failed(chaos, SMALL_DISK, number), "the full disk ends the run", poll_s=1.0)
    free()
    chaos.spoilt.append(key)
    close = chaos.end(number, before_admission=lambda store: replace_bytes(store, key, truncate))
    assert all(trap.sprung.is_set() for trap in traps)
    assert (close.degraded, close.missing) == (True, (spoilt,))
    (refusal,) = get_record(federation.store, candidates_key(number), Candidates).quarantined
    assert refusal.site == spoilt
    if not truncate:
        chaos.quiet()


def _has_failed(chaos: Chaos, site: str, number: int) -> bool:
    pool = chaos.federation.machines[site].pool
    return any(
        r.pool == pool and r.round == number and r.state in BROKEN for r in chaos.federation.prefect.runs()
    )
