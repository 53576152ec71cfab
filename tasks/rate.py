"""Rate the round's candidates on one site's own validation slices; only scores leave the site."""

from __future__ import annotations

import math

from torch import Tensor

from model.factors import fold
from model.network import ResidualUNet
from model.package import unpack_adapter
from model.scoring import choose_slices, paired_gain, segment, slice_dice
from tasks.answers import find_answer
from tasks.events import log_event
from tasks.files import sha256_file
from tasks.ledger import (
    candidate_key,
    candidates_key,
    get_record,
    plan_key,
    put_record,
    ratings_key,
)
from tasks.records import Candidates, Plan, Ratings, Score
from tasks.slices import load_slices
from tasks.weights import fetch, load_net, round_weights
from tasks.workspace import Workspace


def rate_candidates(ws: Workspace, number: int, site: str) -> Ratings:
    """Score every candidate but the site's own on the site's validation slices.

    Args:
        ws: the run.
        number: of a round whose updates were admitted.
        site: the one that rates.

    Returns:
        The Dice before, and the paired gain by blind name; the earlier record when the site has rated the
        same candidates before.

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
    start = round_weights(ws.store, plan, home)
    panel = ScorePanel(ws, plan, site)
    before = panel.dice(start)
    own = own_hash(ws, number, site)
    scores = {}
    for candidate in candidates.candidates:
        if candidate.sha256 == own:
            continue
        data = fetch(
            ws.store,
            candidate_key(candidate.id, number),
            candidate.sha256,
            home,
            plan.params.package.max_bytes,
        )
        scores[candidate.id] = as_score(before, panel.dice(fold(start, unpack_adapter(data))))
    ratings = Ratings(
        round=number, site=site, candidates_sha256=asked, baseline_dice=mean_or_none(before), scores=scores
    )
    put_record(ws.store, ratings_key(site, number), ratings)
    log_event(home, "rate", number, "done", candidates=len(scores))
    return ratings


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
        self.images, self.masks = slices.images[chosen], slices.masks[chosen]
        self.plan = plan
        self._net: ResidualUNet | None = None

    def dice(self, weights: dict[str, Tensor]) -> Tensor:
        """Mean foreground Dice per slice, ``(n,)``; NaN where a slice and its answer are empty."""
        if self._net is None:
            self._net = load_net(self.plan.base.architecture, weights)
        else:
            self._net.load_state_dict(weights)
        return slice_dice(segment(self._net, self.images).argmax(1), self.masks)


def as_score(before: Tensor, after: Tensor) -> Score:
    """Paired gain as a record; what is undefined becomes None."""
    gain, error, n = paired_gain(before, after)
    return Score(gain=_rounded(gain), standard_error=_rounded(error), slices=n)


def mean_or_none(scores: Tensor) -> float | None:
    """Mean over the defined slices."""
    return _rounded(float(scores.nanmean()))


def own_hash(ws: Workspace, number: int, site: str) -> str | None:
    """Hash of the update this site kept when it trained; None when it did not take part."""
    kept = ws.site_home(site) / "updates" / f"{number:04d}.safetensors"
    return sha256_file(kept) if kept.exists() else None


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)
