"""Known vulnerabilities of the pins, asked of the OSV database by the tool pip-audit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import NotAskedError

_TOOL = "pip-audit"
_PATIENCE_S = 600
_WORDS = 200


@dataclass(frozen=True)
class Vulnerability:
    """One entry of the database about one pin."""

    name: str
    version: str
    id: str
    mended_in: tuple[str, ...]


def ask_vulnerabilities(constraints: Path) -> tuple[Vulnerability, ...]:
    """What is known against the pins.

    Names and versions of the pins are all that is sent.

    Args:
        constraints: one ``name==version`` a line.

    Returns:
        Every known vulnerability; empty when the database answered for every pin and knows none.

    Raises:
        NotAskedError: the tool is missing, the database does not answer, or it was not asked about every pin.
    """
    program = _find_tool()
    command = [program, "-r", str(constraints), "--no-deps", "--disable-pip", "-s", "osv", "-f", "json"]
    try:
        done = subprocess.run(
            [*command, "--progress-spinner", "off"],
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=_PATIENCE_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _not_asked(f"{_TOOL} gave no answer: {error}") from error
    try:
        rows = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError) as error:
        last = (done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1]
        raise _not_asked(f"the database did not answer: {last[:_WORDS]}") from error
    return _read(rows)


def _read(rows: list[dict[str, Any]]) -> tuple[Vulnerability, ...]:
    """The tool calls it success when it could not ask about a package; here that is a failure."""
    skipped = [row for row in rows if "skip_reason" in row]
    if skipped or not rows:
        first = f"; of {skipped[0]['name']}: {skipped[0]['skip_reason'][:_WORDS]}" if skipped else ""
        raise _not_asked(f"{len(skipped)} of {len(rows)} pins could not be asked about{first}")
    return tuple(
        Vulnerability(row["name"], row["version"], known["id"], tuple(known["fix_versions"]))
        for row in rows
        for known in row["vulns"]
    )


def _find_tool() -> str:
    own = Path(sys.prefix) / _TOOL / "bin"
    found = shutil.which(_TOOL, path=os.pathsep.join([str(own), os.environ.get("PATH", "")]))
    if found is None:
        raise NotAskedError(f"{_TOOL} is not installed", str(own), "run: make vulnerabilities")
    return found


def _not_asked(what: str) -> NotAskedError:
    mend = "try again from a machine that reaches the database; until then nothing is known either way"
    return NotAskedError(what, "known vulnerabilities", mend)
