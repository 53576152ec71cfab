"""No component tells its maker anything. That none even tries is seen in tests/canary; here: each has been told."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest
from dvc.analytics import is_enabled as dvc_reports
from iterative_telemetry import IterativeTelemetryLogger
from prefect._internal.analytics.ci_detection import CI_ENV_VARS
from prefect._internal.analytics.enabled import is_telemetry_enabled as prefect_reports
from prefect.settings import Settings

import flows.cli
from infra.process import child_environment, stop
from infra.s3_server import start_s3
from tasks.no_tracking import NO_TRACKING

REPORTS: dict[str, Callable[[], bool]] = {
    "Prefect's client": prefect_reports,
    "Prefect's server": lambda: Settings().server.analytics_enabled,
    "DVC": dvc_reports,
    "DVC's sender": lambda: bool(IterativeTelemetryLogger("x", "1", enabled=lambda: True).is_enabled()),
}


@pytest.mark.parametrize("who", REPORTS)
def test_a_component_that_would_report_is_told_not_to(
    who: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # away from this project's own settings of DVC
    for name in (*NO_TRACKING, *CI_ENV_VARS, "DVC_TEST"):
        monkeypatch.delenv(name, raising=False)
    assert REPORTS[who]()
    for name, value in NO_TRACKING.items():
        monkeypatch.setenv(name, value)
    assert not REPORTS[who]()


def test_the_program_and_every_process_it_starts_are_told(tmp_path: Path) -> None:
    assert flows.cli.app
    assert NO_TRACKING.items() <= os.environ.items()
    assert NO_TRACKING.items() <= child_environment(tmp_path, {}).items()


def test_the_embedded_store_speaks_to_nobody_but_us(tmp_path: Path) -> None:
    """From its start on, when programs look for updates and report that they are used."""
    server = start_s3(tmp_path / "store")
    others: set[str] = set()
    until = time.monotonic() + 3
    while time.monotonic() < until:
        for process in (head := psutil.Process(server.pid), *head.children(recursive=True)):
            remote = [c.raddr.ip for c in process.net_connections("inet") if c.raddr]
            others |= {ip for ip in remote if not ip_address(ip).is_loopback}
        time.sleep(0.02)
    stop(server.pid_file)
    assert others == set()
