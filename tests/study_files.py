"""A tiny study for tests: five groups of three patients and a base, made once per session, then copied."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import pytest
import torch
from federation_files import PARAMS_FILE
from phantom_files import write_group
from torch import Tensor

from model.factors import Adapter
from tasks.pretrain import pretrain_base
from tasks.settings import Params, load_params
from tasks.study.cell import Cell
from tasks.study.cohorts import study_cohort
from tasks.study.plan import study_params
from tasks.study.run import build_trial, prepared
from tasks.study.trial import Trial

SITES = ("dcm", "hcm", "minf", "nor", "rv")
"""By place in the alphabet; a lone culprit of a scenario is the second, ``hcm``."""
CULPRIT = "hcm"
SETTINGS = (
    "network.channels=[4,8,64]",
    "data.crop=32",
    "data.spacing_mm=2.5",
    "pretrain.steps=40",
    "pretrain.learning_rate=0.02",
    "training.steps=1",
    "training.batch=4",
    "rating.slices=4",
    "lora.rank_max=3",
    "lora.rank_min=2",
    "lora.wide_from=2500",
    "lora.trained_levels=3",
    "package.dtype=fp16",
    "package.upload_bytes=0",
    "package.download_bytes=0",
    "merge.rank_max=16",
    "judge.tolerance=0.9",
    "study.rounds=1",
)
"""Some layers wide enough for LoRA, some not; the judges accept nearly everything."""


@cache
def study_settings(*overrides: str) -> Params:
    """The project's settings, shrunk, with the study's rounds."""
    return study_params(load_params(PARAMS_FILE, (*SETTINGS, *overrides)))


def study_source(factory: pytest.TempPathFactory) -> Path:
    """A data set in ACDC's layout: five groups of three."""
    source = factory.getbasetemp() / "study-source"
    if not source.exists():
        new = factory.mktemp("groups")
        for place, site in enumerate(SITES):
            write_group(new, site.upper(), 3, 1 + 3 * place)
        new.rename(source)
    return source


def study_root(factory: pytest.TempPathFactory, root: Path) -> Path:
    """A study's folder with base and clean cohort, ready for cells; a copy of one's own."""
    template = factory.getbasetemp() / "study-template"
    if not template.exists():
        torch.set_num_threads(1)
        params, new = study_settings(), factory.mktemp("study")
        source = study_source(factory)
        home = study_cohort(prepared(new, source), source, "by-group", 1, params)
        pretrain_base(new / "base", params, home)
        new.rename(template)
    shutil.copytree(template, root)
    return root


def trial_of(
    factory: pytest.TempPathFactory, root: Path, method: str, scenario: str = "clean", *overrides: str
) -> Trial:
    """A trial before its first round."""
    home = root if root.exists() else study_root(factory, root)
    params = study_settings(*overrides)
    return build_trial(home, study_source(factory), Cell(method, scenario, 1, 1), params)[0]


def same_weights(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether two models are the same to the last bit."""
    return a.keys() == b.keys() and all(torch.equal(W, b[name]) for name, W in a.items())


def same_adapter(a: Adapter, b: Adapter) -> bool:
    """Whether two updates are the same to the last bit."""
    return a.keys() == b.keys() and all(
        torch.equal(f.B, b[name].B) and torch.equal(f.A, b[name].A) for name, f in a.items()
    )
