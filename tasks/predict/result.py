"""What a cardiologist gets in numbers: volumes, ejection fractions, mass, and every doubt about them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from model.labels import STRUCTURES
from model.volumes import HeartFunction, Ventricle, heart_function, volume_ml

PhasesFrom = Literal["given", "volume curve", "one phase"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VentricleResult(_Part):
    """One ventricle; None where it is undefined."""

    edv_ml: float | None
    esv_ml: float | None
    sv_ml: float | None
    ef_percent: float | None


class InputResult(_Part):
    """What was segmented, without its name."""

    kind: str
    sha256: str
    shape: tuple[int, ...] = Field(description="x, y, z, and phases where there are several")
    spacing_mm: tuple[float, float, float] = Field(description="x, y, z")
    phases: int


class ModelResult(_Part):
    """Which model spoke."""

    name: str
    chosen_by: str = Field(description="asked for, the site's choice, or the default")
    round: int | None
    channel: str = Field(
        description="clinical, and the release whose model it is or is built on; empty: not released"
    )
    site: str
    base_sha256: str
    model_sha256: str
    personal_sha256: str | None
    code_version: str


class FlagResult(_Part):
    """One doubt."""

    name: str
    structure: str
    phase: str
    said: str


class Result(_Part):
    """One study."""

    version: Literal[1] = 1
    input: InputResult
    model: ModelResult
    ed: int | None = Field(description="index of the phase, from 0; None for a still stack")
    es: int | None
    phases_from: PhasesFrom
    lv: VentricleResult
    rv: VentricleResult
    lv_mass_g: float | None = Field(description="at end-diastole")
    volumes_ml: dict[str, tuple[float, ...]] = Field(description="by structure, of every phase")
    confidence: dict[str, tuple[float | None, ...]] = Field(description="by structure, of every phase")
    heart_found_by: str
    flags: tuple[FlagResult, ...]
    not_checked: tuple[str, ...] = Field(description="what could not be checked, and why")

    @property
    def certain(self) -> bool:
        """Whether nothing speaks against the numbers."""
        return not self.flags


def volume_curves(
    masks: NDArray[np.uint8], spacing_mm: tuple[float, float, float]
) -> dict[str, tuple[float, ...]]:
    """Volume of every structure in every phase, ml.

    Args:
        masks: ``(T, Z, Y, X)`` labels.
        spacing_mm: (z, y, x).

    Returns:
        By structure.
    """
    return {
        name: tuple(round(volume_ml(mask, label, spacing_mm), 4) for mask in masks)
        for name, label in STRUCTURES.items()
    }


def function_of(
    masks: NDArray[np.uint8], ed: int | None, es: int | None, spacing_mm: tuple[float, float, float]
) -> HeartFunction | None:
    """The heart's function; None for a still stack."""
    return None if ed is None or es is None else heart_function(masks[ed], masks[es], spacing_mm)


def ventricle_result(ventricle: Ventricle | None) -> VentricleResult:
    """Its numbers, rounded; NaN and a still stack are None."""
    if ventricle is None:
        return VentricleResult(edv_ml=None, esv_ml=None, sv_ml=None, ef_percent=None)
    return VentricleResult(
        edv_ml=round(ventricle.edv_ml, 2),
        esv_ml=round(ventricle.esv_ml, 2),
        sv_ml=round(ventricle.sv_ml, 2),
        ef_percent=None if math.isnan(ventricle.ef_percent) else round(ventricle.ef_percent, 2),
    )


def confidence_result(sure: Sequence[Mapping[str, float]]) -> dict[str, tuple[float | None, ...]]:
    """By structure instead of by phase; NaN is None."""
    return {
        name: tuple(None if math.isnan(phase[name]) else round(phase[name], 4) for phase in sure)
        for name in STRUCTURES
    }


def result_csv(result: Result) -> str:
    """One line with a header; flags by name, structure and phase in one cell.

    Args:
        result: of one study.

    Returns:
        The table.
    """
    line: dict[str, object] = {"ed": result.ed, "es": result.es, "phases_from": result.phases_from}
    for side in ("lv", "rv"):
        line |= {f"{side}_{key}": value for key, value in getattr(result, side).model_dump().items()}
    line |= {"lv_mass_g": result.lv_mass_g}
    line |= {f"model_{key}": value for key, value in result.model.model_dump().items()}
    line |= {"input_sha256": result.input.sha256, "heart_found_by": result.heart_found_by}
    line |= {"flags": "; ".join(flag_words(flag) for flag in result.flags), "n_flags": len(result.flags)}
    text = io.StringIO()
    table = csv.DictWriter(text, list(line), lineterminator="\n")
    table.writeheader()
    table.writerow(line)
    return text.getvalue()


def flag_words(flag: FlagResult) -> str:
    """Such as ``low_confidence RV ES``."""
    return " ".join(word for word in (flag.name, flag.structure, flag.phase) if word)
