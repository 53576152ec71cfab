"""The stages of the main job, as `dvc repro` and `cardiofed demo` run them: each reads files and writes files."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from flows.compute import one_thread_each
from infra.process import stop_all
from model.errors import ConfigError
from tasks.cases import CARD_FILE
from tasks.code_version import code_version
from tasks.files import json_bytes, sha256_bytes, write_atomic
from tasks.homes import PARAMS_FILE
from tasks.prepare import prepare
from tasks.pretrain import need_base, pretrain_base, read_base
from tasks.privacy import keep_errors
from tasks.report import render_report
from tasks.results import write_results
from tasks.settings import Params, founding
from tasks.workspace import Workspace, open_workspace

FEDERATED = ("keys", "store", "prefect", "versions", "federation", "sites", "hub", "evaluation", "plots")
"""Folders that belong to one federation: other settings or data need new ones."""


@dataclass(frozen=True)
class Source:
    """Where cases come from.

    Attributes:
        data: folder of the data set.
        layout: its importer.
        sites: how to form sites from it.
    """

    data: Path
    layout: str
    sites: str


def claim(root: Path, params: Params, source: Source, public: Source | None) -> None:
    """Bind a run's name to its settings and sources, before any work is done.

    Args:
        root: the run's folder; need not exist yet.
        params: settings of the run.
        source: its data set.
        public: the cohort its base is pretrained on; None for phantoms.

    Raises:
        ConfigError: the name belongs to a run of other settings or sources.
    """
    claimed = {
        "params": params.model_dump(mode="json"),
        "source": [str(source.data.resolve()), source.layout, source.sites],
        "public": public and str(public.data.resolve()),
    }
    mark = root / "run.json"
    started = mark.exists() and (root / "cohort").exists()
    if started and mark.read_bytes() != json_bytes(claimed):
        raise _other_run(root)
    write_atomic(mark, json_bytes(claimed))


def cohort(root: Path, params: Params, source: Source, replace: bool) -> None:
    """Import, form sites, split by patient, cache slices: ``cohort/<site>/``.

    Args:
        root: the run's folder; its old cohort stays if this fails.
        params: seed, grid and fractions.
        source: the data set.
        replace: take changed data even when a federation has started on the old.

    Raises:
        DataError: the data set cannot be used as it is.
        ConfigError: the data changed since the federation started.
    """
    fresh, old = root / ".cohort.new", root / "cohort"
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        prepare(source.data, source.layout, source.sites, fresh, params)
        if not replace and (root / "identity").exists() and old.exists() and _cards(fresh) != _cards(old):
            raise _other_run(root)
        shutil.rmtree(old, ignore_errors=True)
        fresh.rename(old)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def pretrain(root: Path, params: Params, public: Source | None = None) -> None:
    """Train the base, on phantoms or on a public cohort: ``base/``."""
    home = None
    if public is not None:
        home = root / "public"
        shutil.rmtree(home, ignore_errors=True)
        prepare(public.data, public.layout, public.sites, home, params)
    one_thread_each()
    pretrain_base(root / "base", params, home)


def has_base(hub: Path, params: Params) -> bool:
    """Whether a live hub stands on a base, so that no later release may train another one.

    Args:
        hub: the hub's folder, before its settings are written anew.
        params: the federation's settings.

    Returns:
        Whether the base is there, of these founding settings.
    """
    if read_base(hub / "base") is None or not (hub / PARAMS_FILE).exists():
        return False
    return founding(open_workspace(hub).params) == founding(params)


def enter(root: Path, params: Params, replace: bool) -> Workspace:
    """Open a run whose cohort and base are ready.

    Args:
        root: with cohort and base ready.
        params: settings of the run.
        replace: start over when settings, data, base or code are not those of the federation in the folder.

    Returns:
        The run's workspace, under these settings.

    Raises:
        ConfigError: there is no base, or the folder holds a federation of other settings, data or base.
    """
    base = need_base(root / "base").sha256.encode()
    code = code_version().encode() if replace else b""
    identity = sha256_bytes(_cards(root / "cohort") + base + _settings(params) + code).encode()
    mark = root / "identity"
    if mark.exists() and mark.read_bytes() != identity:
        if not replace:
            raise _other_run(root)
        stop_all(root)
        for name in FEDERATED:
            shutil.rmtree(root / name, ignore_errors=True)
    write_atomic(mark, identity)
    return with_params(root, params)


def with_params(root: Path, params: Params) -> Workspace:
    """Write the run's settings where its flows read them, and open it."""
    write_atomic(root / "params.json", _settings(params))
    return open_workspace(root)


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
    open_workspace(root)
    write_results(root)
    return render_report(root, root / "report.html", images=True)


def _settings(params: Params) -> bytes:
    return json_bytes(params.model_dump(mode="json"))


def _cards(folder: Path) -> bytes:
    """All sites' cards: they hold the hash of the data."""
    return b"".join(path.read_bytes() for path in sorted(folder.glob(f"*/{CARD_FILE}")))


def _other_run(root: Path) -> ConfigError:
    mend = "choose another --run name, or delete the folder"
    return ConfigError("this run was started with other settings or data", str(root), mend)
