"""A tiny federation of three hospitals for tests: prepared and trained once per session, then copied."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from phantom_files import write_patient

from model.errors import PackageError
from model.package import PackageView
from tasks.admit import admit_updates
from tasks.close import close_round
from tasks.enrol import found_federation
from tasks.files import json_bytes, sha256_bytes
from tasks.judge import judge_merged
from tasks.ledger import adapter_key, get_record, put_record, update_key
from tasks.merge import merge_updates
from tasks.open import open_round
from tasks.prepare import prepare
from tasks.pretrain import need_base, pretrain_base
from tasks.rate import rate_candidates
from tasks.records import Close, Update
from tasks.settings import Environment, Params, load_params
from tasks.store import Store
from tasks.train import train_site
from tasks.trust import have_all_identities
from tasks.workspace import Workspace, open_workspace

SITES = ("hillcrest", "lakeside", "st-anna")
PATIENTS = (4, 3, 3)
SETTINGS = (
    "network.channels=[4,8]",
    "data.crop=32",
    "data.spacing_mm=2.5",
    "pretrain.steps=60",
    "pretrain.learning_rate=0.02",
    "federation.rounds=2",
    "training.steps=2",
    "training.batch=4",
    "rating.slices=4",
    "lora.rank_max=4",
    "lora.rank_min=2",
    "lora.wide_from=500",
    "lora.trained_levels=1",
    "package.dtype=int8",
    "package.upload_bytes=64000",
    "package.download_bytes=128000",
    "package.energy=null",
    "package.feedback=true",
    "merge.rank_max=16",
    "privacy.encrypt=false",
)
"""Some layers wide enough for LoRA, some not, some frozen; the budgets hold everything. Seconds, not minutes."""

NewRun = Callable[..., Workspace]
PARAMS_FILE = Path(__file__).resolve().parent.parent / "params.yaml"


def tiny_params(*overrides: str) -> Params:
    return load_params(PARAMS_FILE, (*SETTINGS, *overrides))


def write_hospitals(data: Path) -> Path:
    """Three folders of patients; the number of each says nothing about its site."""
    for i, (site, count) in enumerate(zip(SITES, PATIENTS, strict=True)):
        for k in range(count):
            write_patient(data / site / f"patient{i * 10 + k + 1:03d}", seed=i * 10 + k)
    return data


def template(factory: pytest.TempPathFactory) -> Path:
    """A run's folder with cohort and base; made by the first test that asks."""
    home = factory.getbasetemp() / "federation"
    if not home.exists():
        torch.set_num_threads(1)
        params = tiny_params()
        new = factory.mktemp("hospitals")
        data = write_hospitals(new / "data")
        prepare(data, "acdc", "folder", new / "run" / "cohort", params)
        pretrain_base(new / "run" / "base", params, new / "run" / "cohort")
        (new / "run").rename(home)
    return home


def new_run(factory: pytest.TempPathFactory, root: Path, *overrides: str) -> Workspace:
    """A fresh copy of the template under settings and with keys of its own."""
    shutil.copytree(template(factory), root)
    (root / "params.json").write_bytes(json_bytes(tiny_params(*overrides).model_dump(mode="json")))
    have_all_identities(root, SITES)
    return open_workspace(root)


def use_store(monkeypatch: pytest.MonkeyPatch, env: Environment) -> None:
    """Point the environment at a store, as a user would."""
    for name in ("endpoint", "access_key", "bucket", "region"):
        monkeypatch.setenv(f"CARDIOFED_S3_{name.upper()}", getattr(env, f"s3_{name}"))
    monkeypatch.setenv("CARDIOFED_S3_SECRET_KEY", env.s3_secret_key.get_secret_value())


def found(ws: Workspace) -> Workspace:
    """The federation, founded on the template's base."""
    found_federation(ws, need_base(ws.base_home))
    return ws


def trained(ws: Workspace, number: int = 1, sites: Iterable[str] = SITES) -> Workspace:
    """A round with the updates of these sites."""
    open_round(ws, number)
    for site in sites:
        train_site(ws, number, site)
    return ws


def play_round(ws: Workspace, number: int, sites: Iterable[str] = SITES) -> Close:
    """All phases up to the close in protocol order."""
    trained(ws, number, sites)
    return finish_round(ws, number, sites)


def finish_round(
    ws: Workspace, number: int, raters: Iterable[str] = SITES, judges: Iterable[str] | None = None
) -> Close:
    """The phases after training; who rates also judges unless others are named."""
    admit_updates(ws, number)
    if ws.params.merge.mode != "average":
        for site in raters:
            rate_candidates(ws, number, site)
    merge_updates(ws, number)
    for site in raters if judges is None else judges:
        judge_merged(ws, number, site)
    return close_round(ws, number)


def replace_update(ws: Workspace, site: str, data: bytes, number: int = 1, /, **passport: object) -> Update:
    """Upload other bytes in a site's name, announced correctly, with other words in the passport."""
    update = get_record(ws.store, update_key(site, number), Update)
    announced = {"adapter_sha256": sha256_bytes(data), "adapter_bytes": len(data), **_dtype(data), **passport}
    changed = update.model_copy(update=announced)
    ws.store.put(adapter_key(site, number), data)
    put_record(ws.store, update_key(site, number), changed)
    return changed


def _dtype(data: bytes) -> dict[str, str]:
    try:
        return {"dtype": PackageView(data).dtype}
    except PackageError:
        return {}


def delete(store: Store, *keys: str) -> None:
    """Remove objects; the program itself never does."""
    for key in keys:
        store._client.delete_object(Bucket=store.bucket, Key=key)


def objects(store: Store, skip: Callable[[str], bool] = lambda _: False) -> dict[str, str]:
    """Key → sha256 of everything in the bucket."""
    return {info.key: sha256_bytes(store.get(info.key)) for info in store.list("") if not skip(info.key)}
