"""The records that hub and sites exchange through the ledger: numbers, names of sites, hashes; nothing else.

Every record is frozen, refuses unknown fields and carries the hash of the plan that it answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from model.errors import RoundError
from tasks.files import json_bytes, sha256_bytes
from tasks.settings import Params

Sha256 = str
Dice = Annotated[float, Field(ge=0, le=1)]
Gain = Annotated[float, Field(ge=-1, le=1)]
StandardError = Annotated[float, Field(ge=0, le=1)]
MOST_EF = 100.0
"""Size of an ejection fraction that says something, percent."""
RANGES = {
    "dice": (0.0, 1.0),
    "hd95_mm": (0.0, 1000.0),
    "ef_bias_percent": (-2 * MOST_EF, 2 * MOST_EF),
    "ef_error_percent": (0.0, 2 * MOST_EF),
}
"""Between what a patient's value, and so every mean, lies."""
ROUNDING = 0.02
"""What rounding may have done to two standard deviations and that of their difference."""
Aspect = Literal["mean", "RV", "MYO", "LV"]
Note = Literal["spacing", "intensity", "vendor", "labels", "case"]
Outcome = Literal["accepted", "stepped_back", "rejected", "failed"]


class Record(BaseModel):
    """What all records share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1


class PublicIdentity(Record):
    """What everybody may know of a machine's keys."""

    sign: str = Field(description="ed25519: and 32 bytes in base64, that its records are sealed with")
    age: str = Field(description="age1…, that packages for it are encrypted to")


class Architecture(Record):
    """The network that weights belong to."""

    kind: Literal["residual-unet"] = "residual-unet"
    channels: tuple[int, ...]


class Base(Record):
    """The shared frozen network."""

    sha256: Sha256
    architecture: Architecture
    spacing_mm: float
    labels: dict[str, int]
    source: str = Field(description="what it was trained on, in words")
    n_bytes: int
    curve: tuple[float, ...] = Field(description="training loss per step")


class Member(Record):
    """One site of the federation."""

    site: str
    train_slices: int
    dataset_md5: str
    rank: int


class FederationRecord(Record):
    """Who takes part, on which base, by which keys and under which settings."""

    base: Base
    members: tuple[Member, ...]
    hub: PublicIdentity | None = Field(None, description="None before it was published")
    identities: dict[str, PublicIdentity] = Field({}, description="by member")
    policies: Params | None = Field(None, description="the settings of the rounds that open from now on")

    def member(self, site: str) -> Member:
        """Find one site's entry.

        Args:
            site: name of the site.

        Returns:
            Its training slices, the md5 of its data and its rank.

        Raises:
            RoundError: the site is not a member.
        """
        return _member(self.members, site, "federation")


class Step(Record):
    """A published step that is in force."""

    round: int = Field(description="that merged it")
    sha256: Sha256 = Field(description="of the package as it was merged, judged and published")
    fraction: float = Field(gt=0, le=1, description="part of it that the judges accepted")


def model_sha256(base: Base, steps: Sequence[Step]) -> Sha256:
    """Name of the model ``base + Σ fraction · step``, the steps folded in the order of the chain.

    Args:
        base: the frozen network.
        steps: the chain; empty for the base as shipped.

    Returns:
        Hash of the base's hash and of round, hash and fraction of every step.
    """
    chain = [[step.round, step.sha256, step.fraction] for step in steps]
    return sha256_bytes(json_bytes({"base": base.sha256, "steps": chain}))


class Plan(Record):
    """What a round is: written once, when it opens."""

    round: int
    base: Base
    members: tuple[Member, ...]
    steps: tuple[Step, ...] = Field(description="on the base; together the model that the round starts from")
    opened: datetime
    params: Params

    @property
    def model_sha256(self) -> Sha256:
        """Name of the model that the round starts from."""
        return model_sha256(self.base, self.steps)

    def member(self, site: str) -> Member:
        """Find the invitation of one site.

        Args:
            site: name of the site.

        Returns:
            Its entry as it stood when the round opened.

        Raises:
            RoundError: the site is not invited.
        """
        return _member(self.members, site, f"round {self.round}")


class Current(Record):
    """The round that was opened last; for sites that may not list what there is."""

    round: int


def _member(members: tuple[Member, ...], site: str, where: str) -> Member:
    for member in members:
        if member.site == site:
            return member
    mend = "it takes part from the next round on, if it has joined since this one opened; else ask the hub to invite it"
    raise RoundError(f"'{site}' does not take part", where, mend)


