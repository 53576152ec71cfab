"""From a file's voxel grid to the network's grid and back: axes, spacing, and the heart-centred square.

Three grids are named throughout: *file* (axes as stored), *native* (the same voxels as ``(Z, Y, X)``, slices
first, axes pointing as in RAS+), and *network* (a square of ``S`` pixels per slice around the heart).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

from model.errors import GeometryError

COARSER = 1.2
"""How many times coarser than the others one axis must be to count as the slice axis."""


@dataclass(frozen=True)
class Orientation:
    """How file axes become native axes; both directions copy voxels, never interpolate.

    Attributes:
        axes: for native Z, Y, X in turn, the file axis it is read from.
        flips: for native Z, Y, X in turn, whether it runs against the file axis.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def to_native(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Voxels as stored in the file to ``(Z, Y, X)``."""
        return np.flip(stored.transpose(self.axes), self._flipped())

    def to_file(self, native: NDArray[Any]) -> NDArray[Any]:
        """Voxels ``(Z, Y, X)`` to the file's own axes; the exact inverse of :meth:`to_native`."""
        return np.flip(native, self._flipped()).transpose(self._inverse())

    def spacing_to_file_mm(self, spacing_mm: Sequence[float]) -> tuple[float, float, float]:
        """Native spacing (z, y, x) in the order of the file's axes, mm."""
        first, second, third = (float(spacing_mm[axis]) for axis in self._inverse())
        return first, second, third

    def _flipped(self) -> tuple[int, ...]:
        return tuple(axis for axis, flip in enumerate(self.flips) if flip)

    def _inverse(self) -> tuple[int, ...]:
        return tuple(self.axes.index(axis) for axis in range(3))


def orientation_of(affine: NDArray[Any]) -> Orientation:
    """Choose the orientation that brings a file nearest to RAS+ while slices stay slices.

    For stacks whose slice axis lies nearest to the patient's foot-head axis this is nibabel's closest
    canonical orientation. Short-axis planes are doubly oblique, and there the closest orientation may turn
    the slice axis into Y or X; here the coarsest axis is always Z, and the other two compete for Y and X.

    Args:
        affine: ``(4, 4)``, file voxel indices to RAS+ millimetres.

    Returns:
        Which file axis native Z, Y and X are read from, and which of them run against it.

    Raises:
        GeometryError: the affine is singular or not finite.
    """
    matrix = np.asarray(affine, dtype=np.float64)[:3, :3]
    spacing_mm = np.linalg.norm(matrix, axis=0)
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) <= 1e-6 * spacing_mm.prod():
        raise GeometryError(
            f"the affine {matrix.round(3).tolist()} is singular", mend="export the series again"
        )
    cosines = matrix / spacing_mm  # (world axis R, A, S; file axis)
    z = _slice_axis(spacing_mm)
    first, second = (axis for axis in range(3) if axis != z)
    up = np.hypot(cosines[1], cosines[2])  # anterior and head both stand for 'up' in an oblique plane
    straight = abs(cosines[0, first]) + up[second]
    swapped = abs(cosines[0, second]) + up[first]
    x, y = (first, second) if straight >= swapped else (second, first)
    flips = (bool(cosines[2, z] < 0), _points_back(cosines[[1, 2, 0], y]), _points_back(cosines[:, x]))
    return Orientation((z, y, x), flips)


def _slice_axis(spacing_mm: NDArray[np.float64]) -> int:
    order = np.argsort(spacing_mm)
    return int(order[2]) if spacing_mm[order[2]] > COARSER * spacing_mm[order[1]] else 2


def _points_back(components: NDArray[np.float64]) -> bool:
    """Whether the largest component is negative; the first of equals decides."""
    return bool(components[np.argmax(np.abs(components).round(6))] < 0)


@dataclass(frozen=True)
class Crop:
    """The map between a native slice grid and the network's square grid.

    Pixel centres sit on whole coordinates in both grids. Network pixel ``i`` lies at native coordinate
    ``centre + (i − (size − 1) / 2) · spacing_mm / native_spacing_mm``.

    Args:
        size: side ``S`` of the network's square, pixels.
        spacing_mm: pixel size of the network's grid, mm.
        centre_px: (y, x) of the square's centre in native pixel coordinates; need not be whole.
        native_shape: (Y, X) of a native slice, pixels.
        native_spacing_mm: (y, x) of a native pixel, mm.
    """

    size: int
    spacing_mm: float
    centre_px: tuple[float, float]
    native_shape: tuple[int, int]
    native_spacing_mm: tuple[float, float]

    def to_network(self, volume: NDArray[Any], nearest: bool = False) -> Tensor:
        """Resample native slices onto the network's grid.

        Bilinear, edge values repeated outside the image; with ``nearest`` (for masks) labels are kept, and 0
        lies outside the image.

        Args:
            volume: ``(Z, Y, X)``, any real dtype.
            nearest: whether values are labels.

        Returns:
            ``(Z, 1, S, S)`` float32.

        Raises:
            GeometryError: the slices do not have this crop's native shape.
        """
        self._check(tuple(volume.shape[-2:]), self.native_shape)
        source = torch.from_numpy(np.ascontiguousarray(volume, dtype=np.float32))[:, None]
        mode, padding = ("nearest", "zeros") if nearest else ("bilinear", "border")
        return self._sample(source, self._grid(to_native=False), mode, padding)

    def to_native(self, probabilities: Tensor) -> Tensor:
        """Resample class probabilities back onto the native grid; outside the square all is background.

        Args:
            probabilities: ``(Z, C, S, S)`` float32, summing to 1 over C, class 0 the background.

        Returns:
            ``(Z, C, Y, X)`` float32, summing to 1 over C.

        Raises:
            GeometryError: the slices do not have this crop's network size.
        """
        self._check(tuple(probabilities.shape[-2:]), (self.size, self.size))
        native = self._sample(probabilities, self._grid(to_native=True), "bilinear", "zeros")
        native[:, 0] += 1 - native.sum(1)  # what fell outside the square has weight 0 so far
        return native

    def _check(self, shape: tuple[int, ...], expected: tuple[int, int]) -> None:
        if shape != expected:
            raise GeometryError(f"slices of {shape} px where the crop expects {expected} px")

    def _grid(self, to_native: bool) -> Tensor:
        """Sampling points ``(1, rows, columns, 2)``, (x, y) in the source's own −1 … 1 coordinates."""
        rows, columns = (self._line(axis, to_native) for axis in (0, 1))
        return torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)[None].float()

    def _line(self, axis: int, to_native: bool) -> Tensor:
        pixels, middle = self.native_shape[axis], (self.size - 1) / 2
        step = self.spacing_mm / self.native_spacing_mm[axis]  # native pixels per network pixel
        if to_native:
            points, source = (torch.arange(pixels).double() - self.centre_px[axis]) / step + middle, self.size
        else:
            points, source = (torch.arange(self.size).double() - middle) * step + self.centre_px[axis], pixels
        return (2 * points + 1) / source - 1

    @staticmethod
    def _sample(source: Tensor, grid: Tensor, mode: str, padding: str) -> Tensor:
        grid = grid.expand(source.shape[0], -1, -1, -1)
        return grid_sample(source, grid, mode=mode, padding_mode=padding, align_corners=False)
