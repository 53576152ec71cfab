"""`cardiofed doctor` finds each fault, says what to do about it, and names no file and no patient."""

from __future__ import annotations

import shutil
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from doctor_files import OTHERS, SITE, Federation, federation, findings, settle
from federation_files import objects

from flows.cli import main
from infra import s3_users
from infra.ports import HOST
from infra.s3_users import S3User
from tasks.cases import CARD_FILE, CASES_FILE
from tasks.doctor import machine
from tasks.doctor.finding import Finding, Level, named, well
from tasks.enrol import read_card
from tasks.homes import CREDENTIALS_FILE, PARAMS_FILE
from tasks.ledger import base_key, card_key, doctor_keys, get_record, put_record, versions_key
from tasks.pretrain import need_base
from tasks.versions_in_use import Versions, versions_here

__all__ = ["federation"]


def levels(found: dict[str, Finding]) -> set[Level]:
    return {finding.level for finding in found.values()}


def the_fault(found: dict[str, Finding], level: Level = "failed") -> Finding:
    """The only finding that is not ok, apart from the word on what was left out after it."""
    (fault,) = [f for f in found.values() if f.level != "ok" and f.check != "further"]
    assert fault.level == level and fault.said and fault.mend
    return fault


# --- all well


def test_a_federation_in_order_is_all_well_before_and_after_its_first_round(federation: Federation) -> None:
    assert levels(findings(federation.site)) == levels(findings(federation.hub)) == {"ok"}
    federation.gather()
    site = findings(federation.site)
    assert levels(site) == levels(findings(federation.hub)) == {"ok"}
    assert "as at the hub" in site["versions"].said and "not yet downloaded" in site["base"].said


def test_the_check_leaves_nothing_in_the_ledger_but_its_own_keys(federation: Federation) -> None:
    before = objects(federation.store)
    for _ in range(2):
        findings(federation.site)
        findings(federation.hub)
    own = {*doctor_keys(None), *doctor_keys(SITE)}
    assert objects(federation.store, skip=own.__contains__) == before


# --- the folder


@pytest.mark.parametrize(
    ("file", "torn"),
    [("home.json", False), (CREDENTIALS_FILE, True), (PARAMS_FILE, True), (PARAMS_FILE, False)],
)
def test_a_file_of_the_folder_that_is_torn_or_gone_is_named(
    federation: Federation, file: str, torn: bool
) -> None:
    path = federation.site / file
    path.write_bytes(path.read_bytes()[:20]) if torn else path.unlink()
    found = findings(federation.site)
    assert list(found) == ["folder"]
    assert file in the_fault(found).said


@pytest.mark.parametrize(("mode", "level"), [(0o644, "failed"), (0o640, "warning")])
def test_credentials_that_others_may_read_are_told(federation: Federation, mode: int, level: Level) -> None:
    (federation.site / CREDENTIALS_FILE).chmod(mode)
    assert the_fault(findings(federation.site), level).check == "secret"


# --- the machine


@pytest.mark.parametrize(("bound", "level"), [("FAILED", "failed"), ("WARNING", "warning")])
def test_little_disk_or_memory_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, level: Level
) -> None:
    for what in ("DISK", "MEMORY"):
        monkeypatch.setattr(machine, f"{what}_FAILED_GB", 0.0)
        monkeypatch.setattr(machine, f"{what}_WARNING_GB", 1e9)
        monkeypatch.setattr(machine, f"{what}_{bound}_GB", 1e9)
    assert [f.level for f in (machine.disk_space(tmp_path), machine.memory())] == [level, level]


# --- the store


def test_a_store_that_is_gone_is_said_once_and_soon(federation: Federation) -> None:
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
    gone = federation.home.model_copy(update={"s3_endpoint": f"http://{HOST}:{port}"})
    settle(federation.site, gone, S3User("a", "b"))
    started = time.monotonic()
    found = findings(federation.site)
    assert "does not answer" in the_fault(found).said and "own keys" not in found
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("wrong", ["secret", "user"])
def test_credentials_that_the_store_refuses_are_told_as_such(federation: Federation, wrong: str) -> None:
    user = S3User("nobody" if wrong == "user" else f"site-{SITE}", "wrong" * 8)
    settle(federation.site, federation.home, user)
    settle(federation.hub, federation.home.model_copy(update={"name": "hub"}), user)
    for folder in (federation.site, federation.hub):
        fault = the_fault(findings(folder))
        assert fault.check == "own keys" and "credentials" in fault.said and fault.mend


