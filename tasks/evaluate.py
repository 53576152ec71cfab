"""Judge a model in the original image space: per case, structure and phase, in mm and ml.

Predictions are brought from the network's grid back to the voxels of the mask file, in the file's own axes,
and compared there. Reading is apart from comparing, so that many models can be judged on volumes read once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.geometry import Crop, Orientation
from model.intensity import normalise
from model.labels import STRUCTURES, UNKNOWN
from model.levels import score_levels, slice_levels
from model.metrics import Distances, distances, overlap
from model.volumes import Ventricle, mass_g, volume_ml
from tasks.cases import CaseRow, read_cases, read_volume

Predict = Callable[[Tensor], Tensor]
"""Slices ``(N, 1, S, S)`` float32 to class probabilities ``(N, 4, S, S)``."""

METRICS = ("dice", "voe", "hd_mm", "hd95_mm", "assd_mm")
UNDEFINED = Distances(float("nan"), float("nan"), float("nan"))


@dataclass(frozen=True)
class Case:
    """One volume, read once and ready for any model.

    Attributes:
        row: its line of the case table.
        slices: ``(Z, 1, S, S)`` float32, normalised, on the network's grid.
        crop: the way back to native slices.
        orientation: the way back to the file's axes.
        truth: labels in the file's own axes, uint8; 255 where nobody annotated.
        spacing_mm: in the order of the file's axes.
    """

    row: CaseRow
    slices: Tensor
    crop: Crop
    orientation: Orientation
    truth: NDArray[np.uint8]
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True)
class Segmentation:
    """One case for pictures: everything ``(Z, Y, X)`` on the native grid, intensities as in the file."""

    image: NDArray[np.float32]
    truth: NDArray[np.uint8]
    prediction: NDArray[np.uint8]
    spacing_mm: tuple[float, float, float]


def evaluate_site(predict: Predict, site_home: Path, split: str, surfaces: bool = True) -> pd.DataFrame:
    """Evaluate a model on one side of one prepared site.

    Args:
        predict: slices to class probabilities.
        site_home: the site's folder below ``home``.
        split: ``train``, ``validation`` or ``test``.
        surfaces: also compute HD, HD95 and ASSD; NaN without.

    Returns:
        See :func:`evaluate_cases`.

    Raises:
        DataError: a file is missing or damaged.
    """
    return evaluate_cases(predict, load_cases(site_home, split), surfaces)


def load_cases(site_home: Path, split: str) -> tuple[Case, ...]:
    """Read every volume of one side of one prepared site.

    Args:
        site_home: the site's folder below ``home``.
        split: ``train``, ``validation`` or ``test``.

    Returns:
        A case per patient and phase, in the case table's order.

    Raises:
        DataError: a file is missing or damaged.
    """
    return tuple(load_case(row) for row in read_cases(site_home, split))


def load_case(row: CaseRow) -> Case:
    """Read one volume and its mask.

    Args:
        row: the line of the case table that names both files.

    Returns:
        Slices on the network's grid, the truth in the file's own axes, and the way from one to the other.

    Raises:
        DataError: a file is missing or damaged.
    """
    image, mask = read_volume(Path(row.image)), read_volume(Path(row.mask), mask=True)
    crop = row.crop(image.values.shape)
    truth = np.ascontiguousarray(mask.orientation.to_file(mask.values), dtype=np.uint8)
    spacing_mm = mask.orientation.spacing_to_file_mm(mask.spacing_mm)
    return Case(row, crop.to_network(normalise(image.values)), crop, image.orientation, truth, spacing_mm)


def evaluate_cases(predict: Predict, cases: Sequence[Case], surfaces: bool = True) -> pd.DataFrame:
    """Evaluate a model on volumes already read.

    Args:
        predict: slices to class probabilities.
        cases: as :func:`load_cases` returns them.
        surfaces: also compute HD, HD95 and ASSD; NaN without.

    Returns:
        A row per patient, phase and structure: patient, group, vendor, centre, phase, structure, dice, voe, hd_mm,
        hd95_mm, assd_mm, pred_ml, true_ml, n_slices; with surfaces also dice, voe, hd_mm, hd95_mm, assd_mm,
        slices and measured of every slice level, such as ``dice_apex`` (:mod:`model.levels`). What is undefined
        is NaN.
    """
    return pd.DataFrame([line for case in cases for line in _judge(predict, case, surfaces)])


def segment_case(predict: Predict, row: CaseRow) -> Segmentation:
    """Segment one case of a case table, for overlay pictures.

    Args:
        predict: slices to class probabilities.
        row: the case's line of the table.

    Returns:
        Image, truth and prediction ``(Z, Y, X)`` on the native grid, with its spacing in mm.

    Raises:
        DataError: a file is missing or damaged.
    """
    image, case = read_volume(Path(row.image)), load_case(row)
    truth = np.ascontiguousarray(case.orientation.to_native(np.where(case.truth == UNKNOWN, 0, case.truth)))
    return Segmentation(
        np.ascontiguousarray(image.values), truth, _predict_native(predict, case), image.spacing_mm
    )


def _predict_native(predict: Predict, case: Case) -> NDArray[np.uint8]:
    """Labels ``(Z, Y, X)`` on the native grid."""
    with torch.inference_mode():
        labels: NDArray[np.uint8] = (
            case.crop.to_native(predict(case.slices)).argmax(1).to(torch.uint8).numpy()
        )
    return labels


def _judge(predict: Predict, case: Case, surfaces: bool) -> list[dict[str, Any]]:
    native = _predict_native(predict, case)
    prediction = np.ascontiguousarray(case.orientation.to_file(native))
    lines = [_compare(name, label, prediction, case, surfaces) for name, label in STRUCTURES.items()]
    return [line | _at_levels(line["structure"], native, case) for line in lines] if surfaces else lines


def _compare(
    name: str, label: int, prediction: NDArray[np.uint8], case: Case, surfaces: bool
) -> dict[str, Any]:
    annotated, known = label in case.row.annotated, case.truth != UNKNOWN
    predicted, true = _masks(label, prediction, case.truth, annotated)
    apart = distances(predicted, true, case.spacing_mm) if surfaces else UNDEFINED
    return {
        "patient": case.row.patient,
        "group": case.row.group,
        "vendor": case.row.vendor,
        "centre": case.row.centre,
        "phase": case.row.phase,
        "structure": name,
        **asdict(overlap(predicted, true)),
        **asdict(apart),
        "pred_ml": volume_ml(prediction, label, case.spacing_mm),
        "true_ml": volume_ml(case.truth, label, case.spacing_mm) if annotated and known.all() else math.nan,
        "n_slices": case.slices.shape[0],
    }


def _masks(
    label: int, prediction: NDArray[np.uint8], truth: NDArray[np.uint8], annotated: bool
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Predicted and true voxels of a structure, of those that somebody looked at."""
    known = truth != UNKNOWN
    if not annotated:  # nothing was drawn, which is not the same as nothing there
        return np.zeros_like(known), np.zeros_like(known)
    return (prediction == label) & known, truth == label


