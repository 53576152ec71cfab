"""Rate the round's candidates on one site's own slices; only scores leave it, and the hub hears those it asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

from torch import Tensor

from model.factors import fold
from model.network import ResidualUNet
from model.package import unpack_adapter
from model.rating import Finding, Findings, measure_aspects
from model.scoring import Panel, choose_slices
from tasks.answers import find_answer
from tasks.bank import own_candidates
from tasks.events import log_event
from tasks.ledger import (
    candidate_key,
    candidates_key,
    get_record,
    plan_key,
    put_record,
    ratings_key,
)
from tasks.records import Aspect, Candidate, Candidates, Estimate, Plan, Rating, Ratings
from tasks.slices import load_slices
from tasks.weights import fetch, load_net, round_weights
from tasks.workspace import Workspace


def rate_candidates(ws: Workspace, number: int, site: str) -> Ratings:
    """Score the candidates that are assigned to the site on its own validation slices.

    Args:
        ws: the run.
        number: of a round whose updates were admitted.
        site: the one that rates.

    Returns:
        The Dice before, and the gain in every aspect by blind name; without scores for a site that has no
        admitted update. The earlier record when the site has rated the same candidates before.

    Raises:
        ObjectMissingError: admission has not ended.
        IntegrityError: a candidate's bytes are not the announced ones.
    """
    home = ws.site_home(site)
    plan = get_record(ws.store, plan_key(number), Plan)
    candidates = get_record(ws.store, candidates_key(number), Candidates)
    asked = str(ws.store.sha256_of(candidates_key(number)))
    found = find_answer(ws.store, ratings_key(site, number), Ratings)
    if found and found.candidates_sha256 == asked:
        log_event(home, "rate", number, "reused")
        return found
    baseline, scores = _rate(ws, plan, site, assigned_to(ws, candidates, site))
    ratings = Ratings(round=number, site=site, candidates_sha256=asked, baseline_dice=baseline, scores=scores)
    put_record(ws.store, ratings_key(site, number), ratings)
    log_event(home, "rate", number, "done", candidates=len(scores))
    return ratings


def assigned_to(ws: Workspace, candidates: Candidates, site: str) -> list[Candidate]:
    """The candidates that a site rates.

    Args:
        ws: the run.
        candidates: of the round, with the table of who rates what.
        site: finds its row by the bytes it announced, for this round or, if it was late, for an earlier one; of
            several sites with the same bytes each rates all their rows, since none can tell which is its own.

    Returns:
        In the order of its row; none for a site without an admitted update.
    """
    plan = get_record(ws.store, plan_key(candidates.round), Plan)
    own = own_candidates(ws.store, candidates, site, plan.params.merge.late_rounds)
    mine = dict.fromkeys(blind for name in sorted(own) for blind in candidates.assigned.get(name, ()))
    admitted = {c.id: c for c in candidates.candidates}
    return [admitted[blind] for blind in mine if blind in admitted]


def heard_findings(
    candidates: Candidates, blind: Mapping[str, str], ratings: Mapping[str, Ratings]
) -> dict[str, dict[str, Findings]]:
    """What the raters found, under the sites' names; what a site says without having been asked is not heard.

    Args:
        candidates: of the round, with the table of who rates what.
        blind: site → blind id, of the updates that are merged.
        ratings: site → what it said of these candidates.

    Returns:
        Candidate site → rater site → aspect → finding.
    """
    table: dict[str, dict[str, Findings]] = {site: {} for site in blind}
    for rater in sorted(ratings.keys() & blind.keys()):
        asked = set(candidates.assigned.get(blind[rater], ()))
        for site, name in blind.items():
            said = ratings[rater].scores.get(name) if name in asked else None
            if site != rater and said is not None and said.aspects:
                table[site][rater] = {
                    aspect: Finding(e.gain, e.standard_error) for aspect, e in said.aspects.items()
                }
    return table


class ScorePanel:
    """A site's fixed, stratified validation slices, ready to score one set of weights after another.

    Args:
        ws: the run.
        plan: names the network and the number of slices.
        site: whose slices.
    """

    def __init__(self, ws: Workspace, plan: Plan, site: str) -> None:
        slices = load_slices(ws.data_home(site), "validation")
        chosen = choose_slices(slices.phase, slices.patient, slices.z, plan.params.rating.slices)
        case = slices.patient[chosen] * 2 + slices.phase[chosen]
        self.panel = Panel(slices.images[chosen], slices.masks[chosen], case)
        self.plan = plan
        self._net: ResidualUNet | None = None

    def scores(self, weights: dict[str, Tensor]) -> Tensor:
        """Dice per slice and structure, ``(n, 3)``; NaN where a structure stands in neither mask."""
        if self._net is None:
            self._net = load_net(self.plan.base.architecture, weights)
        else:
            self._net.load_state_dict(weights)
        return self.panel.scores(self._net)

    def dice(self, weights: dict[str, Tensor]) -> Tensor:
        """Mean over the defined structures of every slice, ``(n,)``; NaN where there is none."""
        return self.scores(weights).nanmean(1)


def mean_or_none(scores: Tensor, digits: int) -> float | None:
    """Mean over the defined slices, ``(n,)`` Dice."""
    return rounded(float(scores.nanmean()), digits)


def rounded(value: float, digits: int) -> float | None:
    """As it may leave the site; None for NaN, which a record cannot hold."""
    return None if math.isnan(value) else round(value, digits)


def _rate(
    ws: Workspace, plan: Plan, site: str, assigned: list[Candidate]
) -> tuple[float | None, dict[str, Rating]]:
    """Dice before, and a rating by blind id."""
    if not assigned:
        return None, {}
    home, digits = ws.site_home(site), plan.params.privacy.digits
    start = round_weights(ws.store, plan, home)
    panel = ScorePanel(ws, plan, site)
    before = panel.scores(start)
    ratings = {}
    for c in assigned:
        data = fetch(ws.store, candidate_key(c.id, plan.round), c.sha256, home, c.n_bytes)
        after = panel.scores(fold(start, unpack_adapter(data)))
        ratings[c.id] = _rating(before, after, panel.panel.case, digits)
    return mean_or_none(before.nanmean(1), digits), ratings


def _rating(before: Tensor, after: Tensor, case: Tensor, digits: int) -> Rating:
    """Gains over cases as a record; an aspect that no slice defines is left out."""
    aspects = {
        cast(Aspect, name): Estimate(gain=round(f.gain, digits), standard_error=round(f.error, digits))
        for name, f in measure_aspects(before, after, case).items()
    }
    defined = ~(before.isnan() & after.isnan()).all(1)
    return Rating(aspects=aspects, cases=len(set(case[defined].tolist())))