def test_a_bucket_that_is_not_there_is_told(federation: Federation) -> None:
    home = federation.home.model_copy(update={"s3_bucket": "elsewhere", "name": "hub"})
    settle(federation.hub, home, federation.root)
    assert "no bucket 'elsewhere'" in the_fault(findings(federation.hub)).said


def statement(action: str, resource: str) -> dict[str, object]:
    return {"Effect": "Allow", "Action": [action], "Resource": [f"arn:aws:s3:::{resource}"]}


@pytest.mark.parametrize(
    ("action", "where", "told"),
    [
        ("s3:PutObject", "/*", ["write global/", "write hub/", "write another site's prefix"]),
        ("s3:PutObject", f"/sites/{OTHERS[0]}/*", ["write another site's prefix"]),
        ("s3:GetObject", "/*", ["read hub/", "read another site's prefix"]),
        ("s3:ListBucket", "", ["list hub/", "list another site's prefix", "list everything"]),
    ],
)
def test_a_policy_that_is_too_wide_is_found(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, action: str, where: str, told: list[str]
) -> None:
    right = s3_users.site_policy

    def wide(site: str, bucket: str) -> dict[str, object]:
        policy = right(site, bucket)
        given = policy["Statement"]
        assert isinstance(given, list)
        return {**policy, "Statement": [*given, statement(action, bucket + where)]}

    monkeypatch.setattr(s3_users, "site_policy", wide)
    federation.user()
    fault = the_fault(findings(federation.site))
    assert fault.said == f"the policy is too wide, this site may {', '.join(told)}"
    assert f"cardiofed hub invite {SITE}" in fault.mend


