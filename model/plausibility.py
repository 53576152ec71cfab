"""What makes a segmentation doubtful: checks of its shape, its numbers and its certainty, each a pure function.

A flag is no verdict: pathology is flagged too where it leaves what is usual. The limits stand here, each with what it
rests on; those of shape are reached by none of the 100 reference masks of 50 ACDC patients, ED and ES.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_fill_holes, generate_binary_structure, label

from model.labels import LV, MYO, STRUCTURES
from model.metrics import overlap
from model.volume_curve import jumps

Mask = NDArray[np.bool_]

EF_PERCENT = {"LV": (10.0, 85.0), "RV": (5.0, 85.0)}
"""Above: LV, 73 % and twice 6 % in healthy women (Chuang et al., J Magn Reson Imaging 39:895, 2014, cine CMR of 1494
Framingham participants). Below: bounds of ours, under the lowest of 50 ACDC patients, 10.5 % and 7.1 %."""
AGREEMENT = 0.88
"""Dice between global and personal model, below which they disagree."""
CONFIDENCE = 0.84
"""Mean probability of the chosen class inside a structure. Both limits: the highest that flag at most one in ten of the
good structures (Dice 0.70 or more) among validation cases, see docs/clinical.md and ``cardiofed clinical flags``."""
OUTSIDE = 0.04
"""Share of a structure outside its largest component; largest in the references: 0.039, of a myocardium."""
OPEN = 0.05
"""Share of the cavity's border, within slices, that is not myocardium; largest in the references: 0.017."""
HOLES_PX = 1
"""Pixels that a structure encloses within a slice."""


@dataclass(frozen=True)
class Flag:
    """One doubt.

    Attributes:
        name: the check.
        said: what was found, in words with numbers.
        structure: LV, MYO or RV; empty for the case as a whole.
        phase: ED, ES or the index of a phase; empty for the case as a whole.
    """

    name: str
    said: str
    structure: str = ""
    phase: str = ""


def shape_flags(mask: NDArray[np.integer], phase: str) -> list[Flag]:
    """Holes, several components, an open cavity, an absent structure.

    Args:
        mask: ``(Z, Y, X)`` labels.
        phase: its name.

    Returns:
        Flags of this mask, by structure.
    """
    flags = []
    for name, value in STRUCTURES.items():
        part = mask == value
        if not part.any():
            flags.append(Flag("absent", f"no {name} was found", name, phase))
            continue
        if (holes := holes_px(part if value != MYO else part | (mask == LV))) >= HOLES_PX:
            flags.append(Flag("holes", f"{holes} pixels enclosed by {name} are not of it", name, phase))
        count, outside = components(part)
        if outside > OUTSIDE:
            said = f"{count} pieces, {outside:.0%} of the voxels outside the largest"
            flags.append(Flag("components", said, name, phase))
    if (share := open_share(mask)) > OPEN:
        said = f"{share:.0%} of the LV's border has no myocardium beside it"
        flags.append(Flag("lv_not_enclosed", said, "LV", phase))
    return flags


def holes_px(part: Mask) -> int:
    """Pixels that are enclosed within a slice but not of the structure; myocardium is given with its cavity.

    Args:
        part: ``(Z, Y, X)``.

    Returns:
        Their number over all slices.
    """
    return sum(int(np.count_nonzero(binary_fill_holes(plane) & ~plane)) for plane in part)


def components(part: Mask) -> tuple[int, float]:
    """Count the pieces that do not touch, not even by a corner.

    Args:
        part: ``(Z, Y, X)``.

    Returns:
        Number of pieces, and the share of voxels outside the largest; 0 and 0 for an empty mask.
    """
    found, count = label(part, generate_binary_structure(3, 3))
    if not count:
        return 0, 0.0
    sizes = np.bincount(found.ravel())[1:]
    return int(count), float(1 - sizes.max() / sizes.sum())


