"""A round with all updates in a real store, for attacks on it: each works with one defence off and fails with it on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from federation_files import delete, found, new_run, trained, use_store

from infra.s3_server import S3Server
from model.padding import unpad
from tasks.admit import admit_updates
from tasks.ledger import adapter_key, candidate_key, candidates_key, merge_key, update_key
from tasks.store import Store
from tasks.workspace import Workspace

ATTACKER, OTHERS = "lakeside", ("hillcrest", "st-anna")


@dataclass(frozen=True)
class Round:
    """Round 1 before admission, as three honest hospitals left it."""

    ws: Workspace
    update: bytes
    adapter: bytes

    def admit(self) -> tuple[list[bytes], str]:
        """Packages that the hub admits, and why it refused the attacker's; empty when it did not."""
        record = admit_updates(self.ws, 1)
        packages = [unpad(self.ws.store.get(candidate_key(c.id, 1))) for c in record.candidates]
        assert len(packages) >= len(OTHERS), "an attack on one stops the others"
        return packages, next((refusal.reason for refusal in record.quarantined), "")

    def renew(self) -> None:
        """As it was before the attack."""
        delete(self.ws.store, candidates_key(1), merge_key(1))
        self.ws.store.put(adapter_key(ATTACKER, 1), self.adapter)
        self.ws.store.put(update_key(ATTACKER, 1), self.update)


@pytest.fixture(scope="session")
def trained_round(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> Iterator[Round]:
    with pytest.MonkeyPatch.context() as patch:
        use_store(patch, s3_server.environment(bucket="attacks"))
        ws = trained(found(new_run(tmp_path_factory, tmp_path_factory.mktemp("attacks") / "run")))
        store: Store = ws.store  # opened once, for this bucket
        yield Round(ws, store.get(update_key(ATTACKER, 1)), store.get(adapter_key(ATTACKER, 1)))


@pytest.fixture
def round_1(trained_round: Round) -> Round:
    trained_round.renew()
    return trained_round


@pytest.fixture
def off() -> Iterator[pytest.MonkeyPatch]:
    """Switches one defence off, until :meth:`undo`."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """A file that hostile code would make."""
    return tmp_path / "it-ran"
