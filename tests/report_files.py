"""A plausible run folder, made of real records: three rounds at four sites, one of them degraded."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import torch
from pydantic import BaseModel

from model.clip import clip_updates
from model.factors import Factors
from model.merge import update_norms
from model.rating import Finding, rated_weights
from tasks.bank import Voice
from tasks.cases import SiteCard
from tasks.files import json_bytes, write_atomic
from tasks.findings import MODEL_WORDS
from tasks.history import published_place
from tasks.keys import new_token, token_key
from tasks.leave_out import Ingredients
from tasks.rating_rule import rating_rule
from tasks.receipts import Judgement, Sender, write_receipts
from tasks.records import (
    Architecture,
    Base,
    Candidate,
    Candidates,
    Close,
    Estimate,
    Evaluation,
    Member,
    MergeRecord,
    Plan,
    Rating,
    Ratings,
    Receipt,
    Refusal,
    Score,
    Step,
    Summary,
    Update,
    Verdict,
    model_sha256,
)
from tasks.seal import NOTHING_SEEN, seal
from tasks.settings import load_params

SOMEBODY = token_key(new_token())
SITES = {"st-anna": 150, "riverside": 112, "hillcrest": 96, "lakeside": 80}
ABSENT = "lakeside"
FULL_BYTES = 6_500_000
ADAPTER_BYTES = 100_000
STEP_BYTES = 250_000
LABELS = {"RV": 1, "MYO": 2, "LV": 3}
START = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
PARAMS = load_params(Path(__file__).parent.parent / "params.yaml")
ARCHITECTURE = Architecture(channels=PARAMS.network.channels)
BASE = Base(
    sha256=hashlib.sha256(b"base").hexdigest(),
    architecture=ARCHITECTURE,
    spacing_mm=2.0,
    labels=LABELS,
    source="randomised phantoms",
    n_bytes=FULL_BYTES,
    curve=(1.2, 0.8, 0.5),
)


def write_run(root: Path, rounds: int = 3, sites: dict[str, int] = SITES, evaluated: bool = True) -> Path:
    """A run in ``root``: rounds (the second without one site), cards and, if wanted, test cases."""
    for number in range(1, rounds + 1):
        write_round(root, number, sites, ABSENT if number == 2 else "")
    for site in sites:
        write_atomic(root / "cohort" / site / "card.json", json_bytes(card(site).model_dump(mode="json")))
    if evaluated:
        path = root / "evaluation" / "cases.csv"
        write_atomic(path, all_cases(sites).to_csv(index=False).encode())
    return root


def write_round(root: Path, number: int, sites: dict[str, int], absent: str = "") -> None:
    """All records of one round; ``absent`` was invited and did not answer."""
    folder = root / "federation" / "rounds" / f"{number:04d}"
    present = [site for site in sites if site != absent]
    put(folder / "plan.json", plan(number, sites))
    put(folder / "candidates.json", candidates(number, present, absent))
    put(folder / "merge.json", merge(number, {site: sites[site] for site in present}))
    put(folder / "close.json", close(number, present, absent))
    for site in present:
        home = folder / "sites" / site
        put(home / "update.json", update(number, site, sites[site]))
        put(home / "ratings.json", ratings(number, site, present))
        put(home / "verdict.json", verdict(number, site))
        put(home / "evaluation.json", evaluation(number, site))


def put(path: Path, record: BaseModel) -> None:
    """As the mirror keeps it: sealed, by one key for all."""
    data = json_bytes(record.model_dump(mode="json"))
    write_atomic(path, seal(SOMEBODY, published_place(path), NOTHING_SEEN, data))


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def wobble(*words: object) -> float:
    """A number in [-1, 1) that looks random and is always the same."""
    return int(sha(" ".join(map(str, words)))[:8], 16) / 2**31 - 1


def chain(number: int) -> tuple[Step, ...]:
    """The steps in force after a round: all of them, whole."""
    return tuple(Step(round=k, sha256=sha(f"merged {k}"), fraction=1.0) for k in range(1, number + 1))


def plan(number: int, sites: dict[str, int]) -> Plan:
    opened = START + timedelta(hours=number)
    members = tuple(
        Member(site=site, train_slices=n, dataset_md5=sha(site)[:32] + ".dir", rank=16)
        for site, n in sites.items()
    )
    return Plan(
        round=number,
        base=BASE,
        members=members,
        steps=chain(number - 1),
        opened=opened,
        params=PARAMS,
    )


def update(number: int, site: str, slices: int) -> Update:
    steps = range(20 * (number - 1), 20 * number)
    return Update(
        round=number,
        site=site,
        plan_sha256=sha(f"plan {number}"),
        base_sha256=BASE.sha256,
        model_sha256=model_sha256(BASE, chain(number - 1)),
        architecture=ARCHITECTURE,
        labels=LABELS,
        spacing_mm=2.0,
        rank=16,
        train_slices=slices,
        dataset_md5=sha(site)[:32] + ".dir",
        code_version="0.1.0+3f9c1b2a",
        seed=1,
        dtype="int8",
        adapter_sha256=sha(f"{site} {number}"),
        adapter_bytes=ADAPTER_BYTES,
        curve=tuple(0.3 + 0.7 * 0.96**k + 0.05 * wobble(site, k) for k in steps),
        cut_energy=0.03,
        seconds=31.5,
    )


def candidates(number: int, present: list[str], absent: str) -> Candidates:
    listed = tuple(Candidate(id=blind(number, s), sha256=sha(s), n_bytes=ADAPTER_BYTES) for s in present)
    ids = [c.id for c in listed]
    return Candidates(
        round=number,
        plan_sha256=sha(f"plan {number}"),
        candidates=listed,
        nonce="0f",
        assigned={own: tuple(sorted(c for c in ids if c != own)) for own in ids},
        quarantined=(Refusal(site=absent, reason="adapter has rank 48, the plan allows 16"),)
        if absent
        else (),
        missing=(),
    )


def blind(number: int, site: str) -> str:
    return sha(f"{number} {site}")[:16]


def gain(number: int, rater: str, site: str) -> float:
    return 0.04 / number + 0.01 * wobble(number, rater, site) + (-0.1 if harmful(number, site) else 0.0)


def harmful(number: int, site: str) -> bool:
    return (number, site) == (3, "hillcrest")


def found(number: int, rater: str, site: str) -> dict[str, Finding]:
    """What a rater measured; what harms, harms the left ventricle most."""
    mean = gain(number, rater, site)
    apart = {"mean": 0.0, "RV": 0.01, "MYO": 0.005, "LV": -0.2 if harmful(number, site) else -0.015}
    errors = {aspect: 0.008 + 0.004 * wobble(rater, aspect) for aspect in apart}
    return {aspect: Finding(mean + more, errors[aspect]) for aspect, more in apart.items()}


def ratings(number: int, rater: str, present: list[str]) -> Ratings:
    scores = {
        blind(number, site): Rating(
            aspects={
                aspect: Estimate(gain=f.gain, standard_error=f.error)
                for aspect, f in found(number, rater, site).items()
            },
            cases=4,
        )
        for site in present
        if site != rater
    }
    return Ratings(
        round=number,
        site=rater,
        candidates_sha256=sha("candidates"),
        baseline_dice=baseline(number, rater),
        scores=scores,
    )


def baseline(number: int, site: str) -> float:
    return 0.66 + 0.04 * wobble(site) + 0.15 * (1 - 0.6 ** (number - 1))


def receipts(number: int, sites: dict[str, int]) -> tuple[Receipt, ...]:
    """As the merge would write them, for updates of one small layer."""
    rule = rating_rule(PARAMS.rating)
    findings = {c: {s: found(number, s, c) for s in sites if s != c} for c in sites}
    rated = rated_weights(findings, rule)
    updates = {c: drawn_update(number, c) for c in sites}
    norms = update_norms(updates)
    used = Ingredients(
        updates=updates,
        weights={c: r.weight for c, r in rated.items()},
        volumes={c: float(n) for c, n in sites.items()},
        clips=clip_updates(updates, PARAMS.merge.clip),
        form="renormalised",
    )
    senders = {c: Sender(Voice(update(number, c, n), 0), n, ADAPTER_BYTES, 1.0) for c, n in sites.items()}
    judged = {c: Judgement(findings[c], rated[c], norms[c]) for c in sites}
    return write_receipts(senders, judged, used, rule, "rated")


def drawn_update(number: int, site: str) -> dict[str, Factors]:
    B = torch.tensor([[wobble(number, site, i)] for i in range(5)])
    return {"down.0.weight": Factors(B, torch.ones(1, 4))}


def merge(number: int, sites: dict[str, int]) -> MergeRecord:
    return MergeRecord(
        round=number,
        candidates_sha256=sha("candidates"),
        ratings_sha256={site: sha(site) for site in sites},
        mode="rated",
        receipts=receipts(number, sites),
        shadow_distance=None,
        step_norm=1.4,
        merged_sha256=sha(f"merged {number}"),
        merged_bytes=STEP_BYTES,
        cut_energy=0.02,
        rest_sha256=sha(f"rest {number}"),
    )


def verdict(number: int, site: str) -> Verdict:
    step = baseline(number + 1, site) - baseline(number, site)
    gains = {str(f): Score(gain=step * f, standard_error=0.01, slices=24) for f in (1.0, 0.5, 0.25)}
    return Verdict(
        round=number,
        site=site,
        merged_sha256=sha(f"merged {number}"),
        baseline_dice=baseline(number, site),
        gains=gains,
    )


def close(number: int, present: list[str], absent: str = "") -> Close:
    return Close(
        round=number,
        plan_sha256=sha(f"plan {number}"),
        outcome="accepted",
        fraction=1.0,
        degraded=bool(absent),
        participants=tuple(present),
        missing=(absent,) if absent else (),
        judges=tuple(present),
        gains={"1.0": 0.03},
        merge_sha256=sha("merge"),
        verdicts_sha256={},
        steps=chain(number),
        reason="accepted whole: with 100% of the step the median of 4 sites gains +0.0300 Dice",
        closed=START + timedelta(hours=number, minutes=20),
    )


def evaluation(number: int, site: str) -> Evaluation:
    def side(lift: float) -> dict[str, Summary]:
        top = {"RV": -0.05, "MYO": -0.02, "LV": 0.06}
        means = {name: baseline(number + 1, site) + high + lift for name, high in top.items()}
        return {name: Summary(mean=mean, sd=0.08, n=4, undefined=0) for name, mean in means.items()}

    model = model_sha256(BASE, chain(number))
    return Evaluation(
        round=number,
        site=site,
        model_sha256=model,
        steps=18,
        kept=1.0,
        before=side(0.0),
        after=side(0.015),
    )


def card(site: str) -> SiteCard:
    return SiteCard(
        site=site,
        patients={"train": 6, "validation": 2, "test": 2},
        slices={"train": 100, "validation": 36, "test": 34},
        groups={"DCM": 3, "HCM": 3, "NOR": 4},
        spacing_min_mm=(8.0, 1.3, 1.3),
        spacing_max_mm=(10.0, 1.6, 1.6),
        crop_px=96,
        crop_spacing_mm=2.0,
        dataset_md5=sha(site)[:32] + ".dir",
    )


def all_cases(sites: dict[str, int] = SITES, patients: int = 3) -> pd.DataFrame:
    """Every model on every site's test cases; a model is at its best at home."""
    level = {"zero-shot": 0.67, "global": 0.80, "personal": 0.81, "local": 0.74, "fedavg": 0.80}
    owners = {model: sites if model in ("personal", "local") else [""] for model in MODEL_WORDS}
    rows = []
    for model, dice in level.items():
        for owner in owners[model]:
            rows += [
                case_row(model, owner, site, f"p{k + 1:03d}", phase, structure, dice)
                for site in sites
                for k in range(patients)
                for phase in ("ED", "ES")
                for structure in ("RV", "MYO", "LV")
            ]
    return pd.DataFrame(rows)


def case_row(
    model: str, owner: str, site: str, patient: str, phase: str, structure: str, dice: float
) -> dict[str, object]:
    """One line of ``cases.csv`` with a little spread."""
    high = {"RV": -0.04, "MYO": -0.03, "LV": 0.07}[structure]
    away = 0.06 * (owner not in ("", site)) * (3 if model == "local" else 1)
    value = (
        dice + high - away + 0.04 * wobble(site, patient, phase) + 0.015 * wobble(model, patient, structure)
    )
    return {
        "model": model,
        "owner": owner,
        "site": site,
        "patient": patient,
        "group": "NOR",
        "phase": phase,
        "structure": structure,
        "dice": value,
        "voe": 1 - value / (2 - value),
        "hd_mm": 20 * (1 - value) + 6,
        "hd95_mm": 20 * (1 - value) + 2,
        "assd_mm": 6 * (1 - value),
        "pred_ml": 120.0,
        "true_ml": 118.0,
    }
