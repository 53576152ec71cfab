"""Whole admissions over a real store: one hospital sends damage, the others must not notice."""

from __future__ import annotations

from pathlib import Path
from random import Random

from federation_files import delete, found, new_run, replace_update, trained

from tasks.admit import admit_updates
from tasks.ledger import adapter_key, candidates_key, get_record, plan_key, senders_key, update_key
from tasks.limits import REASON_LETTERS
from tasks.records import Candidates, Plan, Senders
from tasks.workspace import Workspace

from .mutate import damage_json, damage_package

FAULTY, GOOD = "lakeside", {"hillcrest", "st-anna"}


class Folders:
    """Gives folders below one, as pytest's factory does."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def getbasetemp(self) -> Path:
        """The root."""
        return self._root

    def mktemp(self, name: str) -> Path:
        """A new folder."""
        (self._root / name).mkdir()
        return self._root / name


class Admission:
    """A round with all updates in the store, admitted again and again.

    Args:
        factory: of folders.
        root: of the run.
    """

    def __init__(self, factory: Folders, root: Path) -> None:
        self._ws: Workspace = trained(found(new_run(factory, root)))
        store = self._ws.store
        assert get_record(store, plan_key(1), Plan).round == 1
        self._update = store.get(update_key(FAULTY, 1))
        self._adapter = store.get(adapter_key(FAULTY, 1))
        self._record = self._update[self._update.index(b"{") :]  # its seal stands before it

    def send(self, draw: Random) -> None:
        """A damaged package that is announced correctly, or a damaged announcement, signed if need be."""
        store = self._ws.store
        delete(store, candidates_key(1))
        store.put(adapter_key(FAULTY, 1), self._adapter)
        store.put(update_key(FAULTY, 1), self._update)
        if draw.random() < 0.5:
            replace_update(self._ws, FAULTY, damage_package(draw, self._adapter))
        else:
            data = damage_json(draw, self._record)
            store.put(update_key(FAULTY, 1), store.seals.sealed(update_key(FAULTY, 1), data))

    def admit(self, _sent: None, _draw: Random) -> str:
        """Admit what is there; the others are in, and the reason can be shown to anybody."""
        record, store = admit_updates(self._ws, 1), self._ws.store
        assert get_record(store, candidates_key(1), Candidates) == record
        senders = {u.site for u in get_record(store, senders_key(1), Senders).updates.values()}
        assert senders >= GOOD and record.missing == ()
        if not record.quarantined:
            assert len(record.candidates) == 3
            return "admitted"
        assert len(record.candidates) == 2
        (refusal,) = record.quarantined
        assert refusal.site == FAULTY
        assert refusal.reason.isprintable() and 0 < len(refusal.reason) <= REASON_LETTERS
        return "quarantined"
