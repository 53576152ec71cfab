"""The manifests of infra/deploy: valid, pinned, closed by default, without secrets, with commands that exist."""

from __future__ import annotations

import configparser
import os
import re
import secrets
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer
import yaml

from flows.cli import app
from infra.ports import HOST
from infra.process import PID_FILE, Service, child_environment, serve, stop
from infra.s3_server import S3Server
from tasks.store import Store

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "infra" / "deploy"
NAMED = [".env.example", "Dockerfile", "Dockerfile.dockerignore", "README.md", "compose.yaml"]
FOUND = [path for folder in ("kubernetes", "systemd") for path in sorted((DEPLOY / folder).iterdir())]
FILES = [*(DEPLOY / name for name in NAMED), DEPLOY / "tls" / "Caddyfile", *FOUND]
TEXTS = {path.relative_to(DEPLOY).as_posix(): path.read_text() for path in FILES}
SERVICES = sorted(DEPLOY.glob("systemd/*.service"))
PINNED = re.compile(r"[a-z0-9./-]+:v?\d+\.\d+[a-z0-9.-]*")
SECRET = re.compile(r"PASSWORD|SECRET|AUTH|TOKEN|ROOT_USER|(ACCESS|PRIVATE)_?KEY")
SERVICE_KEYS = {
    *("build", "cap_add", "cap_drop", "command", "depends_on", "environment", "healthcheck", "image"),
    *("logging", "mem_limit", "networks", "pids_limit", "ports", "profiles", "read_only", "restart"),
    *("security_opt", "shm_size", "stop_grace_period", "tmpfs", "user", "volumes"),
}
COMPOSE: dict[str, Any] = yaml.safe_load(TEXTS["compose.yaml"])
COMPOSED: dict[str, Any] = COMPOSE["services"]
MANIFESTS = [text for name, text in TEXTS.items() if name.startswith("kubernetes/")]
KUBERNETES: list[Any] = [tree for text in MANIFESTS for tree in yaml.safe_load_all(text)]
PODS = [tree["spec"]["template"]["spec"] for tree in KUBERNETES if tree["kind"] == "StatefulSet"]
CONTAINERS = [container for pod in PODS for container in (*pod["initContainers"], *pod["containers"])]


