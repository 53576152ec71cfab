"""What an operator does in Prefect's pages, over the same API: look at runs, start one, press Retry."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

ACTIVE = ("SCHEDULED", "PENDING", "RUNNING", "CANCELLING", "PAUSED")
BROKEN = ("FAILED", "CRASHED")
_PATIENCE_S = 90.0
_BUSY = (429, 500, 502, 503)  # SQLite under load says 503


@dataclass(frozen=True)
class Run:
    """One flow run."""

    id: str
    name: str
    pool: str
    round: int | None
    state: str
    label: str
    """the state's name, such as AwaitingConcurrencySlot"""
    message: str


class Prefect:
    """A Prefect server's API.

    Args:
        url: ``http://…/api``.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    def begin(self, deployment: str, **parameters: object) -> str:
        """Quick run of a deployment ``flow/name``; returns the run's id."""
        found = self._ask("GET", f"/deployments/name/{deployment}")
        made = self._ask("POST", f"/deployments/{found['id']}/create_flow_run", {"parameters": parameters})
        return str(made["id"])

    def runs(self) -> list[Run]:
        """All runs that the server knows, the oldest first."""
        found = self._ask("POST", "/flow_runs/filter", {"sort": "EXPECTED_START_TIME_ASC", "limit": 200})
        return [_run(tree) for tree in found]

    def run(self, run_id: str) -> Run | None:
        """One run; None when the server does not know it."""
        return next((run for run in self.runs() if run.id == run_id), None)

    def retry(self, run_id: str) -> None:
        """What ``prefect flow-run retry`` does."""
        state = {"type": "SCHEDULED", "message": "Retried by the operator"}
        self._ask("POST", f"/flow_runs/{run_id}/set_state", {"state": state, "force": True})

    def _ask(self, method: str, path: str, tree: object = None) -> Any:
        data = None if tree is None else json.dumps(tree).encode()
        about = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, about, method=method)
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                with self._open(request, timeout=30) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                if error.code not in _BUSY or time.monotonic() > deadline:
                    raise
            except OSError:  # it restarts
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.5)


def _run(tree: dict[str, Any]) -> Run:
    state = tree["state"] or {"type": "SCHEDULED", "name": "", "message": ""}
    return Run(
        id=tree["id"],
        name=tree["name"],
        pool=tree["work_pool_name"] or "",
        round=tree["parameters"].get("round"),
        state=state["type"],
        label=state["name"],
        message=state.get("message") or "",
    )