def _at_levels(structure: str, native: NDArray[np.uint8], case: Case) -> dict[str, float | int]:
    """The structure's scores at every slice level, as columns named after both."""
    truth, label = np.asarray(case.orientation.to_native(case.truth)), STRUCTURES[structure]
    predicted, true = _masks(label, native, truth, label in case.row.annotated)
    levels = slice_levels(np.where(truth == UNKNOWN, 0, truth))
    scores = score_levels(predicted, true, levels, (case.row.spacing_y_mm, case.row.spacing_x_mm))
    return {
        f"{name}_{level}": value for level, score in scores.items() for name, value in asdict(score).items()
    }


def clinical_table(frame: pd.DataFrame) -> pd.DataFrame:
    """EDV, ESV, SV, EF of both ventricles and the myocardial mass at ED, predicted and true.

    Args:
        frame: as :func:`evaluate_cases` returns it.

    Returns:
        A row per patient, NaN where a phase or structure is missing: patient, group, then ``lv_edv_pred_ml``,
        ``lv_edv_true_ml``, …, ``lv_ef_pred_percent``, …, the same for ``rv``, ``mass_pred_g``, ``mass_true_g``.
    """
    lines = []
    for (patient, group), rows in frame.groupby(["patient", "group"], sort=True):
        line: dict[str, Any] = {"patient": patient, "group": group}
        for side in ("pred", "true"):
            line |= _clinical(rows.set_index(["structure", "phase"])[f"{side}_ml"].to_dict(), side)
        lines.append(line)
    return pd.DataFrame(lines)


def _clinical(ml: dict[Any, float], side: str) -> dict[str, float]:
    line: dict[str, float] = {}
    for name in ("LV", "RV"):
        ventricle, key = Ventricle(*(ml.get((name, phase), math.nan) for phase in ("ED", "ES"))), name.lower()
        line[f"{key}_edv_{side}_ml"] = ventricle.edv_ml
        line[f"{key}_esv_{side}_ml"] = ventricle.esv_ml
        line[f"{key}_sv_{side}_ml"] = ventricle.sv_ml
        line[f"{key}_ef_{side}_percent"] = ventricle.ef_percent
    return line | {f"mass_{side}_g": mass_g(ml.get(("MYO", "ED"), math.nan))}


def summarise(frame: pd.DataFrame) -> dict[str, dict[str, dict[str, dict[str, float | int | None]]]]:
    """What may leave a site: aggregates by structure, phase and metric.

    Args:
        frame: as :func:`evaluate_cases` returns it.

    Returns:
        ``summary[structure][phase][metric]`` with ``mean`` (None if no case is defined), ``sd`` (n − 1; None
        below two cases), and the counts ``defined`` and ``undefined``.
    """
    summary: dict[str, dict[str, dict[str, dict[str, float | int | None]]]] = {}
    for (structure, phase), rows in frame.groupby(["structure", "phase"], sort=True):
        metrics = {metric: _aggregate(rows[metric].to_numpy(dtype=np.float64)) for metric in METRICS}
        summary.setdefault(str(structure), {})[str(phase)] = metrics
    return summary


def _aggregate(values: NDArray[np.float64]) -> dict[str, float | int | None]:
    defined = values[np.isfinite(values)]
    return {
        "mean": float(defined.mean()) if len(defined) else None,
        "sd": float(defined.std(ddof=1)) if len(defined) > 1 else None,
        "defined": len(defined),
        "undefined": len(values) - len(defined),
    }
