"""A site's cached slices on the network's grid: what training and rating read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from model.errors import UnreadableError
from model.labels import UNKNOWN

PHASES = ("ED", "ES")


@dataclass(frozen=True)
class Slices:
    """Slices of one side of one site.

    Attributes:
        images: ``(N, 1, S, S)`` float32, normalised per volume.
        masks: ``(N, S, S)`` int64 labels; what is not known for certain as :mod:`model.partial` writes it.
        patient: ``(N,)`` int64, the number in the site's pseudonym (p007 is 7).
        phase: ``(N,)`` int64, 0 ED and 1 ES.
        z: ``(N,)`` int64, slice index in the native volume.
    """

    images: Tensor
    masks: Tensor
    patient: Tensor
    phase: Tensor
    z: Tensor


def volume_slices(image: Tensor, mask: Tensor, patient: int, phase: str) -> Slices:
    """Take one volume apart into its slices.

    Args:
        image: ``(Z, 1, S, S)``, normalised.
        mask: ``(Z, 1, S, S)`` labels, any dtype.
        patient: number in the pseudonym.
        phase: ``ED`` or ``ES``.

    Returns:
        Its slices in the volume's order, each with its patient, phase and index; those that nobody annotated are
        left out.
    """
    masks = mask[:, 0].long()
    z = torch.nonzero((masks != UNKNOWN).flatten(1).any(1))[:, 0]
    count = len(z)
    numbers = torch.full((count,), patient), torch.full((count,), PHASES.index(phase)), z
    return Slices(image[z], masks[z], *numbers)


def join_slices(parts: list[Slices], size: int = 1) -> Slices:
    """Several volumes' slices, in the given order; of no volume none, ``size`` pixels wide."""
    if not parts:
        empty = torch.zeros(0, dtype=torch.long)
        return Slices(
            torch.zeros(0, 1, size, size), empty.view(0, 1, 1).expand(0, size, size), empty, empty, empty
        )
    names = ("images", "masks", "patient", "phase", "z")
    return Slices(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def save_slices(slices: Slices, site_home: Path, split: str) -> None:
    """Write ``<split>.npz``: equal slices give equal bytes."""
    np.savez(
        site_home / f"{split}.npz",
        images=slices.images[:, 0].numpy(),
        masks=slices.masks.numpy().astype(np.uint8),
        patient=slices.patient.numpy().astype(np.int32),
        phase=slices.phase.numpy().astype(np.uint8),
        z=slices.z.numpy().astype(np.int32),
    )


def load_slices(site_home: Path, split: str) -> Slices:
    """Read the cached slices of one side.

    Args:
        site_home: the site's folder below ``home``.
        split: ``train``, ``validation`` or ``test``.

    Returns:
        All slices of that side, in the order they were saved.

    Raises:
        UnreadableError: the site was not prepared, or the file is damaged.
    """
    path = site_home / f"{split}.npz"
    try:
        with np.load(path, allow_pickle=False) as stored:
            images = torch.from_numpy(stored["images"])[:, None]
            masks, patient, phase, z = (
                torch.from_numpy(stored[name].astype(np.int64)) for name in ("masks", "patient", "phase", "z")
            )
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as e:
        raise UnreadableError(f"no usable slices: {e}", str(path), "prepare the site's data again") from e
    return Slices(images, masks, patient, phase, z)
