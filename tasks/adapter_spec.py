"""The adapter's size as the settings give it."""

from __future__ import annotations

from model.lora import LoraSpec
from tasks.settings import Params


def lora_spec(params: Params, rank: int) -> LoraSpec:
    """The adapter's size under these settings, for a site of this rank."""
    lora = params.lora
    return LoraSpec(rank, lora.scaling, lora.wide_from, lora.trained_levels)