def by_default(text: str) -> str:
    """``text`` as compose reads it when .env is as empty as .env.example."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def in_service(path: Path) -> dict[str, str]:
    unit = configparser.RawConfigParser(strict=False, delimiters=("=",))
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(path.read_text())
    return dict(unit["Service"])


def command_lines() -> Iterator[str]:
    """Every command line of the manifests; a script of ``sh`` counts as its lines."""
    found = [service.get("command", []) for service in COMPOSED.values()]
    found += [service["healthcheck"]["test"][1:] for service in COMPOSED.values()]
    found += [container["args"] for container in CONTAINERS]
    found += [c["readinessProbe"]["exec"]["command"] for c in CONTAINERS if "readinessProbe" in c]
    yield from "\n".join(
        words[-1] if words[:1] == ["sh"] else " ".join(words) for words in found
    ).splitlines()
    for unit in map(in_service, SERVICES):
        yield from (unit[key] for key in unit if key.startswith("Exec"))
    yield from re.findall(r"^\*.*?&& (.*) 2>&1", TEXTS["systemd/crontab.example"], re.MULTILINE)


def commands() -> dict[str, set[str]]:
    """Words of a command of the program → its options."""
    found = {}
    waiting = [("", typer.main.get_command(app))]
    while waiting:
        words, command = waiting.pop()
        found[words.strip()] = {name for option in command.params for name in option.opts}
        below: dict[str, Any] = getattr(command, "commands", {})
        waiting += [(f"{words} {name}", child) for name, child in below.items()]
    return found


def test_manifests_call_only_commands_that_exist_with_the_options_they_have() -> None:
    known = commands()
    for line in command_lines():
        for command, rest in re.findall(r"(?:^|[ /])cardiofed (doctor|\w+ \w+) (.*)", line):
            assert {"--home"} <= {word for word in rest.split() if word[:2] == "--"} <= known[command], line
    for name, text in TEXTS.items():
        named = {" ".join(words) for words in re.findall(r"cardiofed (hub|site) (\w+)", text)}
        assert named <= set(known), name


def test_every_image_has_a_pinned_tag_and_ours_the_release() -> None:
    release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    images = [by_default(service["image"]) for service in COMPOSED.values()]
    images += [container["image"] for container in CONTAINERS]
    images += re.findall(r"^FROM (\S+)", TEXTS["Dockerfile"], re.MULTILINE)
    assert len(images) == 6 + 4 + 2
    for image in images:
        assert PINNED.fullmatch(image), image
        assert "cardiofed" not in image or image.endswith(f"cardiofed:{release}"), image


def test_no_file_holds_a_secret() -> None:
    example = re.findall(r"^(\w+)=(.*)$", TEXTS[".env.example"], re.MULTILINE)
    assert {value for _, value in example} == {""}
    assert set(re.findall(r"(?<!\$)\$\{(\w+)", TEXTS["compose.yaml"])) == {name for name, _ in example}
    for service in COMPOSED.values():
        for name, value in service.get("environment", {}).items():
            assert not SECRET.search(name) or re.fullmatch(r"\$\{\w+:-\}", value), name
    assert not any(SECRET.search(in_service(path)["Environment"]) for path in SERVICES)
    assert "Secret" not in {tree["kind"] for tree in KUBERNETES}
    for name, text in TEXTS.items():
        assert not re.search(r"[A-Za-z0-9+]{32,}|-----BEGIN", text), name


def test_compose_publishes_on_loopback_alone_unless_told_otherwise() -> None:
    published = [by_default(port) for service in COMPOSED.values() for port in service.get("ports", [])]
    assert published == ["127.0.0.1:443:443"]
    assert COMPOSE["networks"]["back"]["internal"] is True
    assert {name for name in COMPOSED if "edge" in COMPOSED[name]["networks"]} == {"caddy", "site"}


def test_compose_services_are_confined_checked_and_restarted() -> None:
    assert set(COMPOSED) == {"postgres", "prefect", "store", "caddy", "hub", "site"}
    for name, service in COMPOSED.items():
        assert set(service) <= SERVICE_KEYS, name
        assert service["restart"] == "unless-stopped" and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"] and service["mem_limit"], name
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert service.get("read_only") or name == "postgres"
        assert set(service["networks"]) <= set(COMPOSE["networks"]), name
        named = [volume.split(":")[0] for volume in service.get("volumes", []) if isinstance(volume, str)]
        assert {source for source in named if source[:2] != "./"} <= set(COMPOSE["volumes"]), name
    assert COMPOSED["site"]["profiles"] == ["site"] and "depends_on" not in COMPOSED["site"]
    for name in ("SSL_CERT_FILE", "AWS_CA_BUNDLE"):  # where empty is an error
        assert all(by_default(COMPOSED[worker]["environment"][name]) for worker in ("hub", "site"))


@pytest.mark.parametrize(("password", "starts"), [("", False), ("admin:x", True)])
def test_prefect_starts_only_with_a_password(password: str, starts: bool) -> None:
    script = COMPOSED["prefect"]["command"][-1].replace("$$", "$")
    script = script.replace("exec prefect server start", "echo started")
    environment = {"PATH": os.environ["PATH"], "PREFECT_SERVER_API_AUTH_STRING": password}
    done = subprocess.run(["sh", "-euc", script], env=environment, capture_output=True, check=False)
    assert (done.returncode == 0, b"started" in done.stdout) == (starts, starts)


def test_the_store_of_compose_starts_as_written_and_finds_its_objects_again(tmp_path: Path) -> None:
    def inside(text: str, at: int) -> str:
        text = text.replace("$$", "$").replace(" :9000", f" {HOST}:{at}").replace(":9000/", f":{at}/")
        return text.replace("/tmp/", "tmp/").replace("/home/cardiofed/store", str(tmp_path))

    def healthy(at: int) -> bool:
        probe = [sys.executable, "-c", inside(COMPOSED["store"]["healthcheck"]["test"][-1], at)]
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0

    key = secrets.token_hex()
    user = {"MINIO_ROOT_USER": "tester", "MINIO_ROOT_PASSWORD": key}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    service = Service(
        name="store",
        command=lambda at: ["/bin/sh", "-euc", inside(COMPOSED["store"]["command"][-1], at)],
        environment=lambda _: child_environment(tmp_path, {**user, "PATH": path}),
        answers=healthy,
        patience_s=60,
    )
    for start in range(2):
        child, at = serve(service, tmp_path, None, keep=False)
        server = S3Server(f"http://{HOST}:{at}", "tester", key, child.pid, tmp_path / PID_FILE)
        store = Store(server.environment())
        store.ensure_bucket()
        if start == 0:
            store.put("a", b"kept")
        assert store.get("a") == b"kept"
        stop(server.pid_file)


def test_only_the_named_sources_enter_the_image_and_it_does_not_run_as_root() -> None:
    lines = TEXTS["Dockerfile"].splitlines()
    copies = [line.split() for line in lines if line.startswith("COPY") and "--from" not in line]
    copied = {source for copy in copies for source in copy[1:-1]}
    kept_out, *entries = [line for line in TEXTS["Dockerfile.dockerignore"].splitlines() if line[:1] != "#"]
    assert kept_out == "*" and {line[1:] for line in entries if line[0] == "!"} == copied
    files = {"constraints.txt", "pyproject.toml", "params.yaml", "prefect.yaml"}
    assert copied == {*files, "model", "tasks", "infra", "flows"}
    assert [line for line in lines if line.startswith("USER")] == ["USER 10001:10001"]


@pytest.mark.parametrize("version", ["1.28", kubernetes_validate.latest_version()])
def test_kubernetes_manifests_obey_the_schemas_of_old_and_new_clusters(version: str) -> None:
    for tree in KUBERNETES:
        kubernetes_validate.validate(tree, version, strict=True)


def test_pods_are_confined_and_nobody_connects_in() -> None:
    assert {tree["kind"] for tree in KUBERNETES} == {"Namespace", "StatefulSet", "NetworkPolicy"}
    for pod in PODS:
        assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    for container in CONTAINERS:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] and context["capabilities"] == {"drop": ["ALL"]}
        assert context["allowPrivilegeEscalation"] is False and "ports" not in container
        mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
        assert all(mounts[path]["readOnly"] for path in {"/data", "/secret"} & set(mounts))
    for policy in (tree["spec"] for tree in KUBERNETES if tree["kind"] == "NetworkPolicy"):
        targets = [to for rule in policy["egress"] for to in rule["to"]]
        assert policy["ingress"] == [] and policy["policyTypes"] == ["Ingress", "Egress"]
        assert [to["ipBlock"]["cidr"] for to in targets if "ipBlock" in to] == ["192.0.2.10/32"]


def test_a_hub_that_is_away_ends_no_training() -> None:
    assert not [c for c in CONTAINERS if {"livenessProbe", "startupProbe"} & set(c)]


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.stem)
def test_units_are_hardened_all_alike(path: Path) -> None:
    settings, first = in_service(path), list(in_service(SERVICES[0]).items())
    hardening = first[[name for name, _ in first].index("UMask") :]
    assert {("NoNewPrivileges", "true"), ("ProtectSystem", "strict"), ("PrivateTmp", "true")} < set(hardening)
    assert list(settings.items())[-len(hardening) :] == hardening and settings["User"] == "cardiofed"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_no_fault_in_the_units(tmp_path: Path) -> None:
    for path in [path for path in FOUND if path.suffix in {".service", ".timer"}]:
        text = re.sub(r"/opt/\S+/cardiofed\b", str(shutil.which("true")), path.read_text())
        (tmp_path / path.name).write_text(text)
    units = [str(path) for path in tmp_path.iterdir()]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and len(units) == 4
    assert (
        "cardiofed" not in done.stderr and str(tmp_path) not in done.stderr
    )  # unknown keys are only told of


def test_tls_stands_before_prefect_and_the_store() -> None:
    text = TEXTS["tls/Caddyfile"]
    sites = re.findall(r"^(\{\$\w+_HOST\S*) \{\n\timport hardened\n", text, re.MULTILINE)
    assert sites == ["{$PREFECT_HOST:prefect.localhost}", "{$STORE_HOST:store.localhost}"]
    assert "\ttls {$TLS:internal}\n" in text and "\tskip_install_trust\n" in text and "\tadmin off\n" in text
    if shutil.which("caddy"):
        command = ["caddy", "adapt", "--validate", "--adapter", "caddyfile", "--config"]
        subprocess.run([*command, str(DEPLOY / "tls" / "Caddyfile")], check=True, capture_output=True)
