"""A hospital's engineer predicts, compares and chooses in the hospital's own folder; steps come encrypted."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from doctor_files import SITE
from federation_files import SITES
from home_files import Homes, homes
from predict_files import write_cine
from typer.testing import CliRunner

from flows.cli import app
from model.errors import ConfigError, DecryptionError
from tasks.homes import HUB, read_home
from tasks.ledger import merged_key, put_record, released_key
from tasks.pretrain import need_base
from tasks.records import Close, model_sha256
from tasks.release.records import Released
from tasks.sealed_box import is_sealed
from tasks.store import Store

__all__ = ["homes"]


@pytest.fixture
def cine(tmp_path: Path) -> Path:
    return write_cine(tmp_path / "cine.nii.gz")


def cardiofed(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(part) for part in arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def predict(homes: Homes, source: Path, out: Path, *options: str) -> tuple[str, dict[str, object]]:
    said = cardiofed(
        "predict", source, "--out", out, "--home", homes.root / SITE, "--ed", 0, "--es", 2, *options
    )
    return said, json.loads((out / "results.json").read_text())["model"]


def released(homes: Homes, close: Close, number: int, release: str) -> None:
    """The hub's word that a round's model is in the channel."""
    hub = homes.enter(HUB)
    fact = Released(
        number=number,
        action="release",
        channel="clinical",
        release=release,
        round=close.round,
        model_sha256=model_sha256(need_base(hub.base_home), close.steps),
        steps=close.steps,
        before=None,
        compared_with="base as shipped",
        undecided=0,
        approved_by="Dr. A. Example",
        card_sha256="0" * 64,
        at=datetime(2026, 1, 2, tzinfo=UTC),
    )
    put_record(hub.store, released_key(), fact)


def unplug(folder: Path) -> None:
    """The hospital's line is dead."""
    home = read_home(folder).model_copy(update={"s3_endpoint": "http://127.0.0.1:9"})
    (folder / "home.json").write_text(home.model_dump_json())


def test_a_hospital_predicts_in_its_folder_with_a_step_that_travelled_encrypted(
    homes: Homes, store: Store, cine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = homes.play_round(1)
    assert is_sealed(store.get(merged_key(1)))
    said, model = predict(homes, cine, tmp_path / "out")
    base = need_base(homes.root / HUB / "base")
    assert model["model_sha256"] == model_sha256(base, close.steps) != model_sha256(base, ())
    assert "model: global, round 1 (not released); the default; " in said
    assert "no personal adapter" not in said and "no hospital is named" not in said
    monkeypatch.chdir(homes.root / SITE)
    cardiofed("predict", cine, "--out", tmp_path / "there", "--ed", 0, "--es", 2)
    masks = [(tmp_path / folder / "mask.nii.gz").read_bytes() for folder in ("out", "there")]
    assert masks[0] == masks[1]


@pytest.mark.slow
def test_a_hospital_compares_and_chooses_in_its_folder_and_predict_follows_without_a_line(
    homes: Homes, cine: Path, tmp_path: Path
) -> None:
    homes.play_round(1)
    compared = cardiofed("site", "compare", "--home", homes.root / SITE)
    assert "personal" in compared and "predict uses the global model, round 1 (not released)" in compared
    assert "predict uses the personal model of round 1" in cardiofed(
        "site", "use", "personal", "--home", homes.root / SITE
    )
    unplug(homes.root / SITE)
    said, model = predict(homes, cine, tmp_path / "out")
    assert f"model: personal of {SITE}, round 1 (not released); the site's choice of " in said
    assert model["personal_sha256"]


@pytest.mark.slow
def test_the_clinical_channel_holds_back_later_rounds_until_it_moves(
    homes: Homes, cine: Path, tmp_path: Path
) -> None:
    first, second = homes.play_round(1), homes.play_round(2)
    assert predict(homes, cine, tmp_path / "last")[1]["round"] == 2
    released(homes, first, 1, "v1.0.0")
    said, model = predict(homes, cine, tmp_path / "released")
    assert (model["round"], model["channel"]) == (1, "clinical v1.0.0")
    assert "model: global, clinical v1.0.0 (round 1); the default; " in said
    said, model = predict(homes, cine, tmp_path / "asked", "--round", "2")
    assert (model["round"], model["channel"]) == (2, "")
    assert "the clinical channel holds another model: v1.0.0, of round 1" in said
    released(homes, second, 2, "v1.1.0")
    assert predict(homes, cine, tmp_path / "moved")[1]["channel"] == "clinical v1.1.0"
    unplug(homes.root / SITE)
    assert predict(homes, cine, tmp_path / "offline")[1]["channel"] == "clinical v1.1.0"


def test_another_hospitals_name_or_an_empty_folder_is_refused(
    homes: Homes, cine: Path, tmp_path: Path
) -> None:
    common = ["predict", str(cine), "--out", str(tmp_path / "out")]
    for options, said in (
        (["--home", str(homes.root / SITE), "--site", SITES[1]], "not of"),
        (["--home", str(tmp_path)], "cannot be read"),
    ):
        error = CliRunner().invoke(app, [*common, *options]).exception
        assert isinstance(error, ConfigError) and said in error.what


@pytest.mark.slow
def test_a_hospital_with_another_key_opens_no_step(homes: Homes, cine: Path, tmp_path: Path) -> None:
    homes.play_round(1)
    other, ours = homes.root / SITES[1], homes.root / SITE
    (ours / "age.key").write_bytes((other / "age.key").read_bytes())
    for kept in (ours / "sites" / SITE / "cache").glob("*"):
        kept.unlink()
    command = ["predict", str(cine), "--out", str(tmp_path / "out"), "--home", str(ours)]
    assert isinstance(CliRunner().invoke(app, command).exception, DecryptionError)
    assert not (tmp_path / "out").exists()
