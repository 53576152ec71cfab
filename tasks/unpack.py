"""Read a package that a stranger sent: what it promises is checked before anything is decoded, then how long it is."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch

from model.errors import ShapeError
from model.factors import Adapter, Factors
from model.package import PackageView, check_fit

NORM_MAX = 10_000.0
"""Of an update. Honest ones have 1 to 6, and a hundred times that is still for the raters to judge. Without a bound,
finite numbers could drown what the others sent in the rounding of the sum, or end as infinity in the network."""
_LAYERS_LENGTH = re.compile(rb'"layers":\{"dtype":"U8","shape":\[([0-9]{1,10})\]')
_HEAD_BYTES, _ROW_BYTES = 100, 50  # of the list of layers: around its rows, and of a row besides the name


def open_package(data: bytes, shapes: Mapping[str, tuple[int, ...]], rank_max: int) -> dict[str, Factors]:
    """Read a package that anybody may have sent; what it says of its layers is checked before one is decoded.

    Args:
        data: the package, already of a bounded size.
        shapes: the base's parameter shapes by name.
        rank_max: largest rank this round allows.

    Returns:
        float32 factors by layer, finite, of the base's sizes, and no longer than ``NORM_MAX`` together.

    Raises:
        PackageError: whatever does not fit.
    """
    found = _LAYERS_LENGTH.search(data, 0, 4096)  # where there is none, the view refuses the header
    most = _HEAD_BYTES + sum(len(name.encode()) + _ROW_BYTES for name in shapes)
    if found and int(found[1]) > most:
        raise ShapeError(
            f"a list of layers of {int(found[1])} bytes, that of the base has at most {most}",
            mend="train on the base that the plan names",
        )
    view = PackageView(data)
    outline = {
        name: Factors(torch.empty(out, rank, device="meta"), torch.empty(rank, inner, device="meta"))
        for name, (out, inner, rank) in view.sizes.items()
    }
    check_fit(outline, shapes, rank_max)
    adapter = {name: view.factors(name) for name in view.layers}
    if (size := length(adapter)) > NORM_MAX:
        raise ShapeError(f"the update has norm {size:.3g}, at most {NORM_MAX:.0f} is admitted")
    return adapter


def length(adapter: Adapter) -> float:
    """``√ Σ ‖b_k‖² ‖a_k‖²`` over all components of all layers.

    The Frobenius norm where components are orthogonal, as training sends them; others cannot hide size by
    cancelling out, as in that norm.
    """
    return math.sqrt(
        sum(
            float((B.double().square().sum(dim=0) * A.double().square().sum(dim=1)).sum())
            for B, A in adapter.values()
        )
    )
