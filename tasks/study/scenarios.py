"""The circumstances a method is studied under: who holds what, who attacks, who rates badly, who is away."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

N_SITES = 5
"""In every scenario."""

Partition = Literal["by-group", "imbalanced", "mixed-clinic"]


@dataclass(frozen=True)
class Scenario:
    """What departs from a clean federation; sites are meant by their place in the alphabet, from 0.

    Attributes:
        partition: who holds which patients.
        scanners: every site sees its patients through a scanner's look of its own.
        attack: name in ``DATA_ATTACKS`` or ``UPDATE_ATTACKS`` of :mod:`model.attacks`.
        attackers: who attacks.
        falsified: sides of the attackers' data that a data attack reaches.
        rater_fault: ``tiny`` validation set, ``biased`` masks, or a ``liar``.
        raters: who rates that badly; a liar praises the other ones and damns the rest.
        absent: who stays away in every second round.
        late: whose update arrives a round late.
        beside: the scenario that lacks this fault and nothing else, which it is compared with.
    """

    partition: Partition = "by-group"
    scanners: bool = False
    attack: str = ""
    attackers: tuple[int, ...] = ()
    falsified: tuple[str, ...] = ("train", "validation")
    rater_fault: Literal["", "tiny", "biased", "liar"] = ""
    raters: tuple[int, ...] = ()
    absent: tuple[int, ...] = ()
    late: tuple[int, ...] = ()
    beside: str = "clean"

    def turned(self, by: int) -> Scenario:
        """The same with every place moved on, so that no one site is the culprit under all splits."""

        def moved(places: tuple[int, ...]) -> tuple[int, ...]:
            return tuple((place + by) % N_SITES for place in places)

        return replace(
            self,
            attackers=moved(self.attackers),
            raters=moved(self.raters),
            absent=moved(self.absent),
            late=moved(self.late),
        )


_ONE = (0,)

SCENARIOS: dict[str, Scenario] = {
    "clean": Scenario(),
    "imbalanced": Scenario(partition="imbalanced"),
    "mixed-clinic": Scenario(partition="mixed-clinic"),
    "scanner-shift": Scenario(scanners=True),
    "swapped-labels": Scenario(attack="swapped-labels", attackers=_ONE),
    "shifted-masks": Scenario(attack="shifted-masks", attackers=_ONE),
    "flipped-images": Scenario(attack="flipped-images", attackers=_ONE),
    "scaled-update": Scenario(attack="scaled-update", attackers=_ONE),
    "sign-flip": Scenario(attack="sign-flip", attackers=_ONE),
    "noise": Scenario(attack="noise", attackers=_ONE),
    "free-rider-zero": Scenario(attack="free-rider-zero", attackers=_ONE),
    "free-rider-replay": Scenario(attack="free-rider-replay", attackers=_ONE),
    "stealthy-poison": Scenario(
        scanners=True,
        attack="stealthy-poison",
        attackers=_ONE,
        falsified=("train",),
        beside="scanner-shift",
    ),
    "collusion": Scenario(
        attack="swapped-labels", attackers=(0, 2), rater_fault="liar", raters=(0, 2), falsified=("train",)
    ),
    "liar": Scenario(rater_fault="liar", raters=_ONE),
    "biased-rater": Scenario(rater_fault="biased", raters=_ONE),
    "tiny-rater": Scenario(rater_fault="tiny", raters=_ONE),
    "absent-half": Scenario(absent=_ONE),
    "late": Scenario(late=_ONE),
}
"""Name → scenario; the first is what the others are compared with."""
