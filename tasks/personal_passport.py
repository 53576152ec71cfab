"""A site's personal adapter and its passport beside it: what it fits, and the hash it must have."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError

from model.errors import IntegrityError, ObjectMissingError, PassportError
from tasks.files import json_bytes, sha256_bytes, write_atomic
from tasks.records import Record, Sha256


class PersonalPassport(Record):
    """What a personal adapter is; it stays at the site."""

    round: int
    site: str
    model_sha256: Sha256 = Field(description="the global model it is added to")
    adapter_sha256: Sha256
    kept: float = Field(ge=0, le=1, description="fraction of the update that validation liked best")


def personal_file(site_home: Path, number: int) -> Path:
    """Where the personal adapter of a round lies; its passport has the same name with ``.json``."""
    return site_home / "personal" / f"{number:04d}.safetensors"


def write_personal(site_home: Path, data: bytes, number: int, site: str, model: Sha256, kept: float) -> None:
    """Keep a personal adapter with its passport.

    Args:
        site_home: the site's working folder.
        data: the package.
        number: of the closed round.
        site: whose it is.
        model: hash of the global model it is added to.
        kept: fraction of the update that was kept.

    Raises:
        DiskError: a file could not be written.
    """
    path = personal_file(site_home, number)
    passport = PersonalPassport(
        round=number, site=site, model_sha256=model, adapter_sha256=sha256_bytes(data), kept=kept
    )
    write_atomic(path, data)
    write_atomic(path.with_suffix(".json"), json_bytes(passport.model_dump(mode="json")))


def has_personal(site_home: Path, number: int) -> bool:
    """Whether a personal adapter and its passport are there."""
    path = personal_file(site_home, number)
    return path.exists() and path.with_suffix(".json").exists()


def read_personal(site_home: Path, number: int, site: str, model: Sha256) -> tuple[bytes, PersonalPassport]:
    """Read a personal adapter that is what its passport says.

    Args:
        site_home: the site's working folder.
        number: of the closed round.
        site: whose it must be.
        model: hash of the global model it must fit.

    Returns:
        The package and its passport.

    Raises:
        ObjectMissingError: there is none of this round.
        PassportError: no passport, or one of another site, round or global model.
        IntegrityError: the file is not the one that was kept.
    """
    path = personal_file(site_home, number)
    if not path.exists():
        said = f"{site} has no personal adapter of round {number}"
        raise ObjectMissingError(
            said, str(path), "let the site take part in the round, or choose another model"
        )
    again = "take part in a round again: its adapt phase makes a new one"
    try:
        passport = PersonalPassport.model_validate_json(path.with_suffix(".json").read_bytes())
    except (OSError, ValidationError) as error:
        raise PassportError("the personal adapter has no usable passport", str(path), again) from error
    if (passport.site, passport.round, passport.model_sha256) != (site, number, model):
        said = f"it belongs to round {passport.round} of {passport.site}, or to another global model"
        raise PassportError(said, str(path), again)
    data = path.read_bytes()
    if sha256_bytes(data) != passport.adapter_sha256:
        raise IntegrityError("the personal adapter is not the one that was kept", str(path), again)
    return data, passport
