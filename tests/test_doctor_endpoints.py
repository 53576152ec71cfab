"""`cardiofed doctor` on clocks, certificates and Prefect: each fault provoked at a real server on loopback."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import botocore.auth
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from doctor_files import Federation, federation, settle

from infra import prefect_doctor
from infra.ports import HOST
from infra.prefect_doctor import examine_prefect
from infra.prefect_server import PrefectServer, start_prefect
from infra.process import stop
from tasks.doctor import clock
from tasks.doctor.endpoint import Answer
from tasks.doctor.finding import Finding, Level
from tasks.doctor.storage import answers, own_keys
from tasks.doctor.tls import certificate, store_certificate
from tasks.homes import Home, enter_home
from tasks.workspace import Workspace

__all__ = ["federation"]

Serve = Callable[[int], tuple[str, Path]]


class Closed(BaseHTTPRequestHandler):
    """Refuses everything, as a store refuses unsigned requests."""

    def do_HEAD(self) -> None:
        self.send_response(403)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[Serve]:
    """Serves under a self-signed certificate that expires in so many days; gives the address and the certificate."""
    servers: list[ThreadingHTTPServer] = []

    def serve(days: int) -> tuple[str, Path]:
        server = ThreadingHTTPServer((HOST, 0), Closed)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair := self_signed(tmp_path / "tls.pem", days))
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        servers.append(server)
        return f"https://localhost:{server.server_port}", pair

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def self_signed(path: Path, days: int) -> Path:
    """Key and certificate of localhost in one file."""
    key, name = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")]),
    )
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=90))
        .not_valid_after(now + timedelta(days=days, hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    return path


def entered(federation: Federation, url: str) -> tuple[Workspace, Home]:
    """The hospital, with its store elsewhere."""
    settle(federation.site, federation.home.model_copy(update={"s3_endpoint": url}), federation.root)
    return enter_home(federation.site)


# --- certificates


@pytest.mark.parametrize(
    ("days", "level", "said"),
    [(-3, "failed", "expired on"), (10, "warning", "in 10 days"), (100, "ok", "valid until")],
)
def test_a_certificate_is_told_from_30_days_before_its_end(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, tls: Serve, days: int, level: Level, said: str
) -> None:
    url, trusted = tls(days)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(trusted))
    ws, home = entered(federation, url)
    assert answers(ws, home).level == "ok"
    found = store_certificate(ws, home)
    assert found.level == level and said in found.said


def test_a_certificate_that_nobody_vouches_for_is_not_trusted(federation: Federation, tls: Serve) -> None:
    found = answers(*entered(federation, tls(100)[0]))
    assert found.level == "failed" and "not trusted" in found.said and "CARDIOFED_CA_BUNDLE" in found.mend


@pytest.mark.parametrize(("host", "level"), [("127.0.0.1:9000", "ok"), ("192.0.2.1:9000", "warning")])
def test_plain_http_is_for_this_machine_alone(host: str, level: Level) -> None:
    answer = Answer(403, 1.0, None, None, b"")
    assert certificate(answer, f"http://{host}").level == level


# --- clocks


@pytest.mark.parametrize(
    ("ahead_s", "level", "said"),
    [
        (20, "ok", "within 30 s"),
        (60, "warning", "s ahead of"),
        (-60, "warning", "s behind"),
        (1200, "failed", ""),
    ],
)
def test_a_clock_apart_from_the_stores_is_told(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, ahead_s: int, level: Level, said: str
) -> None:
    monkeypatch.setattr(clock, "local_now", lambda: datetime.now(UTC) + timedelta(seconds=ahead_s))
    found = clock.clock(*enter_home(federation.site))
    assert found.level == level and said in found.said


def test_a_signature_refused_for_its_time_is_explained_by_the_clock(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = botocore.auth.get_current_datetime
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: right() + timedelta(minutes=20))
    found = own_keys(*enter_home(federation.site))
    assert found.level == "failed" and "clock is wrong" in found.said and "NTP" in found.mend


# --- Prefect


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    server = start_prefect(tmp_path_factory.mktemp("prefect"))
    yield server
    stop(server.pid_file)


def tell(server: PrefectServer, path: str, **body: object) -> None:
    assert prefect_doctor._ask(server.api_url, path, json.dumps(body).encode()).status in (201, 204)


def examined(server: PrefectServer, pool: str) -> dict[str, Finding]:
    return {finding.check: finding for finding in examine_prefect(server.api_url, pool)}


def test_prefect_tells_whether_it_sees_the_machines_worker(
    prefect: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no work pool 'site-a'" in examined(prefect, "site-a")["worker"].said
    tell(prefect, "/work_pools/", name="site-a", type="process")
    assert "site work" in examined(prefect, "site-a")["worker"].mend
    tell(prefect, "/work_pools/site-a/workers/heartbeat", name="site-a")
    assert {found.level for found in examined(prefect, "site-a").values()} == {"ok"}
    monkeypatch.setattr(prefect_doctor, "SEEN_S", -60.0)
    found = examined(prefect, "site-a")["worker"]
    assert found.level == "warning" and found.said.startswith("last seen ")


def test_another_version_of_prefect_is_a_warning_with_both(
    prefect: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = prefect_doctor.version("prefect")
    monkeypatch.setattr(prefect_doctor, "version", lambda _: "3.7.9")
    found = examined(prefect, "hub")["Prefect version"]
    assert (found.level, found.said) == ("warning", f"here 3.7.9, the server has {there}")


def test_a_server_that_is_not_prefect_or_not_there_is_one_failed_check(federation: Federation) -> None:
    for url in (federation.home.s3_endpoint, f"http://{HOST}:1/api"):
        (found,) = examine_prefect(url, "hub")
        assert (found.check, found.level) == ("Prefect", "failed")
