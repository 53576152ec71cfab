"""Noise on updates: as strong as asked, drawn once and in secret, counted right; and nothing changes without it."""

from __future__ import annotations

import math
import shutil

import pytest
import torch
from federation_files import SITES, NewRun, delete, finish_round, trained
from scipy.stats import norm
from test_feedback import power_cut

import tasks.train
from model.factors import Adapter, Factors, adapter_norm, factorise
from model.noise import privatise
from model.package import unpack_adapter
from tasks.admit import admit_updates
from tasks.events import count_events
from tasks.ledger import adapter_key, get_record, merge_key, put_record, update_key
from tasks.open import open_round
from tasks.records import MergeRecord, Spent, Update
from tasks.settings import Dp
from tasks.spending import BOOK_FILE, add_noise, epsilon_of, spending
from tasks.train import train_site
from tasks.workspace import Workspace

CLIP, NOISE, DELTA = 2.0, 0.5, 1e-5
NOISY = f"privacy.dp={{clip: {CLIP}, noise: {NOISE}, delta: {DELTA:.7f}}}"


@pytest.fixture
def start(start: NewRun) -> NewRun:
    """A founded federation whose updates get noise, without rating."""
    return lambda *more: start("merge.mode=average", NOISY, *more)


def adapter(length: float) -> dict[str, Factors]:
    """Two layers of random values, of this length together."""
    generator = torch.Generator().manual_seed(1)
    layers = {"a": torch.randn(8, 12, generator=generator), "b": torch.randn(5, 1, generator=generator)}
    size = math.sqrt(sum(float(delta.square().sum()) for delta in layers.values()))
    return {name: factorise(length / size * delta, min(delta.shape))[0] for name, delta in layers.items()}


def test_an_update_is_clipped_as_a_whole_and_a_short_one_is_left_as_it_is() -> None:
    for length, kept in ((10.0, CLIP), (CLIP, CLIP), (0.5, 0.5), (0.0, 0.0)):
        clipped = privatise(adapter(length), CLIP, 1e-12, torch.Generator())
        assert adapter_norm(clipped) == pytest.approx(kept, abs=1e-7)
    before, after = adapter(10.0), privatise(adapter(10.0), CLIP, 1e-12, torch.Generator())
    for name in before:
        assert torch.allclose(after[name].product(), CLIP / 10 * before[name].product(), atol=1e-9)


@pytest.mark.parametrize(("clip", "noise"), [(1.0, 1.0), (3.0, 0.2)])
def test_every_weight_gets_noise_of_the_asked_deviation_also_where_nothing_was_learned(
    clip: float, noise: float
) -> None:
    still: Adapter = {name: Factors(torch.zeros(200, 1), torch.zeros(1, 250)) for name in "ab"}
    drawn = {
        k: f.product() for k, f in privatise(still, clip, noise, torch.Generator().manual_seed(3)).items()
    }
    for values in drawn.values():  # 50,000 values: the deviation is off by 0.3 % (1 sigma)
        assert float(values.std()) == pytest.approx(noise * clip, rel=0.015)
        assert abs(float(values.mean())) < 4 * noise * clip / math.sqrt(values.numel())
    assert abs(float((drawn["a"] * drawn["b"]).mean())) < 4 * (noise * clip) ** 2 / math.sqrt(50_000)


def test_noise_is_another_every_time_and_follows_from_no_global_seed() -> None:
    dp, drawn = Dp(clip=1.0, noise=1.0, delta=DELTA), []
    for _ in range(2):
        torch.manual_seed(1)
        drawn.append(add_noise(adapter(1.0), dp)["a"].product())
    assert not torch.allclose(drawn[0], drawn[1])


def exact_delta(noise: float, releases: int, epsilon: float) -> float:
    """δ of Gaussian mechanisms at ε, to the last digit (Balle and Wang, arXiv 1805.06530, theorem 8)."""
    sigma = noise / math.sqrt(releases)
    above, below = 1 / (2 * sigma) - epsilon * sigma, -1 / (2 * sigma) - epsilon * sigma
    return float(norm.cdf(above) - math.exp(epsilon + norm.logcdf(below)))


@pytest.mark.parametrize(("noise", "releases"), [(1.0, 1), (1.0, 10), (4.0, 30), (0.3, 5), (20.0, 3)])
def test_epsilon_bounds_the_exact_one_and_not_by_much(noise: float, releases: int) -> None:
    epsilon = epsilon_of([noise] * releases, DELTA)
    assert exact_delta(noise, releases, epsilon) <= DELTA < exact_delta(noise, releases, 0.8 * epsilon)


def test_epsilon_is_the_one_of_the_formula() -> None:
    """min over α of T α / 2σ² + log((α − 1) / α) − (log δ + log α) / (α − 1); at σ = 1 and T = 1 it is 4.7526."""
    best = min(
        a / 2 + math.log((a - 1) / a) - (math.log(DELTA) + math.log(a)) / (a - 1)
        for a in (1 + k / 1000 for k in range(1, 20_000))
    )
    assert epsilon_of([1.0], DELTA) == pytest.approx(best, rel=1e-3)
    assert epsilon_of([], DELTA) == 0.0


