"""Rounds with failures, over a real store and a real Prefect server: nothing of any patient is found outside."""

from __future__ import annotations

import base64
import gzip
import io
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import prefect.settings
import pytest
from archives import TAG_WORDS, bring_in, marks_of, write_archives
from federation_files import found, template, tiny_params, use_store
from hospitals import RUN, WORDS, marks, marks_of_cohort, write_hospitals
from numpy.typing import NDArray
from PIL import Image
from prefect.settings import temporary_settings
from search import find_marks, in_database, in_folder, in_store, opened_at_hub

from flows import phases
from flows.round import federated_round
from flows.servers import _send_last_words
from infra.prefect_server import prefect_environment, start_prefect
from infra.process import stop
from infra.s3_server import S3Server
from tasks.files import json_bytes
from tasks.ledger import adapter_key
from tasks.payloads import wrap
from tasks.prepare import prepare
from tasks.privacy import ERRORS_FILE, keep_errors
from tasks.sealed_box import is_sealed
from tasks.settings import Environment
from tasks.trust import HUB
from tasks.workspace import Workspace, open_workspace

pytestmark = pytest.mark.timeout(900)  # a Prefect server takes minutes to start where others compute as well

TRACE = WORDS["trace"]


def _picture(image: NDArray[np.float32]) -> bytes:
    """A page with the image in it, its row that is searched for spread over all greys."""
    row = image[image.shape[0] // 2, 8 : 8 + RUN]
    grey = np.clip((image - row.min()) / (row.max() - row.min()) * 255, 0, 255).round().astype("u1")
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "PNG")
    return b"<img src='data:image/png;base64," + base64.b64encode(file.getvalue()) + b"'>"


def _archive(image: NDArray[np.float32]) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, image=image)
    return file.getvalue()


WRAPPINGS: dict[str, Callable[[NDArray[np.float32]], bytes]] = {
    "bytes": lambda image: b"before" + image.tobytes(),
    "half": lambda image: image.astype("<f2").tobytes(),
    "archive": _archive,
    "twice": lambda image: base64.b64encode(gzip.compress(image.tobytes())),
    "hexadecimal": lambda image: image.tobytes().hex().encode(),
    "numbers": lambda image: json.dumps(image.tolist()).encode(),
    "page": _picture,
}


@dataclass(frozen=True)
class Federation:
    """A run whose hospitals are marked, and how to search what it left outside them."""

    ws: Workspace
    env: Environment
    watch: Path
    prefect: Path
    marks: dict[str, bytes]

    @property
    def database(self) -> Path:
        """Prefect's."""
        return self.prefect / "home" / ".prefect" / "prefect.db"

    def play(self, number: int, **faults: str) -> str:
        """A round in which reading fails at some hospitals; the name of the flow's state."""
        for site, kind in faults.items():
            (self.watch / f"fault-{site.replace('_', '-')}").write_text(f"{kind}\n{TRACE} {WORDS['patient']}")
        keep_errors(self.ws.root)
        with pytest.MonkeyPatch.context() as patch:
            use_store(patch, self.env)
            state: Any = federated_round(str(self.ws.root), number, return_state=True)
        for fault in self.watch.glob("fault-*"):
            fault.unlink()
        return str(state.name)

    def leaks(self) -> list[str]:
        """What is found of the marks in the store, at Prefect, at the hub and in the versions of the rounds."""
        _send_last_words()
        time.sleep(1.0)  # the server writes logs a moment later
        places = [
            *in_store(self.ws.store),
            *opened_at_hub(self.ws.store),
            *in_folder(self.prefect, leave_out=["pages/"]),
            *in_database(self.database),
            *in_folder(self.ws.versions),
            *in_folder(self.ws.hub_home),
            *in_folder(self.ws.rounds),
        ]
        assert len(places) > 300 and sum(len(data) for _, data in places) > 1_000_000
        return find_marks(self.marks, places)


