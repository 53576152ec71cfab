"""The deployments of ``prefect.yaml`` on a Prefect server: the hub's, and one per hospital."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyOptions
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectAlreadyExists
from prefect.utilities.callables import parameter_schema
from prefect.workers.process import ProcessWorker

from flows.retries import prefect_client
from flows.schedule import check_cron
from model.errors import ConfigError
from tasks.homes import HUB

PREFECT_FILE = Path(__file__).resolve().parents[1] / "prefect.yaml"
SITE_PLACE = "{site}"


def deploy_hub(cron: str | None = None) -> None:
    """Make the hub's pool and deployment, or renew them.

    Args:
        cron: when rounds start, in place of the file's schedule; empty for no schedule.

    Raises:
        ConfigError: the file lacks the deployment, or the schedule cannot be read.
        ServerError: Prefect does not answer.
    """
    entry = _entry(HUB)
    if cron is not None:
        entry["schedules"] = [{"cron": cron, "timezone": "UTC", "active": True}] if cron else []
    with prefect_client() as client:
        _deploy(client, entry)


def deploy_site(site: str) -> None:
    """Make a hospital's pool and deployment, or renew them.

    Args:
        site: its name.

    Raises:
        ConfigError: the file lacks the deployment.
        ServerError: Prefect does not answer.
    """
    with prefect_client() as client:
        _deploy(client, _filled(_entry(SITE_PLACE), site))


def pool_of(name: str) -> str:
    """The work pool of a machine: ``hub``, or ``site-`` and the hospital's name."""
    pool: str = (_entry(HUB) if name == HUB else _filled(_entry(SITE_PLACE), name))["work_pool"]["name"]
    return pool


def _entry(name: str) -> dict[str, Any]:
    found = [e for e in yaml.safe_load(PREFECT_FILE.read_text())["deployments"] if e["name"] == name]
    if not found:
        raise ConfigError(f"no deployment '{name}'", str(PREFECT_FILE), "restore the file with git")
    entry: dict[str, Any] = found[0]
    return entry


def _filled(tree: Any, site: str) -> Any:
    if isinstance(tree, dict):
        return {key: _filled(value, site) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_filled(value, site) for value in tree]
    return tree.replace(SITE_PLACE, site) if isinstance(tree, str) else tree


def _deploy(client: SyncPrefectClient, entry: dict[str, Any]) -> None:
    pool = entry["work_pool"]["name"]
    with suppress(ObjectAlreadyExists):
        client.create_work_pool(_pool(pool))
    module, _, name = entry["entrypoint"].rpartition(".")
    flow: Flow[..., Any] = getattr(import_module(module), name)
    client.create_deployment(
        flow_id=client.create_flow_from_name(flow.name),
        name=entry["name"],
        description=entry["description"],
        entrypoint=entry["entrypoint"],
        work_pool_name=pool,
        schedules=[_schedule(s) for s in entry["schedules"]],
        **_limit(entry.get("concurrency_limit")),
        parameter_openapi_schema={**parameter_schema(flow).model_dump(), "additionalProperties": False},
        enforce_parameter_schema=True,
    )


def _pool(name: str) -> WorkPoolCreate:
    """With the template that its worker would else write there while other workers do the same."""
    template = ProcessWorker.get_default_base_job_template()
    return WorkPoolCreate(name=name, type="process", concurrency_limit=1, base_job_template=template)


def _limit(entry: dict[str, Any] | None) -> dict[str, Any]:
    """A limit makes a run hold a lease, and Prefect ends a run that cannot renew it, whatever it is doing."""
    if entry is None:
        return {}
    options = ConcurrencyOptions(collision_strategy=entry["collision_strategy"])
    return {"concurrency_limit": entry["limit"], "concurrency_options": options}


def _schedule(entry: dict[str, Any]) -> DeploymentScheduleCreate:
    check_cron(entry["cron"])
    try:
        when = CronSchedule(cron=entry["cron"], timezone=entry["timezone"])
    except ValueError as error:
        mend = "write it without letters that only some programs know"
        raise ConfigError(f"Prefect cannot read the schedule '{entry['cron']}'", "schedule", mend) from error
    return DeploymentScheduleCreate(schedule=when, active=entry["active"])
