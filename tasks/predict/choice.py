"""A site's choice between base, global and personal model: compared on its own test cases, written down, in force."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeVar

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model.errors import ConfigError, IntegrityError, UnreadableError
from tasks.evaluate import clinical_table, evaluate_site
from tasks.events import log_event
from tasks.files import json_bytes, write_atomic
from tasks.predict.ready import Name, ReadyModel, offered, ready_model
from tasks.predict.shelf import Shelf

T = TypeVar("T", bound=BaseModel)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Numbers(_Part):
    """One model on the site's test cases; None where nothing is defined."""

    model_sha256: str
    personal_sha256: str | None
    dice: dict[str, float | None] = Field(description="mean over cases and phases, by structure")
    hd95_mm: float | None = Field(description="mean over cases, phases and structures")
    lv_ef_error_percent: float | None = Field(
        description="mean of |predicted − reference|, percentage points"
    )


class Comparison(_Part):
    """All models of a round on one site's test cases."""

    version: Literal[1] = 1
    site: str
    round: int
    compared: datetime
    patients: int
    models: dict[Name, Numbers]


class Choice(_Part):
    """Which model `cardiofed predict` uses at a site, since when, and by which numbers."""

    version: Literal[1] = 1
    site: str
    model: Name
    round: int
    model_sha256: str
    personal_sha256: str | None
    base_sha256: str
    chosen: datetime
    numbers: Comparison


def compare_models(shelf: Shelf, number: int | None = None) -> Comparison:
    """Evaluate the base, the global and, where there is one, the personal model on the site's own test cases.

    Args:
        shelf: of a site.
        number: of a closed round; None for the released one's, before the first release for the last.

    Returns:
        The numbers, also kept in the site's folder.

    Raises:
        ConfigError: the shelf is no site's, or the site has no test case.
    """
    if not shelf.site:
        raise ConfigError(
            "no site is named whose cases count", "--home", "give a hospital's folder, or name its site"
        )
    names = offered(shelf, number)
    models = {name: ready_model(shelf, name, number) for name in names}
    tables = {
        name: evaluate_site(model.predict, shelf.ws.data_home(shelf.site), "test")
        for name, model in models.items()
    }
    cases = tables["base"]
    if cases.empty:
        mend = "raise data.test, and prepare the data again"
        raise ConfigError("the site has no test case", str(shelf.ws.data_home(shelf.site)), mend)
    found = Comparison(
        site=shelf.site,
        round=_round(models["base"]),
        compared=datetime.now(UTC),
        patients=int(cases["patient"].nunique()),
        models={name: _numbers(model, tables[name]) for name, model in models.items()},
    )
    write_atomic(_compared_file(shelf, found.round), json_bytes(found.model_dump(mode="json")))
    return found


def use_model(shelf: Shelf, name: Name, number: int | None = None) -> Choice:
    """Have `cardiofed predict` use this model at the site from now on, until another is chosen.

    The choice names the round and the hashes: a later round changes nothing by itself.

    Args:
        shelf: of a site.
        name: base, global or personal.
        number: of a closed round; None for the released one's, before the first release for the last.

    Returns:
        The choice, kept in the site's folder beside the earlier ones.

    Raises:
        ConfigError: the shelf is no site's.
        CardiofedError: the model is not there, or is not what its passport says.
    """
    if not shelf.site:
        raise ConfigError(
            "no site is named that chooses", "--home", "give a hospital's folder, or name its site"
        )
    model = ready_model(shelf, name, number)
    choice = Choice(
        site=shelf.site,
        model=name,
        round=_round(model),
        model_sha256=model.model_sha256,
        personal_sha256=model.personal_sha256,
        base_sha256=model.base.sha256,
        chosen=datetime.now(UTC),
        numbers=_comparison_of(shelf, model),
    )
    write_atomic(
        _folder(shelf) / f"{len(_choices(shelf)) + 1:04d}.json", json_bytes(choice.model_dump(mode="json"))
    )
    log_event(shelf.home, f"use {name}", choice.round, "done")
    return choice


def choice_in_force(shelf: Shelf) -> Choice | None:
    """The site's last choice; None where it has made none.

    Args:
        shelf: of a site or none.

    Returns:
        The choice.

    Raises:
        UnreadableError: its file is damaged.
    """
    made = _choices(shelf) if shelf.site else []
    return _read(made[-1], Choice) if made else None


def chosen_model(shelf: Shelf, choice: Choice) -> ReadyModel:
    """The model that a choice names.

    Args:
        shelf: of the site.
        choice: in force.

    Returns:
        The model, the very one that was chosen.

    Raises:
        IntegrityError: what lies here is another one by now.
    """
    model = ready_model(shelf, choice.model, choice.round)
    if (model.model_sha256, model.personal_sha256) != (choice.model_sha256, choice.personal_sha256):
        said = f"the {choice.model} model of round {choice.round} is not the one that was chosen"
        raise IntegrityError(said, str(_folder(shelf)), "compare and choose again: cardiofed site use")
    return model


def _comparison_of(shelf: Shelf, model: ReadyModel) -> Comparison:
    """The kept numbers of these very models; measured anew where there are none."""
    path = _compared_file(shelf, _round(model))
    kept = _read(path, Comparison) if path.exists() else None
    seen = kept and kept.models.get(model.name)
    if (
        kept
        and seen
        and (seen.model_sha256, seen.personal_sha256) == (model.model_sha256, model.personal_sha256)
    ):
        return kept
    return compare_models(shelf, _round(model))


def _numbers(model: ReadyModel, cases: pd.DataFrame) -> Numbers:
    clinical = clinical_table(cases)
    error = (clinical["lv_ef_pred_percent"] - clinical["lv_ef_true_percent"]).abs()
    return Numbers(
        model_sha256=model.model_sha256,
        personal_sha256=model.personal_sha256,
        dice={str(name): _mean(part) for name, part in cases.groupby("structure")["dice"]},
        hd95_mm=_mean(cases["hd95_mm"]),
        lv_ef_error_percent=_mean(error),
    )


def _mean(values: pd.Series) -> float | None:
    mean = values.mean()
    return None if pd.isna(mean) else round(float(mean), 4)


def _round(model: ReadyModel) -> int:
    if model.round is None:
        raise ConfigError("no round has closed yet", "round", "let the federation close one, then choose")
    return model.round


def _folder(shelf: Shelf) -> Path:
    return shelf.home / "choices"


def _compared_file(shelf: Shelf, number: int) -> Path:
    return shelf.home / "compared" / f"{number:04d}.json"


def _choices(shelf: Shelf) -> list[Path]:
    return sorted(_folder(shelf).glob("[0-9]*.json"))


def _read(path: Path, kind: type[T]) -> T:
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        mend = "remove it, compare and choose again"
        raise UnreadableError(f"no usable {kind.__name__.lower()}", str(path), mend) from error
