"""What a release leaves behind: the findings of its gate, its card, and the fact itself. Numbers and names only."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from model.gate import Verdict
from tasks.records import Base, Member, Record, Sha256, Step

AS_SHIPPED = "base as shipped"
"""What the first release is compared with."""


class Finding(Record):
    """One metric in one stratum, new against released."""

    kind: str = Field(description="structure, group or vendor")
    stratum: str
    structure: str = Field(description="RV, MYO, LV; for the bias of EF the ventricle")
    metric: str = Field(
        description="dice, hd95_mm; ef_bias_percent: the size of EF's mean error; ef_error_percent: its mean size"
    )
    patients: int = Field(description="with a value under both models")
    left_out: int | None = Field(
        description="without one under at least one of them; None where a hospital does not tell"
    )
    released: float | None
    candidate: float | None
    difference: float | None = Field(description="candidate − released")
    low: float | None = Field(description="of the difference's 95 % interval; None below the fewest patients")
    high: float | None
    verdict: Verdict

    @property
    def place(self) -> str:
        """Where it was found, such as ``HCM, RV``."""
        return self.structure if self.kind == "structure" else f"{self.kind} {self.stratum}, {self.structure}"


class Model(Record):
    """A model that can be folded again, bit by bit."""

    sha256: Sha256 = Field(description="of base and chain, see tasks.records.model_sha256")
    base: Base
    steps: tuple[Step, ...]


class SiteData(Record):
    """What a site's card said of its data."""

    site: str
    patients: dict[str, int]
    groups: dict[str, int]


class Measured(Record):
    """One number of the test evaluation, told and not chosen by."""

    name: str
    value: float | None
    n: int


class Silent(Record):
    """A hospital of whose patients the gate knows nothing."""

    site: str
    reason: str


class Card(Record):
    """The model card."""

    name: str = "cardiofed"
    release: str = Field(description="version, such as v1.2.0")
    round: int
    model: Model
    approved_by: str
    made: datetime
    intended_use: str
    limits: tuple[str, ...]
    members: tuple[Member, ...] = Field(description="sites of the round, with the hashes of their data")
    data: tuple[SiteData, ...] = Field(
        description="of the sites whose validation patients the gate looked at"
    )
    silent: tuple[Silent, ...] = Field((), description="hospitals of whose patients the gate knows nothing")
    degraded: bool = Field(description="the round closed without everybody")
    compared_with: str = Field(description="version, or the base as shipped")
    compared_sha256: Sha256
    fewest: int = Field(description="patients below which a stratum decides nothing")
    findings: tuple[Finding, ...] = Field(description="of the gate, on validation patients")
    test: tuple[Measured, ...] = Field(description="empty where the test was not opened for this model")
    code_version: str


class Released(Record):
    """That the channel changed hands: for the audit log and for whoever asks what is in use."""

    number: int = Field(ge=1, description="of the channel's history, as in its tag")
    action: Literal["release", "rollback"]
    channel: str
    release: str
    round: int
    model_sha256: Sha256
    steps: tuple[Step, ...]
    before: str | None = Field(description="release in the channel until now")
    compared_with: str
    undecided: int = Field(description="comparisons with too few patients to decide")
    approved_by: str
    card_sha256: Sha256
    at: datetime
