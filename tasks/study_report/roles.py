"""Which names of the study play which part in its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Roles:
    """Names of methods and scenarios.

    Attributes:
        ours: the method with rated merging of adapters.
        plain: the plain merge shown beside it.
        rivals: further methods shown in the scenarios they were run in, in this order.
        reference: full-weight federated averaging with a tuned learning rate.
        local: every site alone, one claim for each such method; their models are ``personal``.
        by_seed: whose Dice is shown under every pair of seeds.
        clean: the scenario in which nobody misbehaves.
        attacks: scenarios with an attacker among the sites.
        rater_faults: scenarios with a rater that lies, has faulty masks, or has few slices.
        beside: scenario → its clean twin, which has the same sites and lacks this fault and nothing else; scenarios
            that are not in it have none.
    """

    ours: str = "rated"
    plain: str = "plain"
    rivals: tuple[str, ...] = ()
    reference: str = "fedavg"
    local: tuple[str, ...] = ("local-lora", "local-full")
    by_seed: tuple[str, ...] = ("fedavg", "rated", "local-lora", "pooled")
    clean: str = "clean"
    attacks: tuple[str, ...] = ()
    rater_faults: tuple[str, ...] = ()
    beside: Mapping[str, str] = field(default_factory=dict)
