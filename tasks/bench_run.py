"""A run for benchmarks: any number of sites with the same patients, an untrained base, and a metered store."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

from safetensors.torch import save

from model.labels import STRUCTURES
from model.network import build_net
from model.seeds import derive_generator
from tasks.cases import CARD_FILE
from tasks.cohort import SITES as HOSPITALS
from tasks.cohort import write_patient
from tasks.enrol import read_card
from tasks.files import sha256_bytes, write_atomic
from tasks.prepare import prepare
from tasks.records import Architecture, Base
from tasks.settings import Environment, Params
from tasks.store import ObjectInfo, Store
from tasks.trust import with_seals
from tasks.variables import variables
from tasks.workspace import Workspace

PATIENTS = 3
"""One to train on, one to validate, one that is not used."""


class MeteredStore(Store):
    """A store that counts its calls and the seconds they take; safe to share between threads.

    Attributes:
        calls: so far; all but a listing of more than 1000 keys are one request each.
        seconds: in calls, so far; those of threads add up.

    Args:
        env: where the store is, and who we are there.
    """

    def __init__(self, env: Environment) -> None:
        super().__init__(env)
        self.calls, self.seconds, self._meter = 0, 0.0, threading.Lock()

    def put(
        self,
        key: str,
        data: bytes,
        content_type: str = "application/octet-stream",
        payload: str | None = None,
    ) -> str:
        """See :meth:`tasks.store.Store.put`."""
        with self._metered():
            return super().put(key, data, content_type, payload)

    def get(self, key: str, sha256: str | None = None, max_bytes: int | None = None) -> bytes:
        """See :meth:`tasks.store.Store.get`."""
        with self._metered():
            return super().get(key, sha256, max_bytes)

    def exists(self, key: str) -> bool:
        """See :meth:`tasks.store.Store.exists`."""
        with self._metered():
            return super().exists(key)

    def sha256_of(self, key: str) -> str | None:
        """See :meth:`tasks.store.Store.sha256_of`."""
        with self._metered():
            return super().sha256_of(key)

    def look(self, key: str) -> tuple[ObjectInfo, str | None] | None:
        """See :meth:`tasks.store.Store.look`."""
        with self._metered():
            return super().look(key)

    def payload_of(self, key: str) -> str | None:
        """See :meth:`tasks.store.Store.payload_of`."""
        with self._metered():
            return super().payload_of(key)

    def list(self, prefix: str) -> list[ObjectInfo]:
        """See :meth:`tasks.store.Store.list`."""
        with self._metered():
            return super().list(prefix)

    def now(self) -> datetime:
        """See :meth:`tasks.store.Store.now`."""
        with self._metered():
            return super().now()

    @contextmanager
    def _metered(self) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            with self._meter:
                self.calls += 1
                self.seconds += time.perf_counter() - started


@dataclass(frozen=True)
class MeteredWorkspace(Workspace):
    """A workspace whose store is metered.

    Attributes:
        env: where its store is, whatever the environment says.
    """

    env: Environment

    @cached_property
    def store(self) -> MeteredStore:
        """The store of ``env``, with the run's keys."""
        store = MeteredStore(self.env)
        with_seals(store, self.root)
        return store


def prepare_patients(folder: Path, params: Params) -> Path:
    """Write a few synthetic patients and prepare them as one site.

    Args:
        folder: new.
        params: seed, fractions and the network's grid.

    Returns:
        The prepared site.
    """
    hospital = HOSPITALS[0]
    for number in range(hospital.first_number, hospital.first_number + PATIENTS):
        write_patient(hospital, number, folder / "data" / "template")
    prepare(folder / "data", "acdc", "folder", folder / "prepared", params)
    return folder / "prepared" / "template"


def make_run(
    root: Path, prepared: Path, params: Params, sites: Sequence[str], env: Environment
) -> tuple[MeteredWorkspace, Base]:
    """Give the same patients to every site, and put a base there that learned nothing.

    Args:
        root: the run's folder, new.
        prepared: of :func:`prepare_patients`.
        params: its settings.
        sites: names.
        env: where its store is.

    Returns:
        The run, and the record of its base, as long as that of a trained one.
    """
    card = read_card(prepared)
    for site in sites:
        home = root / "cohort" / site
        shutil.copytree(prepared, home)
        own = card.model_copy(update={"site": site})
        write_atomic(home / CARD_FILE, own.model_dump_json(indent=2).encode())
    return MeteredWorkspace(root, params, env), _untrained(root / "base", params)


def speaking_to(env: Environment) -> AbstractContextManager[None]:
    """Let tasks that look into the environment for their store find this one."""
    own = {
        f"CARDIOFED_{name.upper()}": str(value) for name, value in env.model_dump(exclude_none=True).items()
    }
    own["CARDIOFED_S3_SECRET_KEY"] = env.s3_secret_key.get_secret_value()
    return variables(own)


def _untrained(home: Path, params: Params) -> Base:
    net = build_net(params.network.channels, derive_generator(params.seed, "base"))
    data = save(net.state_dict())
    base = Base(
        sha256=sha256_bytes(data),
        architecture=Architecture(channels=params.network.channels),
        spacing_mm=params.data.spacing_mm,
        labels=STRUCTURES,
        source="nothing",
        n_bytes=len(data),
        curve=tuple(round(1 - k / 1e4, 4) for k in range(params.pretrain.steps)),
    )
    write_atomic(home / f"{base.sha256}.safetensors", data)
    return base
