"""What a user meets at the command line when something is wrong: three lines, an exit code, no traceback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from federation_files import PARAMS_FILE, new_run, tiny_params, use_store, write_hospitals
from phantom_files import write_patient
from pydantic import SecretStr

from flows.cli import main
from flows.only_one import only_one
from infra.ports import HOST
from infra.process import PID_FILE, recorded
from model.errors import ConfigError
from tasks.dataset_md5 import dataset_md5
from tasks.settings import Environment

COMMAND = Path(sys.executable).parent / "cardiofed"
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs a command in a project folder with tiny settings; returns exit code and all it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tiny_params().model_dump(mode="json")))
    before = dict(os.environ)

    def ran(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["cardiofed", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        code = ended.value.code
        return (code if isinstance(code, int) else 0), printed.out + printed.err

    yield ran
    os.environ.clear()
    os.environ.update(before)


def is_an_error_of_three_parts(said: str) -> bool:
    """``error: …``, ``where: …`` and ``mend: …``, each at the start of a line, and no traceback."""
    lines = said[said.index("error: ") :].splitlines()
    heads = [line.split(":")[0] for line in lines if not line.startswith("    ")]
    return heads == ["error", "  where", "  mend"] and "Traceback" not in said


def test_an_unknown_setting_ends_in_three_parts_and_code_2(run: Run) -> None:
    code, said = run("demo", "--set", "training.stepz=3")
    assert code == 2
    assert is_an_error_of_three_parts(said)
    assert "training.stepz: unknown setting" in said


def test_all_faulty_settings_are_named_at_once(run: Run) -> None:
    code, said = run("demo", "--set", "training.steps=none", "--set", "federation.quorum=1", "--set", "a.b=1")
    assert code == 2
    assert all(name in said for name in ("training.steps", "federation.quorum", "a"))


def test_an_override_without_equals_sign_says_how_to_write_it(run: Run) -> None:
    code, said = run("demo", "--set", "training.steps")
    assert code == 2
    assert is_an_error_of_three_parts(said)
    assert "write it as section.key=value" in said


@pytest.mark.parametrize("name", ["../up", "a/b", "", "Ä", "x" * 41, "-dash"])
@pytest.mark.parametrize("command", ["demo", "down"])
def test_a_run_name_that_is_no_plain_name_is_refused(
    run: Run, tmp_path: Path, command: str, name: str
) -> None:
    code, said = run(command, f"--run={name}")
    assert code == 2
    assert is_an_error_of_three_parts(said)
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_a_project_folder_without_settings_says_where_to_run(run: Run, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").unlink()
    code, said = run("demo")
    assert code == 2
    assert "run from the project's folder" in said


def test_a_missing_data_folder_ends_in_code_3(run: Run) -> None:
    code, said = run("demo", "--data", "nowhere")
    assert code == 3
    assert is_an_error_of_three_parts(said)
    assert "nowhere" in said


def test_a_site_with_fewer_than_three_patients_is_named_with_its_count(run: Run, tmp_path: Path) -> None:
    for number in (1, 2):
        write_patient(tmp_path / "cine" / "st-anna" / f"patient{number:03d}", seed=number)
    code, said = run("demo", "--data", "cine")
    assert code == 3
    assert is_an_error_of_three_parts(said)
    assert "st-anna has 2" in said


def test_a_data_set_that_cannot_be_used_leaves_the_cohort_that_was_there(
    run: Run, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    new_run(tmp_path_factory, tmp_path / "runs" / "demo")
    code, _ = run("demo", "--data", "nowhere")
    assert code == 3
    assert len(list((tmp_path / "runs" / "demo" / "cohort").glob("*/card.json"))) == 3


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def root(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run whose cohort and base are ready."""
    return str(new_run(tmp_path_factory, tmp_path / "runs" / "demo").root)


