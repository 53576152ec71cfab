"""Masks of a whole study: where the heart is, all slices of all phases through the network, and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.errors import PhaseError
from model.geometry import Crop
from model.heart import heart_centre, least_alike
from model.intensity import normalise
from model.plausibility import confidence
from tasks.predict.source import Study

Predict = Callable[[Tensor], Tensor]
"""Slices ``(N, 1, S, S)`` float32 to class probabilities ``(N, 4, S, S)``."""
Found = Literal["motion", "mask", "image centre"]


@dataclass(frozen=True)
class Grid:
    """The network's grid: side in pixels and pixel size in mm."""

    size: int
    spacing_mm: float


@dataclass(frozen=True)
class Segmented:
    """What the network says of a study.

    Attributes:
        masks: ``(T, Z, Y, X)`` uint8 labels on the native grid.
        network: ``(T, Z, S, S)`` uint8 labels on the network's grid.
        confidence: by phase and structure, see :func:`model.plausibility.confidence`.
    """

    masks: NDArray[np.uint8]
    network: NDArray[np.uint8]
    confidence: tuple[dict[str, float], ...]


def find_heart(
    study: Study, predict: Predict, grid: Grid, ed: int | None, es: int | None
) -> tuple[Crop, Found]:
    """Place the square that the network sees.

    By what moves between ED and ES, or, where one is not given, between the other (else the first phase) and the
    phase least like it. A still stack has no motion: a first pass round the image's centre, then its mask's centroid.

    Args:
        study: what is to be segmented.
        predict: the model.
        grid: of the network.
        ed: index of ED, if known.
        es: index of ES, if known.

    Returns:
        The crop, and what it was placed by.

    Raises:
        PhaseError: ED or ES is no phase of the study, or both are one.
    """
    phases = len(study.values)
    for name, given in (("ED", ed), ("ES", es)):
        if given is not None and not 0 <= given < phases:
            mend = f"phases count from 0 to {phases - 1}"
            raise PhaseError(f"{name} is phase {given} of {phases}", f"--{name.lower()}", mend)
    if ed is not None and ed == es:
        raise PhaseError(f"ED and ES are both phase {ed}", "--ed and --es", "name two phases")
    if phases > 1:
        one = next((given for given in (ed, es) if given is not None), 0)
        both = ed is not None and es is not None
        other = es if both and es is not None else least_alike(study.values, one, study.spacing_mm)
        centre = heart_centre(study.values[one], study.values[other], study.spacing_mm)
        return _crop(study, grid, centre), "motion"
    return _by_mask(study, predict, grid)


def _by_mask(study: Study, predict: Predict, grid: Grid) -> tuple[Crop, Found]:
    rows, columns = study.values.shape[2:]
    middle = _crop(study, grid, ((rows - 1) / 2, (columns - 1) / 2))
    heart = segment_phases(study.values, predict, middle).masks[0] > 0
    if not heart.any():
        return middle, "image centre"
    _, y, x = np.nonzero(heart)
    return _crop(study, grid, (float(y.mean()), float(x.mean()))), "mask"


def segment_phases(values: NDArray[np.float32], predict: Predict, crop: Crop) -> Segmented:
    """Segment stacks, all their slices in one go.

    Args:
        values: ``(T, Z, Y, X)``, arbitrary units.
        predict: the model.
        crop: where the network looks.

    Returns:
        Masks on both grids, and how sure the network is.

    Raises:
        IntensityError: a phase is constant or not finite.
    """
    phases, depth = values.shape[:2]
    slices = torch.cat([crop.to_network(normalise(stack)) for stack in values])
    with torch.inference_mode():
        probabilities = predict(slices).reshape(phases, depth, -1, crop.size, crop.size)
        masks = [crop.to_native(each).argmax(1).to(torch.uint8).numpy() for each in probabilities]
    network = probabilities.argmax(2).to(torch.uint8).numpy()
    sure = tuple(confidence(each.numpy()) for each in probabilities)
    return Segmented(np.stack(masks), network, sure)


def _crop(study: Study, grid: Grid, centre_px: tuple[float, float]) -> Crop:
    rows, columns = study.values.shape[2:]
    return Crop(grid.size, grid.spacing_mm, centre_px, (rows, columns), study.spacing_mm[1:])