class Spent(Record):
    """What a site's updates so far say of its data: (ε, δ) of its whole contribution, not of one patient."""

    clip: float = Field(gt=0, description="L2 norm of this update before the noise, at most")
    noise: float = Field(gt=0, description="its noise's standard deviation, in units of clip")
    delta: float = Field(gt=0, lt=1)
    releases: int = Field(ge=1, description="noisy updates of the site so far, this one included")
    epsilon: float = Field(ge=0, description="over all of them")


class Update(Record):
    """The passport of a site's adapter."""

    round: int
    site: str
    plan_sha256: Sha256
    base_sha256: Sha256
    model_sha256: Sha256 = Field(description="the model it was trained from")
    architecture: Architecture
    labels: dict[str, int]
    spacing_mm: float
    rank: int
    train_slices: int
    dataset_md5: str
    code_version: str
    seed: int
    dtype: str
    adapter_sha256: Sha256
    adapter_bytes: int
    curve: tuple[float, ...] = Field(description="training loss per step; withheld where updates get noise")
    spent: Spent | None = Field(None, description="differential privacy; None where updates get no noise")
    notes: tuple[Note, ...] = Field(
        (), description="what changed in the site's data since it last trained; a case unlike the others"
    )
    cut_energy: float = Field(
        description="fraction of the squared norm, residual included, that stays behind"
    )
    seconds: float


class Candidate(Record):
    """An admitted update under its blind name."""

    id: str
    sha256: Sha256 = Field(description="of the package, as its passport announces it")
    n_bytes: int = Field(description="of the object, padded: the same for all of a round")


class Refusal(Record):
    """An update that was not admitted."""

    site: str
    reason: str


class Candidates(Record):
    """What the raters are asked to rate, in an order that says nothing."""

    round: int
    plan_sha256: Sha256
    candidates: tuple[Candidate, ...]
    nonce: str = Field(description="drawn by the hub at admission, so that no sender can choose its raters")
    assigned: dict[str, tuple[str, ...]] = Field(
        description="blind id of a rater's own update → those it rates, in an order of its own: never its own, "
        "nor the same bytes"
    )
    quarantined: tuple[Refusal, ...]
    missing: tuple[str, ...] = Field(description="sites that no update speaks for, be it fresh or late")


class Senders(Record):
    """Who sent what was admitted, as it stood at admission; whatever a site announces later changes nothing."""

    round: int
    plan_sha256: Sha256
    secret: str = Field("", description="drawn by the hub, from which the blind ids are made")
    updates: dict[str, Update] = Field(description="by blind id")


class Estimate(Record):
    """Dice gained in one aspect: mean over the rater's cases, and the standard error of that mean."""

    gain: Gain
    standard_error: StandardError


class Rating(Record):
    """One candidate on one rater's validation slices."""

    aspects: dict[Aspect, Estimate] = Field(description="one that no slice defines is left out")
    cases: int = Field(ge=0, description="volumes behind the estimates")


class Ratings(Record):
    """What one site says of the others."""

    round: int
    site: str
    candidates_sha256: Sha256
    baseline_dice: Dice | None
    scores: dict[str, Rating] = Field(description="by blind id")


class Seen(Record):
    """What one rater saw of an update in one aspect, Dice gained."""

    gain: Gain
    low: Gain = Field(description="of the 95 % interval: gain − 1.96 standard errors over cases")
    high: Gain


class Without(Record):
    """The step as it would have been without one update, the others' weights and clipping held."""

    change: float | None = Field(ge=0, description="‖with − without‖ / ‖with‖; None for a step of zero")
    cosine: float | None = Field(ge=-1, le=1, description="between both; None where one of them is zero")
    shares: dict[str, float] = Field(description="of the other sites")


class Receipt(Record):
    """Why a site's update counted as much as it did."""

    site: str
    train_slices: int
    age: int = Field(0, ge=0, description="rounds that the update came late, 0 for a fresh one")
    rank: int
    seen: dict[str, dict[Aspect, Seen]] = Field(description="by rater")
    gain: float | None = Field(description="of the mean, median over raters; None when nobody rated")
    conceded: dict[Aspect, float] = Field(description="Dice gain that nearly all raters concede")
    aspect: Aspect = Field(description="that decided")
    reference: float = Field(
        description="conceded gain of this round's usual update in that aspect, at most 0"
    )
    penalty: float = Field(description="Dice lost beyond reference and margin in that aspect")
    rated_weight: float
    used_weight: float
    share: float
    norm: float
    clipped_to: float = Field(description="factor applied by norm clipping, 1 when none")
    adapter_bytes: int
    spent: Spent | None = Field(None, description="differential privacy of the site's updates so far")
    without: Without | None = Field(description="None where no other update has weight")
    reason: str


