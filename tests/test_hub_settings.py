"""Settings of a federation that has begun: rounds to come take them, an open round and the model do not."""

from __future__ import annotations

import pytest
from doctor_files import Federation, federation
from typer.testing import CliRunner

from flows import stages
from flows.cli import app
from flows.hub_settings import change_settings
from model.errors import ConfigError, RoundError
from tasks.close import close_failed
from tasks.homes import enter_home
from tasks.open import open_round
from tasks.settings import lay_over

__all__ = ["federation"]


def test_a_setting_changes_with_the_next_round_and_an_open_round_keeps_its_own(
    federation: Federation,
) -> None:
    opened = open_round(federation.gather(), 1)
    said = ["hub", "set", "merge.mode=average", "federation.deadlines={st-anna: 90}"]
    done = CliRunner().invoke(app, [*said, "--home", str(federation.hub)])
    assert done.exit_code == 0, done.output
    ws = federation.gather()
    assert open_round(ws, 1) == opened
    close_failed(ws, 1, RoundError("nobody came"))
    params = open_round(ws, 2).params
    assert (opened.params.merge.mode, params.merge.mode) == ("rated", "average")
    assert params.federation.deadlines == {"st-anna": 90}


@pytest.mark.parametrize("setting", ["lora.rank_max=2", "network.channels=[8,8]", "seed=9"])
def test_what_the_model_stands_on_cannot_change(federation: Federation, setting: str) -> None:
    before, _ = enter_home(federation.hub)
    section = setting.partition("=")[0].partition(".")[0]
    with pytest.raises(ConfigError, match=f"'{section}' cannot change any more") as refused:
        change_settings(federation.hub, ("merge.mode=average", setting))
    assert "federation, training" in refused.value.mend
    assert enter_home(federation.hub)[0].params == before.params


def test_a_setting_that_is_none_is_refused(federation: Federation) -> None:
    with pytest.raises(ConfigError, match=r"merge\.mood: unknown setting"):
        change_settings(federation.hub, ("merge.mood=good",))


def test_a_hub_keeps_its_base_whatever_the_release_or_the_settings_of_rounds(federation: Federation) -> None:
    params = enter_home(federation.hub)[0].params
    assert stages.has_base(federation.hub, lay_over(params, ("training.steps=5",)))
    assert not stages.has_base(federation.hub, lay_over(params, ("pretrain.steps=5",)))
    (federation.hub / "base" / "base.json").unlink()
    assert not stages.has_base(federation.hub, params)