@pytest.fixture(scope="module")
def prefect_home(
    tmp_path_factory: pytest.TempPathFactory, watch: Path, patched: pytest.MonkeyPatch
) -> Iterator[Path]:
    """The folder of a Prefect server of their own, which this process speaks to."""
    home = tmp_path_factory.mktemp("canaries") / "prefect"
    patched.setattr("infra.prefect_server._PATIENCE_S", 600.0)  # a machine that does much else is slow
    server = start_prefect(home)
    wanted = prefect_environment(server.api_url, home).items()
    known = {getattr(prefect.settings, name): value for name, value in wanted if name != "DO_NOT_TRACK"}
    with temporary_settings(known):
        yield home
        _send_last_words()
    stop(server.pid_file)


def founded(
    run: Path, base: Path, env: Environment, watch: Path, prefect_home: Path, *overrides: str
) -> Federation:
    """The federation of a cohort that lies in ``run``, still without marks."""
    shutil.copytree(base, run / "base")
    (run / "params.json").write_bytes(json_bytes(tiny_params(*overrides).model_dump(mode="json")))
    with pytest.MonkeyPatch.context() as patch:
        use_store(patch, env)
        ws = found(open_workspace(run))
    return Federation(ws, env, watch, prefect_home, {})


@pytest.fixture(scope="module")
def federation(
    tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server, watch: Path, prefect_home: Path
) -> Federation:
    """Three hospitals full of marks, founded; what they send travels in the clear."""
    home = tmp_path_factory.mktemp("marked")
    data, run = write_hospitals(home), home / "run"
    prepare(data, "acdc", "folder", run / "cohort", tiny_params())
    env = s3_server.environment(bucket="canaries")
    made = founded(run, template(tmp_path_factory) / "base", env, watch, prefect_home)
    return replace(made, marks=marks(data, run / "cohort"))


@pytest.fixture(scope="module")
def imported(
    tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server, watch: Path, prefect_home: Path
) -> Federation:
    """Three hospitals that have imported marked DICOM archives; what they send is encrypted."""
    home = tmp_path_factory.mktemp("imported")
    exports, run = write_archives(home), home / "run"
    prepare(bring_in(exports), "imported", "folder", run / "cohort", tiny_params())
    env = s3_server.environment(bucket="archives")
    base = template(tmp_path_factory) / "base"
    made = founded(run, base, env, watch, prefect_home, "privacy.encrypt=true")
    return replace(made, marks=marks_of(exports) | marks_of_cohort(run / "cohort"))


@pytest.fixture(scope="module")
def played(federation: Federation) -> list[str]:
    """Data that cannot be read; errors that nobody foresaw, full of marks; the same round again, all well."""
    return [
        federation.play(1, lakeside="OSError"),
        federation.play(2, st_anna="RuntimeError", lakeside="RuntimeError"),
        federation.play(2),
    ]


def test_rounds_with_failures_leave_nothing_of_a_patient_outside_the_hospitals(
    federation: Federation, played: list[str]
) -> None:
    assert played == ["Degraded", "Failed", "Completed"]
    told_at_home = (federation.ws.root / ERRORS_FILE).read_text()
    assert "RuntimeError: " + TRACE in told_at_home and told_at_home.count(WORDS["patient"]) >= 3
    assert federation.leaks() == []


@pytest.fixture(scope="module")
def played_imported(imported: Federation, played: list[str]) -> list[str]:
    """An error at one hospital and then at two that nobody foresaw, full of marks."""
    return [
        imported.play(1, hillcrest="RuntimeError"),
        imported.play(2, hillcrest="RuntimeError", lakeside="RuntimeError"),
    ]


def test_hospitals_that_import_dicom_and_encrypt_leave_nothing_of_a_patient_outside(
    imported: Federation, played_imported: list[str]
) -> None:
    assert played_imported == ["Degraded", "Failed"]
    assert WORDS["patient"] in (imported.ws.root / ERRORS_FILE).read_text()
    opened = dict(opened_at_hub(imported.ws.store))
    sent = [adapter_key(site, 1) for site in ("lakeside", "st-anna")]
    assert all(is_sealed(imported.ws.store.get(key)) for key in sent)
    assert not any(is_sealed(opened[f"opened {key}"]) for key in sent)
    assert imported.leaks() == []


