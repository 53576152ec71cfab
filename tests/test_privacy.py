"""What an error says outside a site holds no path, no file name, no patient and no value."""

from __future__ import annotations

import inspect
import logging
from pathlib import Path

import pytest
from federation_files import found, new_run, trained, use_store

from model import errors
from model.errors import CardiofedError, DataError, DiskError, UnreadableError
from tasks.privacy import concealed
from tasks.settings import Environment
from tasks.train import train_site

SECRET = "/hospital/cine/DOE_JOHN_19610203.nii.gz"
CLASSES = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, CardiofedError) and kind.__module__ == errors.__name__
]
LOCAL = [kind for kind in CLASSES if issubclass(kind, DataError | DiskError)]
SHARED = [kind for kind in CLASSES if kind not in LOCAL]


@pytest.mark.parametrize("kind", LOCAL)
def test_errors_about_local_files_keep_their_kind_and_lose_their_words(
    kind: type[CardiofedError], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(kind) as said, concealed():
        raise kind(f"{SECRET} is torn", SECRET, f"rename {SECRET}")
    assert type(said.value) is kind
    assert "DOE" not in str(said.value) and "/" not in str(said.value)
    assert said.value.__suppress_context__
    assert SECRET in caplog.text  # at the site itself it is said in full


@pytest.mark.parametrize("kind", SHARED)
def test_errors_about_shared_things_pass_as_they_are(kind: type[CardiofedError]) -> None:
    with pytest.raises(kind, match="quorum missed") as said, concealed():
        raise kind("quorum missed", "round 7", "wait")
    assert (said.value.where, said.value.mend) == ("round 7", "wait")


@pytest.mark.parametrize(
    "error", [FileNotFoundError(2, "No such file", SECRET), ValueError(SECRET), KeyError(SECRET)]
)
def test_an_unforeseen_error_is_named_and_nothing_else(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(CardiofedError) as said, concealed():
        raise error
    assert said.value.what == f"unforeseen {type(error).__name__}"
    assert "DOE" not in str(said.value)
    assert "DOE" in caplog.text


def test_the_sites_own_log_is_not_among_those_that_prefect_sends() -> None:
    names = logging.getLogger("cardiofed.site").name.split(".")
    assert names[0] != "prefect"


def test_a_site_with_a_broken_cache_says_so_without_its_path(
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    s3_environment: Environment,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_store(monkeypatch, s3_environment)
    ws = found(new_run(tmp_path_factory, tmp_path / "run"))
    trained(ws, 1, ())
    (ws.data_home("st-anna") / "train.npz").write_bytes(b"torn")
    with pytest.raises(UnreadableError) as said, concealed():
        train_site(ws, 1, "st-anna")
    assert str(tmp_path) not in str(said.value)
    assert "train.npz" not in str(said.value)
