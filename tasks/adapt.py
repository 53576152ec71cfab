"""Adapt the closed global model to one site's scanner, and report what that did in numbers."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
from torch import Tensor

from model.batches import steps_per_epoch
from model.factors import Factors, fold
from model.lora import read_adapter
from model.package import pack_adapter, unpack_adapter
from model.scoring import segment
from model.seeds import derive_seed
from tasks.adapter_spec import lora_spec
from tasks.answers import find_answer
from tasks.checkpoint import run_training
from tasks.evaluate import evaluate_cases, evaluate_site, load_cases
from tasks.events import log_event
from tasks.ledger import (
    close_key,
    evaluation_key,
    find_record,
    get_record,
    plan_key,
    put_record,
    released_key,
)
from tasks.personal import keep_helpful
from tasks.personal_passport import has_personal, write_personal
from tasks.rate import ScorePanel
from tasks.records import AgainstReleased, Architecture, Close, Evaluation, Plan, Summary, model_sha256
from tasks.release.paired import CANDIDATE, RELEASED, paired_cells
from tasks.release.records import AS_SHIPPED, Released
from tasks.settings import Privacy
from tasks.slices import load_slices
from tasks.train import train_lora
from tasks.weights import load_net, model_weights
from tasks.workspace import Workspace

FEWEST_FOR_SPREAD = 6
"""Cases below which a mean goes without its standard deviation: two values follow exactly from both."""


def adapt_site(ws: Workspace, number: int, site: str) -> Evaluation:
    """Train on the site's own cases from the closed model, and keep as much of it as validation likes.

    The personal adapter stays in the site's folder.

    Args:
        ws: the run.
        number: of a closed round.
        site: whose cases, and in whose folder the adapter stays.

    Returns:
        Dice per structure on the site's validation cases before and after; the earlier record when the site
        has adapted this very model before.

    Raises:
        ObjectMissingError: the round is not closed yet.
    """
    home = ws.site_home(site)
    plan = get_record(ws.store, plan_key(number), Plan)
    close = get_record(ws.store, close_key(number), Close)
    found = find_answer(ws.store, evaluation_key(site, number), Evaluation)
    model = model_sha256(plan.base, close.steps)
    if found and found.model_sha256 == model and has_personal(home, number):
        log_event(home, "adapt", number, "reused")
        return found
    start = model_weights(ws.store, plan.base, close.steps, home)
    trained, steps = _adapt(ws, plan, site, start, f"adapt/{number}/{model}")
    panel = ScorePanel(ws, plan, site)
    kept, fraction = keep_helpful(start, trained, lambda weights: float(panel.dice(weights).nanmean()))
    data = pack_adapter(kept, "fp32")  # it does not travel
    write_personal(home, data, number, site, model, fraction)
    architecture = plan.base.architecture
    before = evaluate_site(predictor(architecture, start), ws.data_home(site), "validation", surfaces=False)
    adapted = fold(start, unpack_adapter(data))
    after = evaluate_site(predictor(architecture, adapted), ws.data_home(site), "validation", surfaces=False)
    evaluation = Evaluation(
        round=number,
        site=site,
        model_sha256=model,
        steps=steps,
        kept=fraction,
        before=structure_summaries(before, plan.params.privacy),
        after=structure_summaries(after, plan.params.privacy),
        against=_against_released(ws, plan, close, site, start),
    )
    put_record(ws.store, evaluation_key(site, number), evaluation)
    (home / "adapting.safetensors").unlink(missing_ok=True)
    log_event(home, "adapt", number, "done", steps=steps)
    return evaluation


def predictor(architecture: Architecture, weights: dict[str, Tensor]) -> Callable[[Tensor], Tensor]:
    """A function from slices ``(N, 1, Y, X)`` to class probabilities ``(N, C, Y, X)``."""
    net = load_net(architecture, weights)
    return lambda images: segment(net, images)


def _against_released(
    ws: Workspace, plan: Plan, close: Close, site: str, start: dict[str, Tensor]
) -> AgainstReleased | None:
    """The closed model beside the one in the clinical channel; None where the release gate could learn nothing."""
    cases, privacy = load_cases(ws.data_home(site), "validation"), plan.params.privacy
    if len({case.row.patient for case in cases}) < privacy.fewest:
        return None
    fact = find_record(ws.store, released_key(), Released)
    release, steps = (fact.release, fact.steps) if fact else (AS_SHIPPED, ())
    released = model_sha256(plan.base, steps)
    if released == model_sha256(plan.base, close.steps):
        return None
    weights = {
        CANDIDATE: start,
        RELEASED: model_weights(ws.store, plan.base, steps, ws.site_home(site)),
    }
    tables = [
        evaluate_cases(predictor(plan.base.architecture, weights[name]), cases).assign(
            model=name, owner="", site=site
        )
        for name in weights
    ]
    cells = paired_cells(pd.concat(tables, ignore_index=True), privacy.fewest, privacy.digits)
    return AgainstReleased(release=release, model_sha256=released, cells=cells)


def structure_summaries(cases: pd.DataFrame, privacy: Privacy) -> dict[str, Summary]:
    """Dice per structure over a site's cases; undefined ones are counted, not dropped in silence.

    Args:
        cases: a row per case and structure with ``patient`` and ``dice``.
        privacy: decimals, and the patients that must stand behind a summary.

    Returns:
        Structure → summary, suppressed where too few patients have the structure. The spread of a few cases would
        give each of them away, so it is left out.
    """
    if cases.empty:  # a site without validation cases
        return {}
    return {
        str(structure): _summary(rows.dropna(subset="dice")["patient"].nunique(), rows["dice"], privacy)
        for structure, rows in cases.groupby("structure")
    }


def _summary(patients: int, dice: pd.Series[float], privacy: Privacy) -> Summary:
    if patients < privacy.fewest:
        return Summary(mean=None, sd=None, n=None, undefined=None, suppressed=True)
    return Summary(
        mean=_or_none(dice.mean(), privacy.digits),
        sd=_or_none(dice.std(), privacy.digits) if dice.count() >= FEWEST_FOR_SPREAD else None,
        n=int(dice.count()),
        undefined=int(dice.isna().sum()),
    )


def _adapt(
    ws: Workspace, plan: Plan, site: str, start: dict[str, Tensor], identity: str
) -> tuple[dict[str, Factors], int]:
    home = ws.site_home(site)
    slices = load_slices(ws.data_home(site), "train")
    params = plan.params
    spec = lora_spec(params, plan.member(site).rank)
    steps = params.adapt.epochs * steps_per_epoch(len(slices.images), params.training.batch)
    net = load_net(plan.base.architecture, start)
    training = train_lora(
        net, slices, spec, params, steps, derive_seed(params.seed, site, plan.round, "adapt")
    )
    run_training(training, home / "adapting.safetensors", identity)
    return read_adapter(net, start, spec), steps


def _or_none(value: float, digits: int) -> float | None:
    return None if pd.isna(value) else round(float(value), digits)
