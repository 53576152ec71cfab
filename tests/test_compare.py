"""The comparisons are trained once: what is done is found, whenever the run was interrupted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from federation_files import SITES, new_run

from tasks.compare import average_full, full_weights, train_alone, train_full
from tasks.enrol import local_federation
from tasks.events import count_events
from tasks.pretrain import need_base
from tasks.records import FederationRecord
from tasks.workspace import Workspace

Run = tuple[Workspace, FederationRecord]


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Run:
    ws = new_run(tmp_path_factory, tmp_path / "run")
    return ws, local_federation(ws, need_base(ws.base_home))


def counts(ws: Workspace, phase: str) -> list[tuple[int, int]]:
    """How often each site has done a phase, and found it done."""
    homes = [ws.site_home(site) for site in SITES]
    return [(count_events(home, phase), count_events(home, phase, "reused")) for home in homes]


def play(run: Run, number: int) -> Path:
    for site in SITES:
        train_full(*run, number, site)
    return average_full(*run, number)


def test_federated_averaging_that_is_done_is_not_trained_again(run: Run) -> None:
    ws, _ = run
    before = [play(run, number).read_bytes() for number in (1, 2)]
    assert counts(ws, "fedavg") == [(2, 0)] * 3
    assert [play(run, number).read_bytes() for number in (1, 2)] == before
    assert counts(ws, "fedavg") == [(2, 2)] * 3
    assert (count_events(ws.hub_home, "fedavg"), count_events(ws.hub_home, "fedavg", "reused")) == (2, 2)


def test_only_the_sites_that_had_not_trained_train_after_an_interruption(run: Run) -> None:
    ws, _ = run
    train_full(*run, 1, "lakeside")
    play(run, 1)
    assert counts(ws, "fedavg") == [(1, 0), (1, 1), (1, 0)]


def test_the_average_replaces_the_sites_files_and_moves_the_model(run: Run) -> None:
    ws, _ = run
    average = play(run, 1)
    assert train_full(*run, 1, "lakeside") == average
    assert not list(ws.root.glob("sites/*/fedavg/*-0001.safetensors"))
    base, now = full_weights(*run, 0), full_weights(*run, 1)
    assert any(not torch.equal(base[name], now[name]) for name in base)


def test_a_site_that_trained_alone_does_not_train_again(run: Run) -> None:
    ws, _ = run
    before = train_alone(*run, "lakeside").read_bytes()
    assert train_alone(*run, "lakeside").read_bytes() == before
    assert counts(ws, "train alone") == [(0, 0), (1, 1), (0, 0)]


def test_a_site_that_trains_alone_is_not_handicapped_by_what_a_link_can_carry(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    trained = []
    for k, settings in enumerate(((), ("package.dtype=int4", "package.upload_bytes=700"))):
        ws = new_run(tmp_path_factory, tmp_path / f"run-{k}", *settings)
        run = ws, local_federation(ws, need_base(ws.base_home))
        trained.append(train_alone(*run, "lakeside").read_bytes())
    assert trained[0] == trained[1]
