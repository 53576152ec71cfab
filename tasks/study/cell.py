"""What a cell of the study is: one method in one scenario under one pair of seeds."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from torch import Tensor

Weights = dict[str, Tensor]
"""Parameter name → float32 weights of a whole network."""


@dataclass(frozen=True)
class Cell:
    """One training to run.

    Attributes:
        method: a key of :data:`tasks.study.methods.METHODS`.
        scenario: a key of :data:`tasks.study.scenarios.SCENARIOS`.
        split_seed: decides who holds which patients and on which side they stand.
        train_seed: decides everything that training and attacks draw.
    """

    method: str
    scenario: str
    split_seed: int
    train_seed: int

    @property
    def name(self) -> str:
        """Folder of the cell, unique among cells."""
        return f"{self.method}-{self.scenario}-{self.split_seed}-{self.train_seed}"


@dataclass(frozen=True)
class Outcome:
    """What a method leaves behind.

    Attributes:
        models: ``global`` and the name of every site that ends with a model of its own → weights.
        rounds: a row per round and site: ``round, site, validation_dice, upload_bytes, download_bytes, weight``.
        gains: a row per round, candidate, rater and structure, for methods that rate; else empty.
    """

    models: dict[str, Weights]
    rounds: pd.DataFrame
    gains: pd.DataFrame
