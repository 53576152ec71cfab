"""A trial: the members, the base and the settings of one cell, and what every method does with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd
from torch import Tensor

from model.factors import Factors
from model.lora import LoraSpec, rank_for_volume
from model.merge import volume_weights
from model.network import ResidualUNet, build_net
from tasks.adapter_spec import lora_spec
from tasks.settings import Params
from tasks.study.cell import Weights
from tasks.study.local import train_adapter
from tasks.study.members import Member
from tasks.study.memo import Memo
from tasks.study.scenarios import Scenario


@dataclass
class Trial:
    """One cell at work.

    Attributes:
        params: settings, the method's own laid over them.
        scenario: the circumstances.
        members: site → data.
        base: the shared base.
        seed: of training.
        memo: trainings and scores that other cells have in common with this one.
        rows: what every round left in numbers, see :class:`tasks.study.cell.Outcome`.
    """

    params: Params
    scenario: Scenario
    members: Mapping[str, Member]
    base: Weights
    seed: int
    memo: Memo
    rows: list[dict[str, object]] = field(default_factory=list)

    @cached_property
    def net(self) -> ResidualUNet:
        """One network that every scoring borrows."""
        return build_net(self.params.network.channels)

    @property
    def sites(self) -> list[str]:
        """All sites, by name."""
        return sorted(self.members)

    def places(self, places: tuple[int, ...]) -> list[str]:
        """Sites by their places in the alphabet."""
        return [self.sites[place] for place in places]

    def shares(self, sites: list[str]) -> dict[str, float]:
        """``n_c / Σ n_c`` by training slices, as the settings weigh volume."""
        slices = {site: self.members[site].slices for site in sites}
        volumes = volume_weights(slices, self.params.merge.volume)
        total = sum(volumes.values())
        return {site: v / total for site, v in volumes.items()}

    def spec(self, site: str) -> LoraSpec:
        """Size of a site's adapter, by its share of training slices."""
        lora = self.params.lora
        counts = {name: member.slices for name, member in self.members.items()}
        rank = rank_for_volume(
            counts[site], max(counts.values()), lora.rank_min, lora.rank_max, lora.rank_rule
        )
        return lora_spec(self.params, rank)

    def train(self, site: str, start: Weights, steps: int, seed: int) -> dict[str, Factors]:
        """A site's update from ``start``, as :func:`tasks.study.local.train_adapter` makes it."""
        slices, spec, params = self.members[site].train, self.spec(site), self.params

        def compute() -> dict[str, Tensor]:
            update = train_adapter(params, slices, start, spec, steps, seed)
            return {
                f"{name}|{side}": f for name, pair in update.items() for side, f in pair._asdict().items()
            }

        determined = ("adapter", params.network, params.training, spec, steps, seed)
        flat = self.memo.recall(compute, *determined, slices.images, slices.masks, start)
        layers = sorted({key.removesuffix("|A").removesuffix("|B") for key in flat})
        return {name: Factors(flat[f"{name}|B"], flat[f"{name}|A"]) for name in layers}

    def validate(self, weights: Weights, site: str) -> Tensor:
        """Dice per slice and structure on a site's validation panel, ``(n, 3)``."""
        panel = self.members[site].panel

        def compute() -> dict[str, Tensor]:
            self.net.load_state_dict(weights)
            return {"scores": panel.scores(self.net)}

        determined = ("scores", self.params.network, panel.images, panel.masks, weights)
        return self.memo.recall(compute, *determined)["scores"]

    def note(self, number: int, site: str, scores: Tensor, up: int, down: int, weight: float = 1.0) -> None:
        """Keep one site's numbers of one round."""
        self.rows.append(
            {
                "round": number,
                "site": site,
                "validation_dice": float(scores.nanmean(1).nanmean()),
                "upload_bytes": up,
                "download_bytes": down,
                "weight": weight,
            }
        )

    def table(self) -> pd.DataFrame:
        """All rounds so far."""
        return pd.DataFrame(self.rows)
