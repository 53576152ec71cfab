"""What a budget cuts comes later, once; and the model is the base plus the published steps, on a real store."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from federation_files import SITES, NewRun, delete, objects, trained

import tasks.merge
import tasks.train
from model.errors import IntegrityError, UnreadableError
from model.factors import Adapter, adapter_norm, fold, sum_adapters
from model.package import pack_adapter, unpack_adapter
from tasks.admit import admit_updates
from tasks.close import close_failed, close_round
from tasks.enrol import local_federation
from tasks.files import sha256_bytes, sha256_file, write_atomic
from tasks.judge import judge_merged
from tasks.ledger import (
    adapter_key,
    base_key,
    close_key,
    get_record,
    merge_key,
    merged_key,
    put_record,
    rest_key,
    update_key,
    verdict_key,
)
from tasks.merge import merge_updates, read_carry
from tasks.models import trained_models
from tasks.open import open_round
from tasks.packing import Parcel, pack_parcel
from tasks.pretrain import need_base
from tasks.records import Close, MergeRecord, Plan, Score, Step, Update, Verdict, model_sha256
from tasks.store import Store
from tasks.train import read_residual, train_site
from tasks.weights import base_weights, round_weights
from tasks.workspace import Workspace

UPLOAD, DOWNLOAD = 1000, 1500
TIGHT = ("merge.mode=average", f"package.upload_bytes={UPLOAD}", f"package.download_bytes={DOWNLOAD}")
"""Budgets that cut at every site and in every merge."""
WHOLE = {"1.0": 0.0, "0.5": 0.0, "0.25": 0.0}
HALF = {"1.0": -0.2, "0.5": 0.0, "0.25": 0.0}
NOTHING = {"1.0": -0.2, "0.5": -0.2, "0.25": -0.2}


class PowerCutError(BaseException):
    """What no code catches."""


@contextmanager
def power_cut(module: Any, before_write: int) -> Iterator[None]:
    """Let a task die just before its n-th write to disk or store, counted from 0."""
    left = [before_write]

    def dying(write: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise PowerCutError
            return write(*args, **kwargs)

        return wrapped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "put", dying(Store.put))
        if hasattr(module, "write_atomic"):
            patch.setattr(module, "write_atomic", dying(module.write_atomic))
        with pytest.raises(PowerCutError):
            yield


@contextmanager
def packed(module: Any) -> Iterator[list[tuple[Adapter, Adapter, Parcel]]]:
    """Updates, rests and parcels that a task packed, as it packed them."""
    seen: list[tuple[Adapter, Adapter, Parcel]] = []

    def watched(update: Adapter, rest: Adapter, *settings: Any) -> Parcel:
        parcel = pack_parcel(update, rest, *settings)
        seen.append((update, rest, parcel))
        return parcel

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "pack_parcel", watched)
        yield seen


def vote(ws: Workspace, number: int, gains: dict[str, float]) -> Close:
    """The same verdict from every site, and the close that follows."""
    merge = get_record(ws.store, merge_key(number), MergeRecord)
    scores = {fraction: Score(gain=gain, standard_error=0.0, slices=4) for fraction, gain in gains.items()}
    for site in SITES:
        about = {"round": number, "site": site, "merged_sha256": merge.merged_sha256}
        put_record(ws.store, verdict_key(site, number), Verdict(**about, baseline_dice=0.7, gains=scores))
    return close_round(ws, number)


def merged(ws: Workspace, number: int, sites: tuple[str, ...] = SITES) -> Workspace:
    admit_updates(trained(ws, number, sites), number)
    merge_updates(ws, number)
    return ws


def play(
    ws: Workspace, number: int, gains: dict[str, float] = WHOLE, sites: tuple[str, ...] = SITES
) -> Close:
    """A round whose verdicts are given."""
    return vote(merged(ws, number, sites), number, gains)


def residual_file(ws: Workspace, site: str, number: int) -> Path:
    return ws.site_home(site) / "residuals" / f"{number:04d}.safetensors"


def step_of(ws: Workspace, number: int, fraction: float = 1.0) -> Step:
    return Step(round=number, sha256=sha256_bytes(ws.store.get(merged_key(number))), fraction=fraction)


def apart(*parts: tuple[float, Adapter]) -> float:
    """Length of a sum that should vanish; dense, since Gram matrices would add rounding of their own."""
    dense: dict[str, torch.Tensor] = {}
    for c, adapter in parts:
        for name, (B, A) in adapter.items():
            dense[name] = dense.get(name, torch.zeros(())) + c * (B.double() @ A.double())
    return math.sqrt(sum(float(delta.square().sum()) for delta in dense.values()))


def same_weights(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


def fetched_keys(ws: Workspace, plan: Plan, site: str) -> list[str]:
    """What a site downloads to build the model of a round."""
    keys: list[str] = []
    get = Store.get
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "get", lambda self, key, *rest: (keys.append(key), get(self, key, *rest))[1])
        round_weights(ws.store, plan, ws.site_home(site))
    return keys


def test_what_was_sent_and_what_stays_are_together_what_was_trained(start: NewRun) -> None:
    ws = start(*TIGHT)
    before: Adapter = {}
    for number in (1, 2):
        trained(ws, number, [])
        with packed(tasks.train) as seen:
            train_site(ws, number, "lakeside")
        ((update, rest, _),) = seen
        sent = unpack_adapter(ws.store.get(adapter_key("lakeside", number)))
        stays = unpack_adapter(residual_file(ws, "lakeside", number).read_bytes())
        assert apart((1.0, rest), (-1.0, before)) == 0
        assert adapter_norm(stays) > 0.1 * adapter_norm(update)  # the budget does cut
        assert apart((1.0, sent), (1.0, stays), (-1.0, update), (-1.0, rest)) < 1e-6 * adapter_norm(update)
        passport = get_record(ws.store, update_key("lakeside", number), Update)
        wanted = adapter_norm(sum_adapters([(1.0, update), (1.0, rest)]))
        assert passport.cut_energy == pytest.approx((adapter_norm(stays) / wanted) ** 2, abs=1e-5)
        before = stays
        train_rest_and_close(ws, number)


def train_rest_and_close(ws: Workspace, number: int) -> None:
    for site in SITES:
        train_site(ws, number, site)
    admit_updates(ws, number)
    merge_updates(ws, number)
    vote(ws, number, WHOLE)


def test_the_residual_never_leaves_the_site(start: NewRun) -> None:
    ws = start(*TIGHT)
    for number in (1, 2):
        play(ws, number)
    files = {sha256_file(residual_file(ws, site, number)) for site in SITES for number in (1, 2)}
    assert len(files) == 6
    assert not files & set(objects(ws.store).values())


def test_a_training_killed_between_any_two_writes_is_repeated_to_the_same_bytes(start: NewRun) -> None:
    """The residual of round 1 is added to round 2 once, however often round 2 is trained."""
    ws = start(*TIGHT)
    play(ws, 1)
    open_round(ws, 2)
    train_site(ws, 2, "lakeside")
    kept = ws.site_home("lakeside") / "updates" / "0002.safetensors"
    files = (kept, kept.with_suffix(".json"), residual_file(ws, "lakeside", 2))
    keys = (adapter_key("lakeside", 2), update_key("lakeside", 2))

    def outcome() -> list[bytes]:
        return [ws.store.get(keys[0]), files[0].read_bytes(), files[2].read_bytes()]

    whole = outcome()
    for write in range(len(files) + len(keys)):
        delete(ws.store, *keys)
        for file in files:
            file.unlink(missing_ok=True)
        with power_cut(tasks.train, write):
            train_site(ws, 2, "lakeside")
        train_site(ws, 2, "lakeside")
        assert outcome() == whole
        train_site(ws, 2, "lakeside")
        assert outcome() == whole


@pytest.mark.parametrize(("write", "handed_on"), [(0, 1), (1, 1), (2, 1), (3, 1), (4, 2)])
def test_only_an_announced_update_hands_its_residual_on(start: NewRun, write: int, handed_on: int) -> None:
    """A site dies in round 2 before a write (4: after the announcement), sleeps, and is back in round 3."""
    ws = start(*TIGHT)
    play(ws, 1)
    plan = open_round(ws, 2)
    with power_cut(tasks.train, write):
        train_site(ws, 2, "lakeside")
    third = plan.model_copy(update={"round": 3})
    expected = unpack_adapter(residual_file(ws, "lakeside", handed_on).read_bytes())
    assert apart((1.0, read_residual(ws, third, "lakeside")), (-1.0, expected)) == 0


def test_a_residual_of_another_base_or_another_update_is_not_added(start: NewRun) -> None:
    ws = start(*TIGHT)
    play(ws, 1)
    plan = open_round(ws, 2)
    assert read_residual(ws, plan, "lakeside")
    other = plan.model_copy(update={"base": plan.base.model_copy(update={"sha256": "0" * 64})})
    assert read_residual(ws, other, "lakeside") == {}
    (ws.site_home("lakeside") / "updates" / "0001.safetensors").write_bytes(b"of another training")
    assert read_residual(ws, plan, "lakeside") == {}


def test_a_residual_that_is_gone_is_not_replaced_by_an_older_one(start: NewRun) -> None:
    ws = start(*TIGHT)
    for number in (1, 2):
        play(ws, number)
    residual_file(ws, "lakeside", 2).unlink()
    assert read_residual(ws, open_round(ws, 3), "lakeside") == {}  # round 2 had added what round 1 left


def test_a_damaged_residual_is_named_and_not_guessed(start: NewRun) -> None:
    ws = start(*TIGHT)
    play(ws, 1)
    plan = open_round(ws, 2)
    residual_file(ws, "lakeside", 1).write_bytes(b"torn")
    with pytest.raises(UnreadableError, match="damaged residual") as refused:
        read_residual(ws, plan, "lakeside")
    assert refused.value.where.endswith("residuals/0001.safetensors")


def test_without_feedback_nothing_stays_anywhere(start: NewRun) -> None:
    ws = start(*TIGHT, "package.feedback=false")
    play(ws, 1)
    assert not list(ws.root.glob("sites/*/residuals/*"))
    assert get_record(ws.store, merge_key(1), MergeRecord).rest_sha256 is None
    assert not ws.store.exists(rest_key(1))
    plan = open_round(ws, 2)
    assert (read_carry(ws, plan), read_residual(ws, plan, "lakeside")) == ({}, {})


@pytest.mark.parametrize("budget", [700, UPLOAD, 2500])
def test_no_upload_and_no_step_is_ever_larger_than_its_budget(start: NewRun, budget: int) -> None:
    settings = (f"package.upload_bytes={budget}", f"package.download_bytes={budget}")
    ws = start("merge.mode=average", *settings)
    for number in (1, 2):
        play(ws, number)
        sizes = [
            len(ws.store.get(key)) for key in (merged_key(number), *(adapter_key(s, number) for s in SITES))
        ]
        assert max(sizes) <= budget
        record = get_record(ws.store, merge_key(number), MergeRecord)
        assert record.merged_bytes == sizes[0]
        assert 0 < record.cut_energy < 1


def test_the_model_is_the_base_and_the_accepted_parts_of_the_steps(start: NewRun) -> None:
    ws = start(*TIGHT)
    outcomes = [play(ws, number, gains) for number, gains in ((1, HALF), (2, NOTHING), (3, WHOLE))]
    assert [close.outcome for close in outcomes] == ["stepped_back", "rejected", "accepted"]
    half, whole = step_of(ws, 1, 0.5), step_of(ws, 3)
    assert [close.steps for close in outcomes] == [(half,), (half,), (half, whole)]
    plan = open_round(ws, 4)
    assert plan.steps == (half, whole)
    home = ws.site_home("st-anna")
    expected = base_weights(ws.store, plan.base, home)
    for step in (half, whole):
        expected = fold(expected, unpack_adapter(ws.store.get(merged_key(step.round))), step.fraction)
    assert same_weights(round_weights(ws.store, plan, home), expected)


def test_the_carry_is_the_accepted_part_of_the_rest_and_outlives_rejected_and_failed_rounds(
    start: NewRun,
) -> None:
    ws = start(*TIGHT)
    play(ws, 1, HALF)
    rest = unpack_adapter(ws.store.get(rest_key(1)))
    assert adapter_norm(rest) > 0
    for number, end in (
        (2, lambda: vote(ws, 2, NOTHING)),
        (3, lambda: close_failed(ws, 3, IntegrityError("x"))),
    ):
        with packed(tasks.merge) as seen:
            merged(ws, number)
        ((step, carry, parcel),) = seen
        assert apart((1.0, carry), (-0.5, rest)) == 0
        assert apart((1.0, parcel.decoded), (1.0, parcel.rest), (-1.0, step), (-0.5, rest)) < 1e-12
        assert end().steps == (step_of(ws, 1, 0.5),)
    play(ws, 4)
    last = unpack_adapter(ws.store.get(rest_key(4)))
    assert apart((1.0, read_carry(ws, open_round(ws, 5))), (-1.0, last)) == 0


@pytest.mark.parametrize("taken", [(1.0, 1.0, 1.0), (1.0, 0.5, 1.0), (0.5, 1.0, 0.5)])
def test_steps_and_carry_together_are_the_exact_sum_of_what_was_accepted(
    start: NewRun, taken: tuple[float, ...]
) -> None:
    ws = start(*TIGHT)
    exact: Adapter = {}
    for number, part in enumerate(taken, start=1):
        with packed(tasks.merge) as seen:
            assert play(ws, number, WHOLE if part == 1 else HALF).fraction == part
        exact = sum_adapters([(1.0, exact), (part, seen[0][0])])
    published = [
        (part, unpack_adapter(ws.store.get(merged_key(number)))) for number, part in enumerate(taken, start=1)
    ]
    carry = read_carry(ws, open_round(ws, 4))
    assert apart(*published, (1.0, carry), (-1.0, exact)) < 1e-6 * adapter_norm(exact)
    assert apart(*published, (-1.0, exact)) > 1e-3 * adapter_norm(exact)


def test_what_the_judges_scored_is_what_is_published(start: NewRun) -> None:
    ws = start(*TIGHT)
    merged(ws, 1)
    verdicts = [judge_merged(ws, 1, site) for site in SITES]
    record = get_record(ws.store, merge_key(1), MergeRecord)
    assert {verdict.merged_sha256 for verdict in verdicts} == {record.merged_sha256}
    close = vote(ws, 1, WHOLE)
    assert close.steps[-1].sha256 == record.merged_sha256


@pytest.mark.parametrize("write", [0, 1, 2])
def test_a_merge_killed_between_any_two_writes_is_repeated_to_the_same_bytes(
    start: NewRun, write: int
) -> None:
    ws = start(*TIGHT)
    play(ws, 1, HALF)
    merged(ws, 2)
    before = objects(ws.store)
    delete(ws.store, merge_key(2), merged_key(2), rest_key(2))
    with power_cut(tasks.merge, write):
        merge_updates(ws, 2)
    merge_updates(ws, 2)
    assert objects(ws.store) == before


def test_a_rest_that_was_altered_is_refused(start: NewRun) -> None:
    ws = start(*TIGHT)
    play(ws, 1)
    ws.store.put(rest_key(1), pack_adapter({}, "fp32"))
    with pytest.raises(IntegrityError):
        merged(ws, 2)


def test_a_site_that_slept_fetches_only_the_steps_it_lacks(start: NewRun) -> None:
    ws = start(*TIGHT)
    awake = ("hillcrest", "st-anna")
    play(ws, 1)
    assert fetched_keys(ws, open_round(ws, 2), "lakeside") == [merged_key(1)]
    for number in (2, 3):
        play(ws, number, sites=awake)
    plan = open_round(ws, 4)
    assert len(plan.steps) == 3
    assert fetched_keys(ws, plan, "lakeside") == [merged_key(2), merged_key(3)]
    assert fetched_keys(ws, plan, "lakeside") == []
    slept, never = (round_weights(ws.store, plan, ws.site_home(site)) for site in ("lakeside", "st-anna"))
    assert same_weights(slept, never)


def test_a_late_joiner_fetches_the_base_and_every_step_once(start: NewRun) -> None:
    ws = start(*TIGHT)
    for number in (1, 2):
        play(ws, number)
    plan = open_round(ws, 3)
    shutil.rmtree(ws.site_home("lakeside"))
    assert fetched_keys(ws, plan, "lakeside") == [base_key(plan.base.sha256), merged_key(1), merged_key(2)]


def test_a_step_that_was_altered_in_the_store_is_refused(start: NewRun) -> None:
    ws = start(*TIGHT)
    play(ws, 1)
    plan = open_round(ws, 2)
    ws.store.put(merged_key(1), ws.store.get(adapter_key("lakeside", 1)))
    with pytest.raises(IntegrityError):
        round_weights(ws.store, plan, ws.site_home("lakeside"))


def test_a_passport_names_the_model_it_was_trained_from(start: NewRun) -> None:
    ws = start(*TIGHT)
    play(ws, 1)
    trained(ws, 2)
    plan = open_round(ws, 2)
    passports = [get_record(ws.store, update_key("lakeside", number), Update) for number in (1, 2)]
    assert [p.model_sha256 for p in passports] == [model_sha256(plan.base, ()), plan.model_sha256]


def test_the_name_of_a_model_depends_on_base_order_and_fraction(start: NewRun) -> None:
    base = need_base(start().base_home)
    one, two = (Step(round=k, sha256=str(k) * 64, fraction=1.0) for k in (1, 2))
    chains = [(), (one,), (two,), (one, two), (two, one), (one.model_copy(update={"fraction": 0.5}),)]
    names = {model_sha256(base, chain) for chain in chains}
    names.add(model_sha256(base.model_copy(update={"sha256": "0" * 64}), ()))
    assert len(names) == len(chains) + 1
    again = Step.model_validate_json(one.model_dump_json())
    assert model_sha256(base, [again]) == model_sha256(base, (one,))


def test_the_evaluated_global_model_is_the_one_the_next_round_would_start_from(start: NewRun) -> None:
    ws = start(*TIGHT)
    for number, gains in ((1, HALF), (2, WHOLE)):
        play(ws, number, gains)
        folder = ws.rounds / f"{number:04d}"
        write_atomic(folder / "merged.safetensors", ws.store.get(merged_key(number)))
        write_atomic(folder / "close.json", ws.store.get(close_key(number)))
    federation = local_federation(ws, need_base(ws.base_home))
    models = trained_models(ws, federation)
    zero_shot, shared = next(models), next(models)
    assert (zero_shot.name, shared.name) == ("zero-shot", "global")
    plan = open_round(ws, 3)
    assert same_weights(shared.weights, round_weights(ws.store, plan, ws.hub_home))
    (ws.rounds / "0001" / "merged.safetensors").write_bytes(b"another")
    with pytest.raises(IntegrityError, match="not the published step"):
        list(trained_models(ws, federation))
