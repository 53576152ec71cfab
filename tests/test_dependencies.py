"""What we depend on is pinned by version and hash, under a known licence; a database that is silent is no yes."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from infra.pin_hashes import fits, hash_lines
from infra.vulnerabilities import Vulnerability, ask_vulnerabilities
from model.errors import ConfigError, NotAskedError
from tasks.licences import Dependency, faults, kind_of, read_dependencies, read_pins

ROOT = Path(__file__).parent.parent
CONSTRAINTS, HASHES = ROOT / "constraints.txt", ROOT / "hashes.txt"


def test_every_pin_but_torch_has_the_hashes_of_its_files() -> None:
    pins = read_pins(CONSTRAINTS)
    assert read_pins(HASHES) == {name: version for name, version in pins.items() if name != "torch"}
    entries = HASHES.read_text().replace(" \\\n    ", " ").splitlines()
    lines = [line for line in entries if not line.startswith("#")]
    assert len(lines) == len(pins) - 1
    assert all(re.fullmatch(r"\S+==\S+( --hash=sha256:[0-9a-f]{64})+", line) for line in lines)


def test_what_is_installed_is_what_is_pinned() -> None:
    found = read_dependencies(CONSTRAINTS)
    assert [one for one in found if one.differs or not one.installed] == []


def test_every_package_is_under_a_licence_we_know_of() -> None:
    found = read_dependencies(CONSTRAINTS)
    assert {one.name for one in found if one.kind in ("copyleft", "unknown")} == {
        "pyrage"
    }  # MIT, by its file


@pytest.mark.parametrize(
    ("licence", "kind"),
    [
        ("MIT", "permissive"),
        ("Apache License, Version 2.0", "permissive"),
        ("GPL-3.0-only", "copyleft"),
        ("GNU Affero General Public License v3", "copyleft"),
        ("LGPL-2.1-or-later", "weak copyleft"),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", "weak copyleft"),
        ("GPL-2.0-or-later OR Apache-2.0", "permissive"),
        ("GPLv2 | EPLv1", "weak copyleft"),
        ("GPLv2 with linking exception", "weak copyleft"),
        ("MIT AND Secret-1.0", "unknown"),
        ("Ask us", "unknown"),
        ("", "unknown"),
    ],
)
def test_a_licence_is_as_strict_as_the_mildest_alternative_it_leaves(licence: str, kind: str) -> None:
    assert kind_of(licence) == kind


def test_drift_and_licences_that_ask_for_more_are_told() -> None:
    rows = (
        Dependency("fine", "1", "1+cpu", "MIT", "permissive"),
        Dependency("absent", "1", "", "", "unknown"),
        Dependency("drifted", "1", "2", "MIT", "permissive"),
        Dependency("stray", "", "2", "GPL-3.0-only", "copyleft"),
        Dependency("mute", "1", "1", "", "unknown"),
        Dependency("nvidia-cublas", "", "13.1", "MIT", "permissive"),
    )
    assert list(faults(rows)) == [
        "drifted: 2 is installed, 1 is pinned",
        "stray: 2 is installed, and it is not pinned",
        "stray: copyleft, GPL-3.0-only",
        "mute: unknown; read its licence file",
    ]


def test_the_command_lists_every_package_and_fails_when_one_has_drifted(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["dependencies", "--constraints", str(CONSTRAINTS)])
    assert done.exit_code == 0
    assert "torch" in done.output and "pyrage: unknown" in done.output
    (tmp_path / "pins.txt").write_text(CONSTRAINTS.read_text().replace("\nnumpy==", "\nnumpy==0."))
    assert (
        CliRunner().invoke(app, ["dependencies", "--constraints", str(tmp_path / "pins.txt")]).exit_code == 1
    )


def test_no_pins_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no pins"):
        read_pins(tmp_path / "none.txt")
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(ConfigError, match="pins nothing"):
        read_pins(tmp_path / "empty.txt")


# --- hashes


@pytest.mark.parametrize(
    ("wheel", "suits"),
    [
        ("a-1-py3-none-any.whl", True),
        ("a-1-py2.py3-none-any.whl", True),
        ("a-1-cp39-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", True),
        ("a-1-cp311-cp311-musllinux_1_2_aarch64.whl", True),
        ("a-1-cp311-cp311-macosx_11_0_arm64.whl", False),
        ("a-1-cp311-cp311-macosx_10_9_x86_64.whl", False),
        ("a-1-cp312-cp312-manylinux_2_28_x86_64.whl", False),
        ("a-1-cp312-abi3-manylinux_2_28_x86_64.whl", False),
        ("a-1-cp311-cp311-manylinux_2_28_s390x.whl", False),
        ("a-1-cp311-cp311-win_amd64.whl", False),
    ],
)
def test_only_files_that_our_machines_install_are_listed(wheel: str, suits: bool) -> None:
    assert fits(wheel) is suits


def test_a_package_without_a_wheel_is_listed_by_its_source() -> None:
    source = {"url": "https://example.org/a-1.tar.gz", "hashes": {"sha256": "0" * 64}}
    other = {"url": "https://example.org/a-1-cp311-cp311-win_amd64.whl", "hashes": {"sha256": "1" * 64}}
    lock = {"packages": [{"name": "a", "version": "1", "sdist": source, "wheels": [other]}]}
    assert list(hash_lines(lock)) == [f"a==1 \\\n    --hash=sha256:{'0' * 64}"]


# --- vulnerabilities

Tool = Callable[[str], None]


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    """Puts a program in the tool's place that runs a few lines of shell; the real one asks the internet."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))

    def write(lines: str) -> None:
        program = tmp_path / "bin" / "pip-audit"
        program.write_text(f"#!/bin/sh\n{lines}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    return write


def test_what_the_database_knows_is_listed(tool: Tool) -> None:
    tool(
        """echo '{"dependencies": [{"name": "a", "version": "1", "vulns": []}, {"name": "b", "version": "2", '
        echo '"vulns": [{"id": "X-1", "fix_versions": ["2.1"], "aliases": []}]}], "fixes": []}'; exit 1"""
    )
    assert ask_vulnerabilities(CONSTRAINTS) == (Vulnerability("b", "2", "X-1", ("2.1",)),)
    done = CliRunner().invoke(app, ["dependencies", "--vulnerabilities", "--constraints", str(CONSTRAINTS)])
    assert done.exit_code == 1 and "b 2: X-1, mended in 2.1" in done.output


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("echo 'no address for the host' >&2; exit 1", "no address for the host"),
        (
            """echo '{"dependencies": [{"name": "a", "skip_reason": "not found"}]}'""",
            "1 of 1 pins .* not found",
        ),
        ("""echo '{"dependencies": []}'""", "0 of 0 pins"),
    ],
)
def test_a_database_that_did_not_answer_for_every_pin_is_no_clean_bill(
    tool: Tool, lines: str, said: str
) -> None:
    tool(lines)
    with pytest.raises(NotAskedError, match=said):
        ask_vulnerabilities(CONSTRAINTS)


def test_without_the_tool_it_is_said_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(NotAskedError, match="pip-audit is not installed") as error:
        ask_vulnerabilities(CONSTRAINTS)
    assert error.value.mend == "run: make vulnerabilities"
