"""Where a machine finds models: the folder of a finished run, or its home in a live federation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from model.errors import (
    ConfigError,
    IntegrityError,
    PackageError,
    PassportError,
    RoundError,
    SignatureError,
    StoreUnreachableError,
    UnreadableError,
)
from tasks.files import json_bytes, sha256_bytes, sha256_file, write_atomic
from tasks.history import read_published
from tasks.ledger import close_key, find_record, get_record, plan_key, released_key
from tasks.models import mirrored_step
from tasks.records import Base, Close, Plan, Record, Step, model_sha256
from tasks.release.channel import current_release
from tasks.release.records import Released
from tasks.site_round import current_round
from tasks.weights import fold_steps, model_weights
from tasks.workspace import Workspace

R = TypeVar("R", bound=Record)
PLAN, CLOSE, RELEASED = "plan.json", "close.json", "released.json"
NO_MODEL = "run `cardiofed demo`, or let the federation close a round"


@dataclass(frozen=True)
class Shelf:
    """A machine's way to models.

    Attributes:
        ws: the run, or the machine's own folder.
        site: whose personal adapter and choice count; empty for none.
        live: whether the store may be asked; else all must lie in the folder.
    """

    ws: Workspace
    site: str
    live: bool

    @property
    def home(self) -> Path:
        """Where the site, or the hub, keeps what is its own."""
        return self.ws.site_home(self.site) if self.site else self.ws.hub_home

    @cached_property
    def released(self) -> Released | None:
        """The clinical channel, as a live machine's ledger tells it, or told it last where it does not answer.

        Returns:
            What it holds; None before the first release.

        Raises:
            PassportError: what it was told last is damaged.
            SignatureError: the ledger's word is not the hub's.
        """
        if not self.live:
            current = current_release(self.ws.versions)
            return current.fact if current else None
        kept = self.home / "closed" / RELEASED
        try:
            told = find_record(self.ws.store, released_key(), Released)
        except StoreUnreachableError:
            return _parse(kept, Released) if kept.exists() else None
        if told is not None:
            write_atomic(kept, json_bytes(told.model_dump(mode="json")))
        return told

    def closed_round(self, number: int | None) -> tuple[Plan, Close]:
        """Records of a closed round, and whether they belong together.

        What the store gave once is kept in the folder, so that a prediction needs no network afterwards.

        Args:
            number: of the round; None for the released one's, before the first release for the last that has closed.

        Returns:
            How it was opened and how it ended.

        Raises:
            RoundError: it has not closed, or none has.
            PassportError: the records do not belong together, or their model is not the released one.
        """
        if number is None and (fact := self.released):
            plan, close = self._records(fact.round)
            if model_sha256(plan.base, close.steps) != fact.model_sha256:
                said = f"the model of round {fact.round} is not the one that was released as {fact.release}"
                raise PassportError(said, str(self.home), "fetch the round again from the hub")
            return plan, close
        return self._records(self._last_closed() if number is None else number)

    def _records(self, number: int) -> tuple[Plan, Close]:
        mirrored, kept = self.ws.rounds / f"{number:04d}", self.home / "closed" / f"{number:04d}"
        for folder in (mirrored, kept):
            if (folder / CLOSE).exists():
                read = _unsealed if folder == mirrored else _parse
                plan, close = read(folder / PLAN, Plan), read(folder / CLOSE, Close)
                announced = sha256_file(folder / PLAN) if folder == mirrored else close.plan_sha256
                _check_pair(number, plan, close, announced, str(folder))
                return plan, close
        found = find_record(self.ws.store, close_key(number), Close) if self.live else None
        if found is None:
            mend = "name a round that has closed, or none for the last one"
            raise RoundError(f"round {number} has not closed here", str(self.ws.root), mend)
        plan = get_record(self.ws.store, plan_key(number), Plan)
        announced = str(self.ws.store.sha256_of(plan_key(number)))
        _check_pair(number, plan, found, announced, plan_key(number))
        write_atomic(kept / PLAN, json_bytes(plan.model_dump(mode="json")))
        write_atomic(kept / CLOSE, json_bytes(found.model_dump(mode="json")))
        return plan, found

    def base(self, base: Base) -> dict[str, Tensor]:
        """State dict of the base, its hash checked."""
        path = self.ws.base_home / f"{base.sha256}.safetensors"
        if not path.exists() and self.live:
            return model_weights(self.ws.store, base, (), self.home)
        if not path.exists():
            raise ConfigError("the base is not here", str(path), NO_MODEL)
        data = path.read_bytes()
        if sha256_bytes(data) != base.sha256:
            raise IntegrityError(
                "the base is not the one that was trained", str(path), "train or fetch it again"
            )
        try:
            return load(data)
        except SafetensorError as error:
            raise PackageError("the base is no safetensors file", str(path), "train it again") from error

    def shared(self, base: Base, steps: tuple[Step, ...]) -> dict[str, Tensor]:
        """State dict of the base with published steps, every hash checked."""
        if self.live:
            return model_weights(self.ws.store, base, steps, self.home)
        return fold_steps(self.base(base), steps, lambda step: mirrored_step(self.ws, step))

    def _last_closed(self) -> int:
        kept = (self.ws.rounds, self.home / "closed")
        here = [int(path.parent.name) for folder in kept for path in folder.glob("[0-9]*/close.json")]
        if self.live:
            try:
                for number in range(current_round(self.ws), max(here, default=0), -1):
                    if find_record(self.ws.store, close_key(number), Close) is not None:
                        return number
            except StoreUnreachableError:
                if not here:
                    raise
        if not here:
            raise RoundError("there is no model yet: no round has closed", str(self.ws.root), NO_MODEL)
        return max(here)


def _unsealed(path: Path, kind: type[R]) -> R:
    try:
        record = read_published(path, kind)
    except (PackageError, SignatureError, UnreadableError) as error:
        raise PassportError(error.what, str(path), error.mend) from error
    if record is None:
        raise PassportError(f"no {kind.__name__}", str(path), "version the round again")
    return record


def _parse(path: Path, kind: type[R]) -> R:
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise PassportError(
            f"no usable {kind.__name__}", str(path), "remove it and fetch it again"
        ) from error


def _check_pair(number: int, plan: Plan, close: Close, plan_sha256: str, where: str) -> None:
    if plan.round != number or close.round != number or plan_sha256 != close.plan_sha256:
        said = f"plan and close of round {number} do not belong together"
        raise PassportError(said, where, "fetch the round again from the hub")
