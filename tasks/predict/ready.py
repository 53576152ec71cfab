"""A model that may be used: base, global or personal, each what its records and its passport say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from model.errors import ConfigError, PassportError, RoundError
from model.factors import fold
from model.labels import STRUCTURES
from model.network import build_net
from model.package import check_fit, unpack_adapter
from tasks.adapt import predictor
from tasks.personal_passport import has_personal, read_personal
from tasks.predict.segment import Grid, Predict
from tasks.predict.shelf import Shelf
from tasks.pretrain import need_base
from tasks.records import Base, model_sha256

Name = Literal["base", "global", "personal"]
NAMES: tuple[Name, ...] = ("base", "global", "personal")
ANY_RANK = 1 << 20
"""The personal adapter does not travel, so no round limits its rank."""


@dataclass(frozen=True)
class ReadyModel:
    """One checked model.

    Attributes:
        name: base, global or personal.
        round: whose closed model it is; None for the base of a run without a closed round.
        site: whose personal adapter; empty for shared models.
        base: its record.
        model_sha256: of base and steps, see :func:`tasks.records.model_sha256`.
        personal_sha256: of the personal adapter; None for shared models.
        grid: of the network.
        weights: state dict.
        release: whose model it is, or is built on, in the clinical channel now; empty for none.
    """

    name: Name
    round: int | None
    site: str
    base: Base
    model_sha256: str
    personal_sha256: str | None
    grid: Grid
    weights: dict[str, Tensor]
    release: str = ""

    @property
    def predict(self) -> Predict:
        """Slices to class probabilities."""
        return predictor(self.base.architecture, self.weights)


def ready_model(shelf: Shelf, name: Name, number: int | None = None) -> ReadyModel:
    """Put a model together from parts whose hashes and passports are checked.

    Args:
        shelf: where it lies.
        name: which one.
        number: of the closed round; None for the released one's, before the first release for the last.

    Returns:
        The model.

    Raises:
        RoundError, ConfigError: there is no such round, or no model yet.
        IntegrityError: a file is not the one that its record announces.
        PassportError: base, labels, architecture or grid are not those of this software, or the personal adapter
            is of another model.
        PackageError: a file that is no adapter, or does not fit.
        ObjectMissingError: there is no personal adapter of that round.
    """
    if name == "personal" and not shelf.site:
        raise ConfigError("no site is named whose personal model it is", "--site", "name the site")
    try:
        plan, close = shelf.closed_round(number)
    except RoundError:
        if name != "base" or number is not None or shelf.live:
            raise
        return _bare_base(shelf)
    steps = () if name == "base" else close.steps
    weights = shelf.base(plan.base) if name == "base" else shelf.shared(plan.base, steps)
    model, personal = model_sha256(plan.base, steps), None
    grid = Grid(plan.params.data.crop, plan.params.data.spacing_mm)
    _check_base(plan.base, weights, grid)
    if name == "personal":
        data, passport = read_personal(shelf.home, plan.round, shelf.site, model)
        adapter, personal = unpack_adapter(data), passport.adapter_sha256
        check_fit(adapter, {key: tuple(value.shape) for key, value in weights.items()}, ANY_RANK)
        weights = fold(weights, adapter)
    site, fact = shelf.site if name == "personal" else "", shelf.released
    release = fact.release if fact and name != "base" and fact.model_sha256 == model else ""
    return ReadyModel(name, plan.round, site, plan.base, model, personal, grid, weights, release)


def offered(shelf: Shelf, number: int | None) -> tuple[Name, ...]:
    """Models that a machine has of a round; without a site, or where it did not adapt, none is personal."""
    plan, _ = shelf.closed_round(number)
    return NAMES if shelf.site and has_personal(shelf.home, plan.round) else NAMES[:2]


def _bare_base(shelf: Shelf) -> ReadyModel:
    base = need_base(shelf.ws.base_home)
    weights, data = shelf.base(base), shelf.ws.params.data
    grid = Grid(data.crop, data.spacing_mm)
    _check_base(base, weights, grid)
    return ReadyModel("base", None, "", base, model_sha256(base, ()), None, grid, weights)


def _check_base(base: Base, weights: dict[str, Tensor], grid: Grid) -> None:
    """Refuse what this software would read wrongly."""
    mend = "use the version of the software that the federation uses"
    if base.labels != STRUCTURES:
        raise PassportError(f"the base has the label map {base.labels}, not {STRUCTURES}", "base", mend)
    if base.spacing_mm != grid.spacing_mm:
        said = f"the base was trained at {base.spacing_mm} mm, the round works at {grid.spacing_mm} mm"
        raise PassportError(said, "base", mend)
    expected = {key: value.shape for key, value in build_net(base.architecture.channels).state_dict().items()}
    if {key: value.shape for key, value in weights.items()} != expected:
        raise PassportError("the base's weights are not of its architecture", "base", mend)