def open_share(mask: NDArray[np.integer]) -> float:
    """Share of the pixels around the LV cavity, within slices, that are not myocardium; 0 without a cavity.

    Args:
        mask: ``(Z, Y, X)`` labels.

    Returns:
        0 (enclosed everywhere) … 1 (nowhere).
    """
    cavity = mask == LV
    border = binary_dilation(cavity, generate_binary_structure(3, 1)[1:2]) & ~cavity
    total = int(np.count_nonzero(border))
    return float(1 - np.count_nonzero(border & (mask == MYO)) / total) if total else 0.0


def edge_flags(network_mask: NDArray[np.integer], phase: str) -> list[Flag]:
    """Heart at the border of the square that the network saw: it may be cut off.

    Args:
        network_mask: ``(Z, S, S)`` labels on the network's grid.
        phase: its name.

    Returns:
        One flag, or none.
    """
    inner = np.zeros(network_mask.shape[1:], bool)
    inner[1:-1, 1:-1] = True
    count = int(np.count_nonzero(network_mask[:, ~inner]))
    if not count:
        return []
    return [Flag("crop_edge", f"the heart touches the edge of the crop at {count} pixels", phase=phase)]


def curve_flags(lv_ml: Sequence[float]) -> list[Flag]:
    """Phases at which the LV's volume jumps; cycles of fewer than 10 phases are not judged.

    Args:
        lv_ml: ``(T,)`` LV cavity volume, ml.

    Returns:
        A flag per phase.
    """
    said = "its LV volume of {:.0f} ml does not lie between its neighbours'"
    return [Flag("volume_jump", said.format(lv_ml[t]), "LV", str(t)) for t in jumps(lv_ml)]


def ef_flags(ef_percent: Mapping[str, float]) -> list[Flag]:
    """Ejection fractions that no patient is likely to have; an undefined one is flagged as well.

    Args:
        ef_percent: by ventricle.

    Returns:
        A flag per ventricle.
    """
    flags = []
    for name, ef in ef_percent.items():
        low, high = EF_PERCENT[name]
        if np.isnan(ef):
            flags.append(Flag("ef_range", "EF is undefined: the ventricle is empty at ED", name))
        elif not low <= ef <= high:
            flags.append(Flag("ef_range", f"EF is {ef:.0f} %, outside {low:.0f} to {high:.0f} %", name))
    return flags


def disagreement_flags(
    one: NDArray[np.integer], other: NDArray[np.integer], phase: str, names: tuple[str, str]
) -> list[Flag]:
    """Structures on which two models disagree.

    Args:
        one: ``(Z, Y, X)`` labels by the first model.
        other: by the second, on the same grid.
        phase: its name.
        names: of both models.

    Returns:
        A flag per structure; a structure that neither found is no disagreement.
    """
    flags = []
    for name, value in STRUCTURES.items():
        dice = overlap(one == value, other == value).dice
        if dice < AGREEMENT:
            said = (
                f"Dice {dice:.3f} between {names[0]} and {names[1]} model, usual is {AGREEMENT:.2f} or more"
            )
            flags.append(Flag("models_disagree", said, name, phase))
    return flags


def confidence(probabilities: NDArray[np.floating]) -> dict[str, float]:
    """Mean probability of the chosen class inside each structure.

    Args:
        probabilities: ``(Z, C, S, S)``, summing to 1 over C.

    Returns:
        By structure; NaN where it was not found.
    """
    chosen, sure = probabilities.argmax(1), probabilities.max(1)
    found = {name: sure[chosen == value] for name, value in STRUCTURES.items()}
    return {name: float(part.mean()) if part.size else float("nan") for name, part in found.items()}


def confidence_flags(sure: Mapping[str, float], phase: str) -> list[Flag]:
    """Structures of which the network is not sure.

    Args:
        sure: as :func:`confidence` returns it.
        phase: its name.

    Returns:
        A flag per structure; an absent one is another check's.
    """
    said = "mean probability {:.3f}, usual is {:.2f} or more"
    return [
        Flag("low_confidence", said.format(value, CONFIDENCE), name, phase)
        for name, value in sure.items()
        if value < CONFIDENCE
    ]