def test_a_dicom_file_in_the_store_is_found_by_every_tag(
    imported: Federation, played_imported: list[str]
) -> None:
    file = next((imported.ws.root.parent / WORDS["folder of all data"]).rglob("*.dcm"))
    imported.ws.store.put("sites/lakeside/leak", gzip.compress(file.read_bytes()))
    leaks = find_marks(imported.marks, in_store(imported.ws.store))
    assert {line.rpartition(" in ")[2] for line in leaks} == {"s3 sites/lakeside/leak"}
    assert {f"{word} in s3 sites/lakeside/leak" for word in TAG_WORDS} <= set(leaks)


def test_pixels_inside_an_encrypted_update_are_found(
    imported: Federation, played_imported: list[str]
) -> None:
    with np.load(imported.ws.data_home("lakeside") / "train.npz") as stored:
        hidden = wrap(imported.ws.store, stored["images"][0].tobytes(), [HUB])
    imported.ws.store.put(adapter_key("lakeside", 9), hidden)
    leaks = find_marks(imported.marks, opened_at_hub(imported.ws.store))
    where = f"opened {adapter_key('lakeside', 9)}"
    assert leaks and {line.rpartition(" in ")[2] for line in leaks} == {where}


def test_nothing_of_the_federation_asks_anybody_outside_this_machine(
    federation: Federation, played_imported: list[str]
) -> None:
    assert not (federation.watch / "out.log").exists()


def test_no_component_reads_a_pickle_that_names_anything(
    federation: Federation, played_imported: list[str]
) -> None:
    """Prefect and DVC included: whatever is not plain data has to be looked up by name."""
    assert not (federation.watch / "pickle.log").exists()


def test_who_would_ask_somebody_outside_is_refused_and_noted(watch: Path) -> None:
    said = []
    for code in ("s.connect(('192.0.2.1', 443))", "socket.getaddrinfo('telemetry.invalid', 443)"):
        command = [sys.executable, "-c", f"import socket; s = socket.socket(); {code}"]
        said.append(subprocess.run(command, capture_output=True, text=True, check=False).stderr)
    assert all("PermissionError" in text for text in said)
    noted = (watch / "out.log").read_text()
    (watch / "out.log").unlink()
    assert "192.0.2.1" in noted and "telemetry.invalid" in noted


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_a_piece_of_an_image_is_found_however_it_is_wrapped(federation: Federation, wrapping: str) -> None:
    with np.load(federation.ws.data_home("lakeside") / "train.npz") as stored:
        image = stored["images"][0]
    leaked = find_marks(federation.marks, [("record", WRAPPINGS[wrapping](image))])
    assert any(line.startswith("slice lakeside train") for line in leaked)


def test_a_leak_of_pixels_into_the_store_is_found(federation: Federation, played: list[str]) -> None:
    with np.load(federation.ws.data_home("lakeside") / "train.npz") as stored:
        federation.ws.store.put("sites/lakeside/leak.json", json.dumps(stored["images"][0].tolist()).encode())
    leaks = find_marks(federation.marks, in_store(federation.ws.store))
    assert {line.rpartition(" in ")[2] for line in leaks} == {"s3 sites/lakeside/leak.json"}


def test_without_the_veil_over_errors_patients_stand_in_prefects_database(
    federation: Federation, played: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phases, "concealed", nullcontext)
    federation.play(3, lakeside="RuntimeError")
    _send_last_words()
    time.sleep(1.0)
    leaks = find_marks(federation.marks, in_database(federation.database))
    for name in ("trace", "patient"):
        assert any(line.startswith(f"word: {name} in database") for line in leaks)