class MergeRecord(Record):
    """How the step came about."""

    round: int
    candidates_sha256: Sha256
    ratings_sha256: dict[str, Sha256]
    mode: str
    receipts: tuple[Receipt, ...]
    shadow_distance: float | None = Field(description="shadow mode: ‖rated − average‖ / ‖average‖")
    step_norm: float
    merged_sha256: Sha256
    merged_bytes: int
    cut_energy: float = Field(description="fraction of the squared norm, carry included, that stays behind")
    rest_sha256: Sha256 | None = Field(
        description="what stays behind of the whole step; None without feedback"
    )


class Score(Record):
    """A fraction of the merged step on one judge's validation slices."""

    gain: Gain | None = Field(description="Dice; None when no slice defines it")
    standard_error: StandardError | None
    slices: int


class Verdict(Record):
    """What one site says of the merged step."""

    round: int
    site: str
    merged_sha256: Sha256
    baseline_dice: Dice | None
    gains: dict[Annotated[str, Field(pattern=r"^[01]\.\d+$")], Score] = Field(
        description="by fraction of the step"
    )


class Close(Record):
    """The terminal record of a round."""

    round: int
    plan_sha256: Sha256
    outcome: Outcome
    fraction: float
    degraded: bool
    participants: tuple[str, ...] = Field(description="whose updates were taken, late ones included")
    missing: tuple[str, ...] = Field(description="who did not take part, in time, from training to judging")
    judges: tuple[str, ...]
    gains: dict[str, float] = Field(description="median Dice gain of the judges, by fraction")
    merge_sha256: Sha256 | None
    verdicts_sha256: dict[str, Sha256]
    steps: tuple[Step, ...] = Field(description="on the base; together the model now in force")
    reason: str
    closed: datetime


class Summary(Record):
    """One structure's Dice over a site's cases; all None where it is withheld because few patients have it."""

    mean: Dice | None
    sd: Dice | None
    n: int | None
    undefined: int | None
    suppressed: bool = False


class PairedCell(Record):
    """Two models on the same patients of one stratum: sums over enough of them, see :mod:`model.gate`."""

    kind: Literal["structure", "group", "vendor"]
    stratum: str
    structure: Literal["RV", "MYO", "LV"]
    metric: Literal["dice", "hd95_mm", "ef_bias_percent", "ef_error_percent"]
    patients: int = Field(ge=1, description="with a value under both models")
    left_out: int = Field(ge=0, description="without one")
    released: float = Field(description="mean over patients")
    candidate: float
    released_sd: float = Field(ge=0, description="over patients; 0 of one")
    candidate_sd: float = Field(ge=0)
    difference_sd: float = Field(ge=0, description="of candidate − released")

    @model_validator(mode="after")
    def _possible(self) -> PairedCell:
        low, high = RANGES[self.metric]
        sds = self.released_sd, self.candidate_sd
        if not all(low <= mean <= high for mean in (self.released, self.candidate)):
            raise ValueError(f"a mean of {self.metric} is outside {low:g} to {high:g}")
        if not all(sd <= high - low for sd in sds):
            raise ValueError(f"{self.metric} cannot spread so far")
        if not abs(sds[0] - sds[1]) - ROUNDING <= self.difference_sd <= sum(sds) + ROUNDING:
            raise ValueError(f"the spreads of {self.metric} contradict each other")
        return self

    @property
    def place(self) -> tuple[str, str, str, str]:
        """What it is about."""
        return self.kind, self.stratum, self.structure, self.metric


class AgainstReleased(Record):
    """The round's model beside the released one, on a site's own validation patients."""

    release: str = Field(description="in the clinical channel when the site looked, or the base as shipped")
    model_sha256: Sha256 = Field(description="its model")
    cells: tuple[PairedCell, ...]

    @model_validator(mode="after")
    def _no_place_twice(self) -> AgainstReleased:
        if len({cell.place for cell in self.cells}) != len(self.cells):
            raise ValueError("a cell stands there twice")
        return self


class Evaluation(Record):
    """What adapting did at one site, on its own validation cases, in the original image space."""

    round: int
    site: str
    model_sha256: Sha256 = Field(description="the model it was adapted from")
    steps: int
    kept: float = Field(ge=0, le=1, description="fraction of the personal update that validation liked best")
    before: dict[str, Summary] = Field(description="closed global model, by structure")
    after: dict[str, Summary] = Field(description="personal model, by structure")
    against: AgainstReleased | None = Field(
        None,
        description="for the release gate; None of too few patients, and of the released model itself",
    )