def test_releases_of_different_noise_add_up() -> None:
    assert epsilon_of([1.0, 2.0], DELTA) == pytest.approx(epsilon_of([1 / math.sqrt(1.25)], DELTA), rel=1e-9)
    told = spending({"a": 1.0, "b": 2.0}, Dp(clip=1.0, noise=2.0, delta=DELTA))
    assert (told.releases, told.epsilon) == (2, pytest.approx(epsilon_of([1.0, 2.0], DELTA), abs=1e-4))


def passport(ws: Workspace, site: str, number: int = 1) -> Update:
    return get_record(ws.store, update_key(site, number), Update)


def test_a_passport_tells_noise_and_epsilon_and_the_receipt_tells_them_on(start: NewRun) -> None:
    ws = start()
    for number in (1, 2):
        finish_round(trained(ws, number), number)
        told = passport(ws, "lakeside", number)
        expected = round(epsilon_of([NOISE] * number, DELTA), 4)
        assert told.spent == Spent(clip=CLIP, noise=NOISE, delta=DELTA, releases=number, epsilon=expected)
        assert told.curve == ()
        for receipt in get_record(ws.store, merge_key(number), MergeRecord).receipts:
            assert receipt.spent == told.spent
            assert f"ε = {expected:.3g} at δ = 1e-05" in receipt.reason
    assert not list(ws.root.glob("sites/*/residuals/*"))


def test_the_same_training_sends_other_noise_when_nothing_of_it_is_left_and_that_counts(
    start: NewRun,
) -> None:
    ws = start()
    open_round(ws, 1)
    first = train_site(ws, 1, "lakeside")
    book = (ws.site_home("lakeside") / BOOK_FILE).read_bytes()
    delete(ws.store, update_key("lakeside", 1), adapter_key("lakeside", 1))
    shutil.rmtree(ws.site_home("lakeside") / "updates")
    again = train_site(ws, 1, "lakeside")
    assert again.adapter_sha256 != first.adapter_sha256
    assert first.spent and again.spent
    assert (first.spent.releases, again.spent.releases) == (1, 2)
    assert first.adapter_sha256.encode() in book


@pytest.mark.parametrize("write", [2, 3, 4], ids=["before upload", "before announcing", "after it"])
def test_noise_is_drawn_once_though_the_site_dies_and_trains_again(start: NewRun, write: int) -> None:
    ws = start()
    open_round(ws, 1)
    with power_cut(tasks.train, write):
        train_site(ws, 1, "lakeside")
    kept = (ws.site_home("lakeside") / "updates" / "0001.safetensors").read_bytes()
    again = train_site(ws, 1, "lakeside")
    assert ws.store.get(adapter_key("lakeside", 1), again.adapter_sha256) == kept
    assert again.spent and again.spent.releases == 1
    assert count_events(ws.site_home("lakeside"), "train") <= 1


def test_an_update_that_the_ledger_lost_is_sent_again_as_it_was(start: NewRun) -> None:
    ws = start()
    open_round(ws, 1)
    first = train_site(ws, 1, "lakeside")
    delete(ws.store, update_key("lakeside", 1), adapter_key("lakeside", 1))
    assert train_site(ws, 1, "lakeside") == first
    assert ws.store.sha256_of(adapter_key("lakeside", 1)) == first.adapter_sha256


def test_a_lost_book_is_written_again_from_what_was_announced(start: NewRun) -> None:
    ws = start()
    finish_round(trained(ws, 1), 1)
    (ws.site_home("lakeside") / BOOK_FILE).unlink()
    open_round(ws, 2)
    spent = train_site(ws, 2, "lakeside").spent
    assert spent and spent.releases == 2


@pytest.mark.parametrize("lie", [None, Spent(clip=CLIP, noise=9.0, delta=DELTA, releases=1, epsilon=0.1)])
def test_a_passport_of_other_noise_than_the_round_asks_for_is_quarantined(
    start: NewRun, lie: Spent | None
) -> None:
    ws = trained(start())
    put_record(
        ws.store, update_key("lakeside", 1), passport(ws, "lakeside").model_copy(update={"spent": lie})
    )
    (refusal,) = admit_updates(ws, 1).quarantined
    assert (refusal.site, refusal.reason.startswith("noise is ")) == ("lakeside", True)


def test_noise_is_on_the_update_that_leaves(start: NewRun) -> None:
    """Clipped, the update has norm 2 at most; its noise has 0.5 · 2 on each of thousands of weights."""
    ws = trained(start("package.upload_bytes=0", "merge.rank_max=64"))
    for site in SITES:
        sent = unpack_adapter(ws.store.get(adapter_key(site, 1)))
        weights = sum(f.B.shape[0] * f.A.shape[1] for f in sent.values())
        assert adapter_norm(sent) == pytest.approx(NOISE * CLIP * math.sqrt(weights), rel=0.1)
