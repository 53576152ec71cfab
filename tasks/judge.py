"""Score the merged step on one site's validation slices: whole, halved and quartered."""

from __future__ import annotations

from torch import Tensor

from model.factors import fold
from model.judge import FRACTIONS
from model.package import unpack_adapter
from model.scoring import paired_gain
from tasks.answers import find_answer
from tasks.events import log_event
from tasks.ledger import get_record, merge_key, merged_key, plan_key, put_record, verdict_key
from tasks.rate import ScorePanel, mean_or_none, rounded
from tasks.records import MergeRecord, Plan, Score, Verdict
from tasks.weights import fetch, round_weights
from tasks.workspace import Workspace


def judge_merged(ws: Workspace, number: int, site: str) -> Verdict:
    """Compare the merged step with the model before the round on one site's validation slices.

    Args:
        ws: the run.
        number: of a merged round.
        site: the one that judges.

    Returns:
        The Dice before, and the paired gain for each fraction of the step as it would be published; the earlier
        record when the site has judged this very merge before.

    Raises:
        ObjectMissingError: the round is not merged yet.
        IntegrityError: the merged bytes are not the announced ones.
    """
    home = ws.site_home(site)
    plan = get_record(ws.store, plan_key(number), Plan)
    merge = get_record(ws.store, merge_key(number), MergeRecord)
    found = find_answer(ws.store, verdict_key(site, number), Verdict)
    if found and found.merged_sha256 == merge.merged_sha256:
        log_event(home, "judge", number, "reused")
        return found
    step = unpack_adapter(fetch(ws.store, merged_key(number), merge.merged_sha256, home))
    start = round_weights(ws.store, plan, home)
    panel, digits = ScorePanel(ws, plan, site), plan.params.privacy.digits
    before = panel.dice(start)
    verdict = Verdict(
        round=number,
        site=site,
        merged_sha256=merge.merged_sha256,
        baseline_dice=mean_or_none(before, digits),
        gains={str(f): _score(before, panel.dice(fold(start, step, f)), digits) for f in FRACTIONS},
    )
    put_record(ws.store, verdict_key(site, number), verdict)
    log_event(home, "judge", number, "done")
    return verdict


def _score(before: Tensor, after: Tensor, digits: int) -> Score:
    """Paired gain over slices; what is undefined becomes None."""
    gain, error, n = paired_gain(before, after)
    return Score(gain=rounded(gain, digits), standard_error=rounded(error, digits), slices=n)
