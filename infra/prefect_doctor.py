"""What a machine can find out about Prefect: whether it answers, in which version, and whether it sees our worker."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from botocore.httpsession import get_cert_path

from model.errors import ServerError
from tasks.doctor.endpoint import Answer, ask, shown
from tasks.doctor.finding import Finding, broken, doubtful, named, well
from tasks.doctor.tls import certificate
from tasks.trusted_ca import trusted_for_prefect

SEEN_S = 90.0
"""Three heartbeats of a worker."""


def examine_prefect(api_url: str, pool: str) -> list[Finding]:
    """Check a machine's Prefect.

    Args:
        api_url: of the server.
        pool: the machine's work pool.

    Returns:
        A finding per check; one alone when the server does not answer.
    """
    first = prefect_answers(api_url)
    if first.level == "failed":
        return [first]
    return [first, prefect_certificate(api_url), prefect_version(api_url), worker_seen(api_url, pool)]


@named("Prefect")
def prefect_answers(api_url: str) -> Finding:
    """The server says that it is healthy."""
    answer = _ask(api_url, "/health")
    if answer.status != 200 or answer.body.strip() != b"true":
        said = f"{shown(api_url)} answers with HTTP {answer.status} and is not healthy"
        return broken(said, "check prefect_api_url in home.json; else tell the hub")
    return well(f"{shown(api_url)} answers in {answer.took_ms:.0f} ms")


@named("Prefect certificate")
def prefect_certificate(api_url: str) -> Finding:
    """Until when the server's certificate holds."""
    return certificate(_ask(api_url, "/health"), api_url)


@named("Prefect version")
def prefect_version(api_url: str) -> Finding:
    """The server's version is the one that is installed here; another one is a warning."""
    server, here = str(_told(_ask(api_url, "/admin/version"), api_url)), version("prefect")
    if server != here:
        return doubtful(f"here {here}, the server has {server}", "install what the hub runs")
    return well(f"{here}, as the server")


@named("worker")
def worker_seen(api_url: str, pool: str) -> Finding:
    """A worker of this machine's pool gave a sign of life in the last 90 s; none is a warning."""
    answer = _ask(api_url, f"/work_pools/{pool}/workers/filter", b"{}")
    if answer.status == 404:
        return doubtful(f"Prefect has no work pool '{pool}'", "the hub makes it: `cardiofed hub invite`")
    workers: list[dict[str, Any]] = _told(answer, api_url)
    start = f"start it: `cardiofed {'hub' if pool == 'hub' else 'site'} work --home FOLDER`"
    beats = [datetime.fromisoformat(w["last_heartbeat_time"]) for w in workers if w["last_heartbeat_time"]]
    if not beats:
        return doubtful("none was ever seen", start)
    age_s = ((answer.date or datetime.now(UTC)) - max(beats)).total_seconds()
    said = f"last seen {max(age_s, 0):.0f} s ago"
    return well(said) if age_s <= SEEN_S else doubtful(said, start)


def _ask(api_url: str, path: str, body: bytes | None = None) -> Answer:
    """One request as Prefect's own client sends it: with its password, trusting the certificates it trusts."""
    password = os.environ.get("PREFECT_API_AUTH_STRING")
    headers = {"Authorization": f"Basic {b64encode(password.encode()).decode()}"} if password else {}
    method = "GET" if body is None else "POST"
    ca_file = trusted_for_prefect() or str(get_cert_path(True))
    return ask(api_url.rstrip("/") + path, ca_file, method, body, headers)


def _told(answer: Answer, api_url: str) -> Any:
    if answer.status in (401, 403):
        raise ServerError("Prefect refuses the password", api_url, "set PREFECT_API_AUTH_STRING to the hub's")
    try:
        return json.loads(answer.body)
    except ValueError as error:
        what = f"HTTP {answer.status} and no JSON from {shown(api_url)}"
        raise ServerError(what, api_url, "check prefect_api_url in home.json") from error
