"""An update on its way: cut to the budget the settings give, packed, and what was left behind."""

from __future__ import annotations

from dataclasses import dataclass

from model.compress import energy_kept, fit_to_bytes, keep_energy, left_behind
from model.factors import Adapter, Factors, sum_adapters, truncate_adapter
from model.package import pack_adapter, unpack_adapter
from tasks.settings import Package


@dataclass(frozen=True)
class Parcel:
    """What travels, and what stays.

    Attributes:
        data: the package.
        decoded: what every receiver reads from it.
        rest: what it could not carry, for the next round; empty without feedback.
        kept: share of the wanted squared norm that arrives.
    """

    data: bytes
    decoded: dict[str, Factors]
    rest: dict[str, Factors]
    kept: float


def pack_parcel(update: Adapter, rest: Adapter, settings: Package, n_bytes: int, rank_max: int) -> Parcel:
    """Pack an update together with what earlier ones left behind.

    Args:
        update: of this round, at any rank.
        rest: of the round before; empty at first.
        settings: dtype, feedback, and whether a share of energy decides instead of the budget.
        n_bytes: budget of the package; 0 keeps every rank up to ``rank_max``.
        rank_max: largest rank per layer, of the package and of what stays.

    Returns:
        The package and what stays.

    Raises:
        PackageError: not even one component fits the budget.
    """
    wanted = sum_adapters([(1.0, update), (1.0, rest)])
    capped = truncate_adapter(wanted, rank_max)[0]
    if settings.energy is not None:
        capped = keep_energy(capped, settings.energy, settings.dtype)
    elif n_bytes:
        capped = fit_to_bytes(capped, n_bytes, settings.dtype)
    data = pack_adapter(capped, settings.dtype)
    decoded = unpack_adapter(data)
    stays = left_behind(wanted, decoded, rank_max) if settings.feedback else {}
    return Parcel(data, decoded, stays, energy_kept(wanted, decoded))