def test_a_policy_that_is_too_narrow_is_found(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def narrow(site: str, bucket: str) -> dict[str, object]:
        return {"Version": "2012-10-17", "Statement": [statement("s3:GetObject", f"{bucket}/global/*")]}

    monkeypatch.setattr(s3_users, "site_policy", narrow)
    federation.user()
    said = the_fault(findings(federation.site)).said
    assert said == "the store does not let it write its prefix, read it, list it"


# --- data


def torn_image(federation: Federation, folder: Path) -> None:
    file = folder / "DOE_JOHN.nii.gz"
    file.write_bytes(Path(federation.row(0)["image"]).read_bytes()[:-200])
    federation.edit_row(0, image=str(file))


def other_mask(federation: Federation, folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    mask = nib.load(federation.row(0)["mask"])
    assert isinstance(mask, nib.Nifti1Image)
    nib.save(nib.Nifti1Image(change(np.asarray(mask.dataobj)), mask.affine), folder / "DOE_JOHN.nii.gz")
    federation.edit_row(0, mask=str(folder / "DOE_JOHN.nii.gz"))


FAULTS: dict[str, Callable[[Federation, Path], None]] = {
    "image cannot be read": torn_image,
    "image is missing": lambda f, folder: f.edit_row(0, image=str(folder / "DOE_JOHN.nii.gz")),
    "mask cannot be read": lambda f, _: f.edit_row(0, mask=str(f.site / "home.json")),
    "image has another spacing than the table": lambda f, _: f.edit_row(0, spacing_x_mm="1.1"),
    "mask has another shape or spacing": lambda f, folder: other_mask(f, folder, lambda m: m[:, :-1]),
    "mask has labels other than 0 to 3": lambda f, folder: other_mask(f, folder, lambda m: m + 1),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_case_is_told_by_its_pseudonym_and_no_file_is_named(
    federation: Federation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fault: str,
) -> None:
    before = federation.row(0)
    FAULTS[fault](federation, tmp_path)
    monkeypatch.setattr(sys, "argv", ["cardiofed", "doctor", "--home", str(federation.site)])
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit, match="1"):
        main()
    said = capsys.readouterr().out
    assert f"p001 ED {fault}" in " ".join(findings(federation.site)["images"].said.split())
    assert "1 failed" in said.splitlines()[-1] and max(map(len, said.splitlines())) <= 80
    for secret in ("DOE", ".nii", "patient0", Path(before["image"]).parent.name, str(tmp_path)):
        assert secret not in said


def test_many_faulty_cases_are_counted_and_few_are_listed(federation: Federation) -> None:
    for number in range(8):
        federation.edit_row(number, image="/nowhere")
    said = findings(federation.site)["images"].said
    assert said.startswith("8 of 8 cases: p001 ED") and said.endswith("; and 3 more")


@pytest.mark.parametrize("file", [CASES_FILE, CARD_FILE, "train.npz"])
def test_a_damaged_table_card_or_cache_is_found_without_reading_images(
    federation: Federation, file: str
) -> None:
    (federation.data / file).write_bytes(b"torn")
    found = findings(federation.site)
    assert found["case table"].level == "failed" and "images" not in found


def test_a_hospital_that_has_not_joined_is_told_to(federation: Federation) -> None:
    shutil.rmtree(federation.data)
    assert "site join" in findings(federation.site)["case table"].mend


def test_a_card_of_other_data_is_found(federation: Federation) -> None:
    other = read_card(federation.data).model_copy(update={"dataset_md5": "0" * 32})
    put_record(federation.store, card_key(SITE), other)
    assert the_fault(findings(federation.site)).check == "card"


# --- base and versions


def test_other_bytes_under_the_name_of_the_base_are_found_at_site_and_hub(federation: Federation) -> None:
    ws = federation.gather()
    federation.store.put(base_key(need_base(ws.base_home).sha256), b"another network")
    for folder in (federation.site, federation.hub):
        fault = the_fault(findings(folder))
        assert fault.check == "base" and "another file" in fault.said
        assert "round retry" in fault.mend
    federation.gather()
    assert "in the ledger" in findings(federation.site)["base"].said


def test_a_damaged_copy_of_the_base_is_a_warning_since_it_is_fetched_again(federation: Federation) -> None:
    base = need_base(federation.gather().base_home)
    copy = federation.site / "sites" / SITE / "cache" / f"{base.sha256}.safetensors"
    copy.parent.mkdir(parents=True)
    copy.write_bytes((federation.hub / "base" / copy.name).read_bytes())
    assert "and here" in findings(federation.site)["base"].said
    copy.write_bytes(b"torn")
    assert the_fault(findings(federation.site), "warning").check == "base"


def test_a_hub_whose_base_is_not_that_of_its_record_must_not_publish_it(federation: Federation) -> None:
    (file,) = (federation.hub / "base").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    assert the_fault(findings(federation.hub)).said == "its file has other bytes than base.json says"
    file.unlink()
    assert the_fault(findings(federation.hub)).check == "base"


def test_the_hub_tells_its_versions_when_it_gathers(federation: Federation) -> None:
    federation.gather()
    assert get_record(federation.store, versions_key(), Versions) == versions_here()


@pytest.mark.parametrize(
    ("hub", "level"),
    [
        ({"cardiofed": "9.1.0"}, "failed"),
        ({"torch": "2.9.0"}, "warning"),
        ({"python": "3.11.0"}, "warning"),
        ({"prefect": "3.8.0"}, "warning"),
    ],
)
def test_other_versions_than_the_hubs_are_told_with_both(
    federation: Federation, hub: dict[str, str], level: Level
) -> None:
    put_record(federation.store, versions_key(), versions_here().model_copy(update=hub))
    said = the_fault(findings(federation.site), level).said
    ((name, there),) = hub.items()
    assert f"here {name} {getattr(versions_here(), name)}" in said and f"at the hub {name} {there}" in said


# --- the command


def test_an_unforeseen_error_in_a_check_is_a_failed_check_without_its_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @named("luck")
    def crash(path: str) -> Finding:
        return well(str(1 / len(path[:0])))

    found = crash("/hospital/DOE_JOHN")
    assert (found.check, found.level, found.said) == ("luck", "failed", "unforeseen ZeroDivisionError")


def test_a_machine_in_order_ends_with_all_well_and_code_0(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for bound in ("DISK_WARNING_GB", "MEMORY_WARNING_GB"):
        monkeypatch.setattr(machine, bound, 0.0)
    monkeypatch.setattr(sys, "argv", ["cardiofed", "doctor", "--quick", "--home", str(federation.site)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().out
    assert not ended.value.code and said.splitlines()[-1] == "all well"
    assert "images" not in said and "with the store alone" in " ".join(said.split())
