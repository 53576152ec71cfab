"""The benchmarks run, measure what they say, and their tables and records agree; no test looks at a clock."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from flows.bench import bench, merge_verdict, steps_verdict
from model.factors import truncate_adapter
from model.merge import merge_step
from model.package import unpack_adapter
from tasks.bench_merge import METHODS, MergeBench, PackageFile, make_case, measure_method, run_method
from tasks.bench_steps import (
    FULL,
    PHASES,
    Spread,
    StepsBench,
    bench_steps,
    network_parts,
    time_parts,
)
from tasks.bench_steps import _full_training as full_training
from tasks.settings import Params, load_params

ROOT = Path(__file__).resolve().parent.parent
CHANNELS = (4, 8)


@pytest.fixture(scope="module")
def params() -> Params:
    tiny = ("network.channels=[4, 8]", "data.crop=32", "training.batch=2", "lora.wide_from=200")
    return load_params(ROOT / "params.yaml", (*tiny, "seed=3"))


@pytest.fixture(scope="module")
def steps(params: Params) -> StepsBench:
    return bench_steps(params, repetitions=2, part_repetitions=1)


def test_every_phase_of_every_variant_takes_time(steps: StepsBench) -> None:
    assert [s.variant for s in steps.steps] == [FULL, "adapter of rank 16", "adapter of rank 4"]
    for step in steps.steps:
        assert tuple(step.phases_ms) == PHASES
        assert all(spread.low > 0 for spread in step.phases_ms.values())
        assert step.step_ms.low <= step.step_ms.median <= step.step_ms.high
    assert steps.steps[0].ratio == Spread(1.0, 1.0, 1.0)
    assert steps.steps[0].trained > steps.steps[-1].trained > 0


def test_full_weights_compute_backwards_through_every_part(params: Params) -> None:
    training = full_training(params, 2)
    times = time_parts(training)
    names = [name for name, _ in network_parts(training.net)]
    assert names == ["down.0", "down.1", "up.0"]
    ways = {(name, way) for name in [*names, "loss"] for way in ("forward", "backward")}
    assert set(times) == ways and min(times.values()) > 0
    assert training.done == 1


def test_timing_leaves_no_hooks_behind_and_the_step_is_the_usual_one(params: Params) -> None:
    timed, plain = full_training(params, 2), full_training(params, 2)
    time_parts(timed)
    plain.step()
    assert timed.step() == plain.step()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in timed.net.modules())


def test_a_step_target_is_met_only_if_every_rank_meets_it(steps: StepsBench) -> None:
    full, large, small = steps.steps
    cheap, dear = Spread(0.7, 0.7, 0.7), Spread(0.8, 0.8, 0.8)
    both = replace(steps, steps=(full, replace(large, ratio=cheap), replace(small, ratio=cheap)))
    one = replace(steps, steps=(full, replace(large, ratio=dear), replace(small, ratio=cheap)))
    assert both.met and not one.met
    assert "0.75 of a full-weight step: not met (adapter of rank 16 0.80" in steps_verdict(one)


def test_packages_have_mixed_ranks_and_shares_that_add_up(tmp_path: Path, params: Params) -> None:
    case = make_case(tmp_path, params, 30, CHANNELS)
    assert sum(case.shares) == pytest.approx(1)
    assert len(case.packages) == 30 and all(path.stat().st_size > 0 for path in case.packages)
    assert max(case.ranks) == 16 and min(case.ranks) < 8
    again = make_case(tmp_path / "again", params, 30, CHANNELS)
    assert case.packages[7].read_bytes() == again.packages[7].read_bytes()


def test_a_mapped_package_reads_as_the_whole_one(tmp_path: Path, params: Params) -> None:
    case = make_case(tmp_path, params, 2, CHANNELS)
    whole, mapped = unpack_adapter(case.packages[0].read_bytes()), PackageFile(case.packages[0])
    assert list(mapped.layers) == list(whole)
    assert all(torch.equal(mapped.factors(name).B, whole[name].B) for name in whole)


def test_streaming_and_stacking_cut_the_same_energy(tmp_path: Path, params: Params) -> None:
    case = replace(make_case(tmp_path, params, 20, CHANNELS), rank_max=3)
    (streamed, _), (stacked, _) = (run_method(name, case, case) for name in ("streaming", "stacked"))
    updates = {path.name: unpack_adapter(path.read_bytes()) for path in case.packages}
    lost = truncate_adapter(merge_step(updates, dict(zip(updates, case.shares, strict=True))), 3)[1]
    assert lost > 1e-4
    assert streamed.lost == stacked.lost == pytest.approx(lost, abs=1e-6)
    assert streamed.read_bytes == sum(path.stat().st_size for path in case.packages)


def test_dense_averaging_reads_the_full_weights_of_every_site(tmp_path: Path, params: Params) -> None:
    case = make_case(tmp_path, params, 5, CHANNELS)
    cost, _ = run_method("dense", case, case)
    assert cost.read_bytes == 5 * sum(path.stat().st_size for path in case.weights)
    assert cost.lost is None and cost.seconds >= 0


def test_a_method_is_measured_in_a_process_of_its_own(tmp_path: Path, params: Params) -> None:
    case = make_case(tmp_path, params, 6, CHANNELS)
    cost, _ = measure_method("streaming", case, case)
    assert cost.method == "streaming" and cost.cpu_s > 0 and cost.peak_bytes >= 0


def test_a_memory_target_is_not_met_by_a_lower_bound() -> None:
    made = MergeBench(
        sites=2,
        channels=CHANNELS,
        ranks={4: 1, 16: 1},
        dtype="int8",
        rank_max=64,
        weights_bytes=1000,
        layer_bytes=700,
        package_bytes=100,
        target_bytes=1000,
        exact_peak=True,
        costs=(_cost(999),),
    )
    assert made.met and "1000" not in merge_verdict(made)
    assert not replace(made, costs=(_cost(1000),)).met
    bound = replace(made, exact_peak=False)
    assert not bound.met and "a lower bound" in merge_verdict(bound)


def test_the_command_writes_the_record_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    tiny = ["--set", "network.channels=[4, 8]", "--set", "data.crop=32", "--set", "training.batch=2"]
    done = CliRunner().invoke(bench, ["steps", "--repetitions", "2", *tiny])
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "runs/bench/steps.json").read_text())
    assert record["repetitions"] == 2 and record["met"] in (True, False)
    assert f"target 0.75 of a full-weight step: {'met' if record['met'] else 'not met'}" in done.output


def _cost(peak_bytes: int) -> object:
    from tasks.bench_merge import MethodCost

    return MethodCost(METHODS[0], 1.0, 1.0, peak_bytes, 10, 0.1)
