"""TLS on one machine: who has the CA gets through, who has not is told what to do, and ends are told in time."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from federation_files import tiny_params
from pydantic import SecretStr

from flows.live_tls import end_strayed_workers, have_tls
from infra.ports import HOST
from infra.prefect_doctor import examine_prefect, prefect_answers, prefect_certificate
from infra.prefect_server import PrefectServer, prefect_environment, start_prefect
from infra.process import PID_FILE, launch, recorded, stop
from infra.s3_server import S3Server, start_s3
from infra.s3_users import S3User, make_user
from infra.tls import CA_VALID_DAYS, VALID_DAYS, Certificate, days_left, presents, server_certificate
from model.errors import ConfigError, StoreError, StoreUnreachableError
from tasks.doctor.storage import answers
from tasks.doctor.tls import store_certificate
from tasks.homes import HUB, Credentials, Home, enter_home, write_home
from tasks.settings import load_environment
from tasks.store import Store
from tasks.trusted_ca import CA_FILE, tls_mend
from tasks.version import version_round


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """Who enters a machine's folder changes the environment."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return server_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[S3Server]:
    """The embedded store over TLS."""
    started = start_s3(tmp_path_factory.mktemp("s3"), tls=certificate)
    Store(started.environment()).ensure_bucket()
    yield started
    stop(started.pid_file)


@pytest.fixture
def machine(tmp_path: Path, server: S3Server, certificate: Certificate) -> Path:
    """A machine's folder with the CA in it."""
    home = Home(name="st-anna", s3_endpoint=server.url)
    credentials = Credentials(access_key=server.access_key, secret_key=SecretStr(server.secret_key))
    write_home(tmp_path / "st-anna", home, credentials, tiny_params())
    (tmp_path / "st-anna" / CA_FILE).write_bytes(certificate.ca.read_bytes())
    return tmp_path / "st-anna"


# --- the store


