"""A schedule that cannot be read is refused before anything is made for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows import stages
from flows.live import bring_up
from flows.schedule import check_cron
from flows.stages import Source
from model.errors import ConfigError
from tasks.settings import load_params

PARAMS_FILE = Path(__file__).resolve().parent.parent / "params.yaml"


@pytest.mark.parametrize("cron", ["* * * * *", "0 2 * * *", "*/15 8-18 * * MON-FRI"])
def test_five_fields_are_a_schedule(cron: str) -> None:
    check_cron(cron)


@pytest.mark.parametrize("cron", ["nightly", "0 2 * *", "61 * * * *", "0 0 30 2 *", "0 2 * * * *", " "])
def test_what_is_none_is_refused_with_an_example(cron: str) -> None:
    with pytest.raises(ConfigError, match="is no cron schedule") as refused:
        check_cron(cron)
    assert "0 2 * * *" in refused.value.mend


def test_up_refuses_it_first_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "claim", lambda *_: pytest.fail("something was made"))
    source = Source(tmp_path, "acdc", "folder")
    with pytest.raises(ConfigError, match="'hourly' is no cron schedule"):
        bring_up(tmp_path / "run", load_params(PARAMS_FILE, ()), source, print, cron="hourly")
    assert not (tmp_path / "run").exists()
