"""The stages of the main job, as `dvc repro` and `cardiofed demo` run them: each reads files and writes files."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from flows.compute import one_thread_each
from model.errors import ConfigError
from tasks.files import json_bytes, sha256_bytes, write_atomic
from tasks.prepare import prepare
from tasks.pretrain import need_base, pretrain_base
from tasks.privacy import keep_errors
from tasks.report import render_report
from tasks.results import write_results
from tasks.settings import Params
from tasks.workspace import Workspace, open_workspace

FEDERATED = ("store", "versions", "federation", "sites", "hub", "prefect")
"""Folders that belong to one federation: other settings or data need new ones."""


@dataclass(frozen=True)
class Source:
    """Where the cases come from.

    Attributes:
        data: folder of the data set.
        layout: its importer.
        sites: how to form sites from it.
    """

    data: Path
    layout: str
    sites: str


def cohort(root: Path, params: Params, source: Source) -> None:
    """Import, form sites, split by patient, cache slices: ``cohort/<site>/``; the old one stays if that fails."""
    fresh = root / ".cohort.new"
    shutil.rmtree(fresh, ignore_errors=True)
    prepare(source.data, source.layout, source.sites, fresh, params)
    shutil.rmtree(root / "cohort", ignore_errors=True)
    fresh.rename(root / "cohort")


def pretrain(root: Path, params: Params, public: Source | None = None) -> None:
    """Train the base, on phantoms or on a public cohort: ``base/``."""
    home = None
    if public is not None:
        home = root / "public"
        prepare(public.data, public.layout, public.sites, home, params)
    one_thread_each()
    pretrain_base(root / "base", params, home)


def refuse_other_settings(root: Path, params: Params) -> None:
    """Say so before hours of work replace what a run was started with.

    Args:
        root: the run's folder; need not exist yet.
        params: settings that the run would get.

    Raises:
        ConfigError: the folder holds a federation of other settings.
    """
    if (root / "identity").exists() and (root / "params.json").read_bytes() != _settings(params):
        raise _other_run(root)


def enter(root: Path, params: Params, replace: bool) -> Workspace:
    """Bind the run's folder to its settings, cohort and base.

    Args:
        root: with cohort and base ready.
        params: settings of the run.
        replace: clear a federation of other settings instead of refusing.

    Returns:
        The run's workspace, under these settings.

    Raises:
        ConfigError: the folder holds a federation of other settings or data.
    """
    cards = b"".join(p.read_bytes() for p in sorted((root / "cohort").glob("*/card.json")))
    base = need_base(root / "base").sha256
    identity = sha256_bytes(cards + base.encode() + _settings(params)).encode()
    mark = root / "identity"
    if mark.exists() and mark.read_bytes() != identity:
        if not replace:
            raise _other_run(root)
        for name in FEDERATED:
            shutil.rmtree(root / name, ignore_errors=True)
    write_atomic(root / "params.json", _settings(params))
    write_atomic(mark, identity)
    return open_workspace(root)


def _settings(params: Params) -> bytes:
    return json_bytes(params.model_dump(mode="json"))


def _other_run(root: Path) -> ConfigError:
    mend = "choose another --run name, or delete the folder"
    return ConfigError("this run was started with other settings or data", str(root), mend)


def federate(root: Path) -> None:
    """Run the rounds: ``federation/``. Needs the servers."""
    from flows.federation import federate as flow
    from flows.runs import settle_interrupted

    one_thread_each()
    keep_errors(root)
    settle_interrupted()
    flow(str(root))


def evaluate(root: Path) -> None:
    """Train the comparisons and evaluate on the test cases: ``evaluation/``. Needs the servers."""
    from flows.federation import evaluate as flow
    from flows.runs import settle_interrupted

    one_thread_each()
    keep_errors(root)
    settle_interrupted()
    flow(str(root))


def report(root: Path) -> Path:
    """The page with pictures, the metrics and the plot tables."""
    write_results(root)
    return render_report(root, root / "report.html", images=True)
