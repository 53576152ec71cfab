"""Decode images, compressed ones included, and apply their rescale."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.errors import IntensityError, UnreadableError
from tasks.dicom.header import BROKEN, EXPORT_AGAIN, Header, load, quiet


def read_pixels(headers: Sequence[Header]) -> list[NDArray[np.float32]]:
    """Read images in the order given; each file is decoded once.

    Args:
        headers: of the images.

    Returns:
        ``(Y, X)`` float32 each: stored value · slope + intercept.

    Raises:
        UnreadableError: no, truncated or undecodable pixel data, or of another size than announced.
        IntensityError: colour or inverted grey values.
    """
    found: dict[int, NDArray[np.float32]] = {}
    by_path: dict[Path, list[int]] = {}
    for index, header in enumerate(headers):
        by_path.setdefault(header.path, []).append(index)
    for path, indices in by_path.items():
        stored = _decode(path)
        for index in indices:
            one = headers[index]
            image = stored if one.frame is None or stored.ndim == 2 else stored[one.frame]
            if image.shape != one.shape:
                said = f"pixels are {image.shape}, the header says {one.shape}"
                raise UnreadableError(said, str(path), EXPORT_AGAIN)
            found[index] = (image.astype(np.float64) * one.slope + one.intercept).astype(np.float32)
    return [found[index] for index in range(len(headers))]


def _decode(path: Path) -> NDArray[np.generic]:
    data = load(path, pixels=True)
    kind = str(data.get("PhotometricInterpretation") or "")
    if data.get("SamplesPerPixel") != 1 or kind != "MONOCHROME2":
        mend = "export the original grey images"
        raise IntensityError(
            f"photometric interpretation {kind or 'missing'}, not MONOCHROME2", str(path), mend
        )
    try:
        with quiet():
            return np.asarray(data.pixel_array)
    except BROKEN as error:
        raise UnreadableError(f"pixels cannot be decoded: {error}", str(path), EXPORT_AGAIN) from error
