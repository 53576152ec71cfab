"""Settings: every fault at once, nothing unknown, nothing out of bounds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from model.errors import ConfigError
from model.network import build_net
from tasks.settings import Params, load_environment, load_params

PARAMS = Path(__file__).parent.parent / "params.yaml"


def _refused(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_params(PARAMS, overrides)
    assert caught.value.mend
    return str(caught.value)


def test_the_projects_own_settings_are_in_order() -> None:
    params = load_params(PARAMS)
    assert params.merge.mode == "rated"
    assert params.network.channels == (16, 32, 64, 128, 256)


def test_settings_cannot_be_changed_once_read() -> None:
    params = load_params(PARAMS)
    with pytest.raises(ValidationError, match="frozen"):
        params.merge.clip = 9.0  # type: ignore[misc]


def unsaid(fields: dict[str, FieldInfo], above: str = "") -> list[str]:
    """Settings without a description, sections gone through."""
    found = []
    for name, field in fields.items():
        inner = getattr(field.annotation, "model_fields", None)
        if inner:
            found += unsaid(inner, f"{above}{name}.")
        elif not field.description:
            found.append(above + name)
    return found


def test_every_setting_says_what_it_is() -> None:
    assert unsaid(Params.model_fields) == []


def test_overrides_lie_over_the_file() -> None:
    params = load_params(
        PARAMS, ("federation.rounds=10", "merge.mode=shadow", "network.channels=[8, 16]", " seed = 7")
    )
    assert (params.federation.rounds, params.merge.mode, params.seed) == (10, "shadow", 7)
    assert params.network.channels == (8, 16)
    assert params.federation.quorum == load_params(PARAMS).federation.quorum


def test_the_last_override_of_a_setting_counts() -> None:
    assert load_params(PARAMS, ("seed=7", "seed=8")).seed == 8


def test_all_faults_are_named_at_once() -> None:
    said = _refused("federation.quorum=1", "merge.mode=best", "data.crop=large", "lora.colour=red")
    assert said.startswith("4 faulty settings")
    for name in ("federation.quorum", "merge.mode", "data.crop", "lora.colour: unknown setting"):
        assert name in said


@pytest.mark.parametrize("key", ["colour", "merge.colour", "merge.mode_", "optimizer.name", "1"])
def test_an_unknown_setting_is_refused(key: str) -> None:
    unknown = key if key.startswith("merge") else key.split(".")[0]
    assert f"{unknown}: unknown setting" in _refused(f"{key}=1")


@pytest.mark.parametrize(
    "override",
    [
        "seed=-1",
        "data.spacing_mm=0",
        "data.crop=100",
        "data.test=1",
        "pretrain.learning_rate=2",
        "federation.rounds=0",
        "federation.rounds=2.5",
        "lora.rank_max=0",
        "lora.rank_rule=cubic",
        "lora.trained_levels=7",
        "package.dtype=int2",
        "package.upload_bytes=-1",
        "package.energy=0",
        "package.feedback=2",
        "merge.late_discount=1.5",
        "merge.late_rounds=-1",
        "rating.strictness=-1",
        "merge.clip=0",
        "judge.tolerance=1",
        "adapt.epochs=0",
        "network.channels=[8]",
        "network.channels=[8, 0]",
        "merge=",
    ],
)
def test_a_setting_out_of_bounds_is_refused_by_name(override: str) -> None:
    assert override.split("=")[0] in _refused(override)


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf"])
@pytest.mark.parametrize("key", ["rating.strictness", "merge.clip", "training.weight_decay"])
def test_a_setting_that_is_no_number_is_refused(key: str, value: str) -> None:
    assert key in _refused(f"{key}={value}")


def test_ranks_in_the_wrong_order_are_refused() -> None:
    assert "rank_min 9 is above rank_max 8" in _refused("lora.rank_min=9", "lora.rank_max=8")


def test_a_split_that_leaves_no_training_cases_is_refused() -> None:
    assert "validation + test" in _refused("data.validation=0.5", "data.test=0.4")


def test_a_crop_that_the_network_cannot_halve_is_refused() -> None:
    said = _refused("network.channels=[4, 4, 4, 4, 4, 4]", "data.crop=80")
    assert "multiple of 32" in said
    assert "at least 64" in _refused("network.channels=[4, 4, 4, 4, 4, 4]", "data.crop=32")


def test_the_smallest_crop_that_is_accepted_passes_through_the_network_in_training() -> None:
    params = load_params(PARAMS, ("network.channels=[2, 2, 2, 2, 2, 2]", "data.crop=64"))
    net = build_net(params.network.channels).train()
    size = params.data.crop
    assert net(torch.zeros(1, 1, size, size)).shape[2:] == (size, size)


@pytest.mark.parametrize("text", ["seed", "", "merge.mode"])
def test_an_override_without_a_value_is_refused(text: str) -> None:
    assert "section.key=value" in _refused(text)


def test_an_override_that_is_not_yaml_is_refused() -> None:
    assert "'network.channels=[8, 16' is not YAML" in _refused("network.channels=[8, 16")


def test_an_override_with_a_key_twice_is_refused() -> None:
    assert "'clip' stands on line 1 and again on line 1" in _refused("merge={clip: 1, clip: 2}")


def test_an_override_below_a_value_is_refused() -> None:
    assert "'data.crop.x' goes through 'crop'" in _refused("data.crop.x=1")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"seed: [1", "not YAML"),
        (b"- 1\n- 2\n", "no mapping"),
        (b"", "no mapping"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"\x00", "not YAML"),
        (b"seed: 1\nmerge:\n  clip: 1\n'seed': 99\n", "'seed' stands on line 1 and again on line 4"),
        (b"merge:\n  clip: 1\n  mode: rated\n  clip: 2\n", "'clip' stands on line 2 and again on line 4"),
        (b"seed: 2024-99-99\n", "not YAML"),
        (b"seed: " + b"[" * 600, "not YAML"),
        (b"seed: 1\n", "12 faulty settings"),
    ],
    ids=[
        "torn",
        "list",
        "empty",
        "binary",
        "control character",
        "key twice",
        "nested key twice",
        "no date",
        "deep",
        "sections missing",
    ],
)
def test_a_file_that_is_no_settings_file_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=said) as caught:
        load_params(path)
    assert caught.value.where == str(path)


def test_a_missing_file_or_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no settings file"):
        load_params(tmp_path / "params.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_params(tmp_path)


def test_an_unknown_key_in_the_file_is_refused(tmp_path: Path) -> None:
    tree = yaml.safe_load(PARAMS.read_text())
    tree["merge"]["momentum"] = 0.9
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(ConfigError, match=r"merge\.momentum: unknown setting"):
        load_params(path)


def _environment(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name in ("S3_ENDPOINT", "S3_ACCESS_KEY", "S3_SECRET_KEY", "S3_BUCKET", "S3_REGION"):
        monkeypatch.delenv(f"CARDIOFED_{name}", raising=False)
    for name, value in values.items():
        monkeypatch.setenv(f"CARDIOFED_{name}", value)


def test_every_missing_variable_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _environment(monkeypatch, S3_ENDPOINT="http://127.0.0.1:9000")
    with pytest.raises(ConfigError) as caught:
        load_environment()
    assert "2 faulty settings" in caught.value.what
    assert "s3_access_key" in caught.value.what
    assert "s3_secret_key" in caught.value.what


def test_the_secret_is_in_no_text_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    _environment(monkeypatch, S3_ENDPOINT="http://s3", S3_ACCESS_KEY="me", S3_SECRET_KEY="hunter2hunter2")
    environment = load_environment()
    assert environment.s3_secret_key.get_secret_value() == "hunter2hunter2"
    assert environment.s3_bucket == "cardiofed"
    assert "hunter2" not in f"{environment} {environment!r} {environment.model_dump_json()}"
