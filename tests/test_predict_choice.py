"""A site compares base, global and personal model, chooses one, and predict uses that very one from then on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from federation_files import tiny_params, write_hospitals
from predict_files import SITE, write_run
from typer.testing import CliRunner

from flows.cli import app
from model.errors import ConfigError, IntegrityError, ObjectMissingError, UnreadableError
from tasks.events import count_events
from tasks.personal_passport import personal_file
from tasks.predict.choice import choice_in_force, compare_models, use_model
from tasks.predict.choose import model_for
from tasks.predict.ready import ready_model
from tasks.predict.shelf import Shelf
from tasks.prepare import prepare


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a closed round and a site with test cases; made once, and written to by every test."""
    root = tmp_path_factory.mktemp("choice")
    write_run(root / "runs" / "demo")
    prepare(
        write_hospitals(root / "data"), "acdc", "folder", root / "runs" / "demo" / "cohort", tiny_params()
    )
    return root / "runs"


@pytest.fixture
def shelf(prepared: Path, tmp_path: Path) -> Shelf:
    """The same data, with choices and models of the test's own."""
    ws = write_run(tmp_path / "run")
    (tmp_path / "run" / "cohort" / SITE).rmdir()
    (tmp_path / "run" / "cohort" / SITE).symlink_to(prepared / "demo" / "cohort" / SITE)
    return Shelf(ws, SITE, live=False)


def test_a_choice_holds_time_numbers_and_hashes_and_predict_follows_it(shelf: Shelf) -> None:
    assert choice_in_force(shelf) is None and model_for(shelf, None, None)[0].name == "global"
    choice = use_model(shelf, "personal")
    assert set(choice.numbers.models) == {"base", "global", "personal"} and choice.numbers.patients == 1
    assert choice.numbers.models["personal"].personal_sha256 == choice.personal_sha256
    assert all(0 <= value <= 1 for value in choice.numbers.models["base"].dice.values() if value is not None)
    assert choice_in_force(shelf) == choice and choice.chosen.tzinfo
    model, why = model_for(shelf, None, None)
    assert (model.name, model.personal_sha256) == ("personal", choice.personal_sha256)
    assert why.startswith("the site's choice of ")
    assert model_for(shelf, "base", None)[0].name == "base", "what is asked for goes first"
    assert count_events(shelf.home, "use personal") == 1


def test_the_last_choice_counts_and_the_earlier_ones_are_kept(shelf: Shelf) -> None:
    first = use_model(shelf, "personal")
    second = use_model(shelf, "base")
    assert second.numbers == first.numbers, "the same models are not measured again"
    assert model_for(shelf, None, None)[0].name == "base"
    assert len(list((shelf.home / "choices").iterdir())) == 2


def test_another_personal_adapter_than_the_chosen_one_is_refused(shelf: Shelf) -> None:
    use_model(shelf, "personal")
    path = personal_file(shelf.home, 1).with_suffix(".json")
    passport = json.loads(path.read_text())
    passport["adapter_sha256"] = "0" * 64
    path.write_text(json.dumps(passport))
    with pytest.raises(IntegrityError):
        model_for(shelf, None, None)
    path.unlink()
    personal_file(shelf.home, 1).unlink()
    with pytest.raises(ObjectMissingError):
        model_for(shelf, None, None)


def test_a_damaged_choice_is_refused_not_passed_over(shelf: Shelf) -> None:
    use_model(shelf, "global")
    (shelf.home / "choices" / "0001.json").write_text("{}")
    with pytest.raises(UnreadableError):
        model_for(shelf, None, None)


def test_without_a_personal_adapter_two_models_are_compared(shelf: Shelf) -> None:
    personal_file(shelf.home, 1).unlink()
    assert set(compare_models(shelf).models) == {"base", "global"}
    with pytest.raises(ObjectMissingError):
        use_model(shelf, "personal")
    with pytest.raises(ConfigError):
        compare_models(replace(shelf, site=""))
    assert ready_model(shelf, "global").name == "global"


def test_the_commands_show_the_numbers_and_the_choice(prepared: Path) -> None:
    common = ["--runs", str(prepared), "--site", SITE]
    said = CliRunner().invoke(app, ["site", "compare", *common], catch_exceptions=False).output
    assert "personal" in said and "none is chosen" in said and "used them up" in said
    said = CliRunner().invoke(app, ["site", "use", "personal", *common], catch_exceptions=False).output
    assert "predict uses the personal model of round 1" in said.replace("\n", " ")
    assert isinstance(CliRunner().invoke(app, ["site", "use", "best", *common]).exception, ConfigError)
