"""Run one cell of the study, or find it done: training and validation only, the test stays closed."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from safetensors.torch import load, save

from model.seeds import derive_seed
from tasks.enrol import prepared_sites, read_card
from tasks.files import sha256_bytes, write_atomic
from tasks.pretrain import need_base
from tasks.settings import Params, lay_over
from tasks.study.cell import Cell, Outcome, Weights
from tasks.study.choices import ALL
from tasks.study.cohorts import study_cohort
from tasks.study.members import read_members
from tasks.study.memo import Memo
from tasks.study.scenarios import SCENARIOS, Scenario
from tasks.study.trial import Trial
from tasks.study.version import cell_version, data_version, libraries_version, step_version


def run_cell(root: Path, source: Path, cell: Cell, params: Params) -> Path:
    """Train one cell.

    Args:
        root: folder of the study; ``base/`` in it holds the shared base.
        source: a data set in ACDC's layout.
        cell: what to run.
        params: settings; the method's own are laid over them.

    Returns:
        The cell's folder: ``models.safetensors``, ``rounds.csv``, ``gains.csv``, and ``identity``, which is
        written last; a folder with the same identity is left as it is.

    Raises:
        ConfigError: there is no base, or a setting of the method is wrong.
        DataError: the data set cannot be used.
    """
    folder = root / "cells" / cell.name
    if is_finished(root, source, cell, params):
        return folder
    trial, identity = build_trial(root, source, cell, params)
    _keep(folder, ALL[cell.method].run(trial))
    write_atomic(folder / "identity", identity.encode())
    return folder


def is_finished(root: Path, source: Path, cell: Cell, params: Params) -> bool:
    """Whether a cell was trained under these settings, this code and this data."""
    mark = root / "cells" / cell.name / "identity"
    return mark.exists() and mark.read_text() == cell_identity(root, source, cell, params)


def cell_identity(root: Path, source: Path, cell: Cell, params: Params) -> str:
    """Hash of all that determines a cell's outcome: its settings, scenario, base, data, code and libraries."""
    own, scenario = _of_cell(cell, params)
    home = study_cohort(prepared(root, source), source, scenario.partition, cell.split_seed, own)
    data = "/".join(read_card(home / site).dataset_md5 for site in prepared_sites(home))
    code = f"{cell_version(ALL[cell.method].module)}/{libraries_version()}"
    base = need_base(root / "base").sha256
    return sha256_bytes(f"{cell}/{_determining(own)}/{scenario}/{base}/{data}/{code}".encode())


def build_trial(root: Path, source: Path, cell: Cell, params: Params) -> tuple[Trial, str]:
    """The trial of a cell before its first round, its data in memory, and the cell's identity."""
    own, scenario = _of_cell(cell, params)
    home = study_cohort(prepared(root, source), source, scenario.partition, cell.split_seed, own)
    members = read_members(home, scenario, own, cell.train_seed)
    base = need_base(root / "base")
    weights = load((root / "base" / f"{base.sha256}.safetensors").read_bytes())
    memo = Memo(root / "memo" / libraries_version(), step_version())
    trial = Trial(own, scenario, members, weights, derive_seed(cell.train_seed, "study"), memo)
    return trial, cell_identity(root, source, cell, params)


def _of_cell(cell: Cell, params: Params) -> tuple[Params, Scenario]:
    return lay_over(params, ALL[cell.method].settings), SCENARIOS[cell.scenario].turned(cell.split_seed)


def prepared(root: Path, source: Path) -> Path:
    """The study's folder for sites prepared from exactly this data by exactly this code.

    Args:
        root: folder of the study.
        source: a data set; its files count by name, size and time of change.

    Returns:
        A folder below ``root``; need not exist yet.
    """
    files = [(str(f.relative_to(source)), f.stat()) for f in sorted(source.rglob("*")) if f.is_file()]
    listing = "".join(f"{name} {stat.st_size} {stat.st_mtime_ns}\n" for name, stat in files)
    return root / "prepared" / sha256_bytes(f"{data_version()}/{listing}".encode())[:12]


def _determining(params: Params) -> str:
    """The settings a cell's training depends on."""
    study, network = params.study, (params.network, params.training, params.lora, params.package)
    cohort = (params.data, study.validation, study.test)
    merging = (params.rating, params.merge, params.judge, params.federation.rounds)
    return f"{cohort}/{network}/{merging}/{study.server}/{study.paper_strictness}/{study.proximal}"


def read_models(folder: Path) -> dict[str, Weights]:
    """Models of a finished cell by name, float32."""
    models: dict[str, Weights] = {}
    for key, W in load((folder / "models.safetensors").read_bytes()).items():
        name, layer = key.split("|", 1)
        models.setdefault(name, {})[layer] = W.float()
    return models


def _keep(folder: Path, outcome: Outcome) -> None:
    (folder / "identity").unlink(missing_ok=True)
    models = {
        f"{name}|{layer}": W.half()
        for name, weights in outcome.models.items()
        for layer, W in weights.items()
    }
    write_atomic(folder / "models.safetensors", save(models))
    for name, table in (("rounds", outcome.rounds), ("gains", outcome.gains)):
        write_atomic(folder / f"{name}.csv", _csv(table))


def _csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False, float_format="%.6g").encode() if len(table.columns) else b"round\n"