@pytest.mark.parametrize("size", [0, 100_000, 9 * 2**20 + 7])
def test_bytes_come_back_over_tls_as_they_went(server: S3Server, size: int) -> None:
    store = Store(server.environment())
    data = bytes(index % 251 for index in range(min(size, 1000))) * (size // 1000 + 1)
    sha256 = store.put("over-tls", data)
    assert server.url.startswith("https://")
    assert store.get("over-tls", sha256) == data


def test_dvc_pushes_and_users_are_made_over_tls(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = server.environment()
    Store(env).put("global/rounds/0001/plan.json", bytes(2_000_000))
    assert version_round(tmp_path / "versions", Store(env), 1, env).files == 1
    assert Store(env).list("dvc/")
    monkeypatch.setenv("CARDIOFED_CA_BUNDLE", str(env.ca_bundle))
    made = make_user(server.url, S3User(server.access_key, server.secret_key), "st-anna", env.s3_bucket)
    user = {"s3_access_key": made.access_key, "s3_secret_key": SecretStr(made.secret_key)}
    assert Store(env.model_copy(update=user)).exists("global/rounds/0001/plan.json")


def test_a_client_without_the_ca_is_told_where_to_put_it(server: S3Server) -> None:
    with pytest.raises(StoreUnreachableError, match="certificate verify failed") as error:
        Store(replace(server, ca_file=None).environment()).list("")
    assert "get the CA's certificate from the hub" in error.value.mend
    assert "ca.crt" in error.value.mend and "CARDIOFED_CA_BUNDLE" in error.value.mend


def test_plain_http_gets_nothing_from_a_server_that_speaks_tls(server: S3Server) -> None:
    plain = server.environment().model_copy(update={"s3_endpoint": server.url.replace("https", "http")})
    with pytest.raises(StoreError):
        Store(plain).get("over-tls")


def test_tls_to_a_server_that_speaks_none_says_so(s3_server: S3Server, certificate: Certificate) -> None:
    address = s3_server.url.replace("http", "https")
    env = s3_server.environment().model_copy(update={"s3_endpoint": address, "ca_bundle": certificate.ca})
    with pytest.raises(StoreUnreachableError) as error:
        Store(env).get("a")
    assert "nobody speaks TLS there" in error.value.mend


def test_a_ca_that_is_no_file_is_a_setting_to_mend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {"ENDPOINT": "https://a", "ACCESS_KEY": "a", "SECRET_KEY": "b"}.items():
        monkeypatch.setenv(f"CARDIOFED_S3_{name}", value)
    monkeypatch.setenv("CARDIOFED_CA_BUNDLE", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="ca_bundle"):
        load_environment()


def test_a_store_is_found_again_goes_over_to_a_renewed_certificate_and_back_to_plain_http(
    tmp_path: Path,
) -> None:
    old = server_certificate(tmp_path / "tls", valid_days=10)
    first = start_s3(tmp_path / "s3", tls=old)
    assert start_s3(tmp_path / "s3", tls=old).pid == first.pid
    ca = old.ca.read_bytes()
    renewed = server_certificate(tmp_path / "tls")
    assert days_left(renewed.certificate) > VALID_DAYS - 1 and renewed.ca.read_bytes() == ca
    second = start_s3(tmp_path / "s3", tls=renewed)
    assert second.pid != first.pid and second.url == first.url
    plain = start_s3(tmp_path / "s3")
    assert plain.url == first.url.replace("https", "http")
    assert not list((tmp_path / "s3" / "home").rglob("*.key"))
    stop(plain.pid_file)


# --- names and keys


class Silent(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(403)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None: ...


class Quiet(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None: ...


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[tuple[str, Certificate]]:
    """A server of this machine that shows a certificate for another name."""
    made = server_certificate(tmp_path / "elsewhere", names=("store.example.org",))
    listening = Quiet((HOST, 0), Silent)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)
    listening.socket = context.wrap_socket(listening.socket, server_side=True)
    threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05}).start()
    yield f"https://{HOST}:{listening.server_port}", made
    listening.shutdown()
    listening.server_close()


def test_a_certificate_for_another_name_is_refused(
    elsewhere: tuple[str, Certificate], server: S3Server, machine: Path
) -> None:
    url, made = elsewhere
    env = server.environment().model_copy(update={"s3_endpoint": url, "ca_bundle": made.ca})
    with pytest.raises(StoreUnreachableError, match=r"doesn't match 'store\.example\.org'") as error:
        Store(env).list("")
    assert "name that the certificate was made for" in error.value.mend
    assert not presents(int(url.rpartition(":")[2]), made)
    (machine / CA_FILE).write_bytes(made.ca.read_bytes())
    ws, home = enter_home(machine)
    found = answers(ws, home.model_copy(update={"s3_endpoint": url}))
    assert found.level == "failed" and "not valid for" in found.said


def test_the_demo_ca_cannot_vouch_for_another_host(tmp_path: Path) -> None:
    ours = server_certificate(tmp_path)
    ours.certificate.unlink()
    forged = server_certificate(tmp_path, names=("store.example.org",))
    trust, shows = ssl.create_default_context(cafile=str(ours.ca)), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shows.load_cert_chain(forged.certificate, forged.key)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trust.wrap_bio(to_client, to_server, server_hostname="store.example.org")
    host = shows.wrap_bio(to_server, to_client, server_side=True)
    for end in (client, host):
        with pytest.raises(ssl.SSLWantReadError):
            end.do_handshake()
    with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree violation"):
        client.do_handshake()


def test_private_keys_are_for_their_owner_alone_and_certificates_last_a_year(tmp_path: Path) -> None:
    made = server_certificate(tmp_path / "tls")
    for key in (made.key, tmp_path / "tls" / "ca.key"):
        assert key.stat().st_mode & 0o777 == 0o600
    assert VALID_DAYS - 1 < days_left(made.certificate) <= VALID_DAYS
    assert CA_VALID_DAYS - 1 < days_left(made.ca) <= CA_VALID_DAYS
    again = made.certificate.read_bytes()
    assert server_certificate(tmp_path / "tls").certificate.read_bytes() == again
    (tmp_path / "tls" / "ca.key").write_text("torn")
    made.certificate.unlink()
    with pytest.raises(ConfigError, match="cannot be used"):
        server_certificate(tmp_path / "tls")


@pytest.mark.parametrize(
    ("said", "mend"),
    [
        ("IP address mismatch, certificate is not valid for '127.0.0.1'.", "made for"),
        ("certificate has expired", "renew"),
        ("self-signed certificate in certificate chain", "CARDIOFED_CA_BUNDLE"),
    ],
)
def test_each_fault_of_a_certificate_has_its_mend(said: str, mend: str) -> None:
    assert mend in tls_mend(said)


# --- the doctor


def test_the_ca_of_its_folder_is_all_that_a_machine_needs(machine: Path) -> None:
    ws, home = enter_home(machine)
    assert answers(ws, home).level == "ok"
    assert "valid until" in store_certificate(ws, home).said
    assert ws.store.list("global/nothing") == []


def test_the_doctor_warns_before_the_stores_certificate_ends(tmp_path: Path, machine: Path) -> None:
    ending = server_certificate(tmp_path / "tls", valid_days=12)
    store = start_s3(tmp_path / "s3", tls=ending)
    (machine / CA_FILE).write_bytes(ending.ca.read_bytes())
    ws, home = enter_home(machine)
    found = store_certificate(ws, home.model_copy(update={"s3_endpoint": store.url}))
    assert found.level == "warning" and "in 12 days" in found.said and "renew" in found.mend
    stop(store.pid_file)


# --- Prefect


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[PrefectServer]:
    started = start_prefect(tmp_path_factory.mktemp("live") / "prefect", tls=certificate)
    yield started
    stop(started.pid_file)


def asked(server: PrefectServer, folder: Path) -> subprocess.CompletedProcess[str]:
    """What Prefect's own client says in a process that has the variables of a machine's folder."""
    ask = "from prefect import get_client; print(get_client(sync_client=True).hello().json())"
    variables = {**os.environ, **prefect_environment(server.api_url, folder)}
    return subprocess.run(
        [sys.executable, "-c", ask], env=variables, cwd=folder.parent, capture_output=True, text=True
    )


def test_prefect_speaks_tls_to_clients_that_have_the_ca_in_their_folder(
    prefect: PrefectServer, certificate: Certificate, tmp_path: Path
) -> None:
    assert prefect.api_url.startswith("https://")
    refused = asked(prefect, tmp_path / "worker")
    assert refused.returncode != 0 and "CERTIFICATE_VERIFY_FAILED" in refused.stderr
    (tmp_path / CA_FILE).write_bytes(certificate.ca.read_bytes())
    done = asked(prefect, tmp_path / "worker")
    assert "👋" in done.stdout, done.stderr


def test_the_doctor_reaches_prefect_over_tls_and_says_what_is_missing_without_the_ca(
    prefect: PrefectServer, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = prefect_answers(prefect.api_url)
    assert found.level == "failed" and "not trusted" in found.said and "ca.crt" in found.mend
    monkeypatch.setenv("CARDIOFED_CA_BUNDLE", str(certificate.ca))
    assert "valid until" in prefect_certificate(prefect.api_url).said
    assert {found.level for found in examine_prefect(prefect.api_url, "hub")} <= {"ok", "warning"}


# --- a federation on one machine


def test_tls_once_asked_for_stays_until_it_is_taken_back(tmp_path: Path) -> None:
    machines = [tmp_path / HUB, tmp_path / "hospitals" / "st-anna"]
    copies = [folder / CA_FILE for folder in (tmp_path, *machines)]
    assert have_tls(tmp_path, machines, None) is None
    made = have_tls(tmp_path, machines, True)
    assert made is not None and made == have_tls(tmp_path, machines, None)
    assert {copy.read_bytes() for copy in copies} == {made.ca.read_bytes()}
    assert have_tls(tmp_path, machines, False) is None
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_workers_end_where_the_servers_have_moved_and_only_there(tmp_path: Path) -> None:
    for name, url in (("moved", "http://127.0.0.1:1"), ("stays", "https://127.0.0.1:1")):
        home = Home(name=name, s3_endpoint=url, prefect_api_url="https://127.0.0.1:2/api")
        write_home(
            tmp_path / name, home, Credentials(access_key="a", secret_key=SecretStr("b")), tiny_params()
        )
        (tmp_path / name / "worker").mkdir()
        launch(["/bin/sleep", "60"], {"PATH": os.defpath}, tmp_path / name / "worker", keep=False)
    machines = [tmp_path / name for name in ("moved", "stays", "new")]
    end_strayed_workers(machines, "https://127.0.0.1:1", "https://127.0.0.1:2/api")
    assert recorded(tmp_path / "moved" / "worker" / PID_FILE) is None
    assert stop(tmp_path / "stays" / "worker" / PID_FILE)


def test_a_machine_without_a_ca_of_its_own_keeps_what_the_environment_names(
    machine: Path, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    (machine / CA_FILE).unlink()
    monkeypatch.setenv("CARDIOFED_CA_BUNDLE", str(certificate.ca))
    ws, _ = enter_home(machine)
    assert ws.store.list("global/nothing") == []
    assert load_environment().ca_bundle == certificate.ca


def test_the_files_of_a_certificate_are_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = server_certificate(Path("tls"))
    monkeypatch.chdir("/")
    assert made.certificate.exists()
    assert made.key.exists()
    assert made.ca.exists()