def test_a_store_that_does_not_answer_ends_in_code_4(
    run: Run, root: str, s3_environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = f"http://{HOST}:{free_port()}"
    use_store(monkeypatch, s3_environment.model_copy(update={"s3_endpoint": nobody}))
    code, said = run("stage", "federate", "--root", root)
    assert code == 4
    assert is_an_error_of_three_parts(said)
    assert nobody in said


def test_wrong_credentials_end_in_code_4_and_are_not_shown(
    run: Run, root: str, s3_environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = s3_environment.model_copy(update={"s3_secret_key": SecretStr("not-the-secret")})
    use_store(monkeypatch, wrong)
    code, said = run("stage", "federate", "--root", root)
    assert code == 4
    assert is_an_error_of_three_parts(said)
    assert "CARDIOFED_S3_SECRET_KEY" in said and "not-the-secret" not in said


def test_a_store_without_credentials_ends_in_code_2_and_names_what_is_missing(
    run: Run, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARDIOFED_S3_ENDPOINT", f"http://{HOST}:{free_port()}")
    for name in ("ACCESS", "SECRET"):  # a machine that this process was before
        monkeypatch.delenv(f"CARDIOFED_S3_{name}_KEY", raising=False)
    code, said = run("stage", "federate", "--root", root)
    assert code == 2
    assert "s3_access_key" in said and "s3_secret_key" in said


def test_a_taken_port_ends_in_code_7_and_leaves_no_server(run: Run, tmp_path: Path) -> None:
    data = write_hospitals(tmp_path / "cine")
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        source = ("--data", str(data), "--public", str(data), "--set", "pretrain.steps=1")
        code, said = run("demo", *source, "--s3-port", str(port))
    assert code == 7
    assert is_an_error_of_three_parts(said)
    assert f"port {port} is taken" in said
    assert recorded(tmp_path / "runs" / "demo" / "store" / PID_FILE) is None


def test_the_same_name_with_other_settings_is_refused_before_anything_is_touched(
    run: Run, root: str, tmp_path: Path
) -> None:
    home = Path(root)
    (home / "run.json").write_bytes(b"of a run with other settings")
    assert (home / "cohort").exists()
    (home / "lock").touch()
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    code, said = run("demo", "--data", "nowhere", "--set", "seed=2")
    assert code == 2
    assert is_an_error_of_three_parts(said)
    assert "--run" in said
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before


def test_the_same_name_with_other_data_is_refused(
    run: Run, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    quick = "pretrain.steps=1"
    (new_run(tmp_path_factory, tmp_path / "runs" / "demo", quick).root / "identity").write_bytes(b"of others")
    data = write_hospitals(tmp_path / "cine")
    code, said = run("demo", "--data", str(data), "--public", str(data), "--set", quick)
    assert code == 2
    assert "other settings or data" in said


def test_data_that_changed_under_a_started_federation_is_refused_and_the_old_cohort_stays(
    run: Run, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    quick = "pretrain.steps=1"
    home = new_run(tmp_path_factory, tmp_path / "runs" / "demo", quick).root
    (home / "identity").write_bytes(b"of a federation on the cohort as it is")
    before = {path: path.read_bytes() for path in (home / "cohort").rglob("*") if path.is_file()}
    data = write_hospitals(tmp_path / "cine")
    info = next(data.rglob("Info.cfg"))
    info.write_text(info.read_text() + "Weight: 80\n")
    code, said = run("demo", "--data", str(data), "--set", quick)
    assert code == 2
    assert "other settings or data" in said
    assert {path: path.read_bytes() for path in (home / "cohort").rglob("*") if path.is_file()} == before
    assert not (home / ".cohort.new").exists()


def test_a_mistyped_folder_does_not_use_up_the_name(run: Run, tmp_path: Path) -> None:
    assert run("demo", "--data", "nowhere")[0] == 3
    code, said = run("demo", "--data", "nowhere-else")
    assert code == 3, said


def test_a_second_process_on_the_same_run_is_refused(run: Run, root: str) -> None:
    with only_one(Path(root)):
        code, said = run("demo", "--data", "nowhere")
    assert code == 2
    assert "another process works in this folder" in said


def test_a_report_of_a_run_that_does_not_exist_is_refused(run: Run, tmp_path: Path) -> None:
    code, said = run("stage", "report", "--root", str(tmp_path / "typo"))
    assert code == 2
    assert is_an_error_of_three_parts(said)


def test_debug_raises_the_error_itself(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["cardiofed", "--debug", "demo", "--set", "nothing"])
    with pytest.raises(ConfigError):
        main()


@pytest.mark.parametrize(("debug", "code", "traceback"), [([], 2, False), (["--debug"], 1, True)])
def test_the_installed_command_shows_a_traceback_only_on_request(
    debug: list[str], code: int, traceback: bool
) -> None:
    command = [str(COMMAND), *debug, "demo", "--set", "nothing"]
    done = subprocess.run(command, cwd=PARAMS_FILE.parent, capture_output=True, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (code, traceback)
    assert done.stdout == ""


def test_down_with_nothing_running_says_so(run: Run) -> None:
    code, said = run("down")
    assert (code, said.strip()) == (0, "nothing was running")


def test_data_that_was_altered_ends_in_code_3(run: Run, tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_patient(data / "st-anna" / "patient001", seed=1)
    md5 = dataset_md5((path for path in data.rglob("*") if path.is_file()), data)
    (tmp_path / "data.dvc").write_text(yaml.safe_dump({"outs": [{"md5": md5, "path": "data"}]}))
    code, said = run("data", "verify")
    assert code == 0 and md5 in said
    altered = next(data.rglob("*frame01.nii.gz"))
    altered.write_bytes(altered.read_bytes() + b"\x00")
    code, said = run("data", "verify")
    assert code == 3
    assert is_an_error_of_three_parts(said)
    shutil.rmtree(data / "st-anna")
    assert run("data", "verify")[0] == 3


def test_data_without_a_pin_ends_in_code_3(run: Run, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    code, said = run("data", "verify")
    assert code == 3
    assert "no md5 is pinned" in said
