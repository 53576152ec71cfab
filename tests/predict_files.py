"""For tests of prediction: a tiny untrained model with true records, and stacks whose grey value is the label."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from federation_files import tiny_params
from numpy.typing import NDArray
from phantom_files import heart_mask
from report_files import SOMEBODY
from safetensors.torch import save
from torch import Tensor

from model.factors import Factors
from model.labels import N_CLASSES, STRUCTURES
from model.network import build_net
from model.package import pack_adapter
from tasks.files import json_bytes, sha256_bytes
from tasks.personal_passport import write_personal
from tasks.predict.ready import ReadyModel
from tasks.predict.segment import Grid
from tasks.records import Architecture, Base, Close, Member, Plan, Record, Step, model_sha256
from tasks.seal import NOTHING_SEEN, seal
from tasks.settings import Params
from tasks.workspace import Workspace, open_workspace

SITE, CHANNELS = "st-anna", (4, 8)
SHAPE_XYZ, SPACING_MM = (44, 40, 5), (1.6, 1.5, 8.0)
AFFINE = np.diag([-1.6, -1.5, 8.0, 1.0])
GREYS = (0.0, 100.0, 200.0, 300.0)
CAVITIES_MM = (12.0, 10.0, 8.0, 9.0, 11.0)


def write_run(root: Path, personal: bool = True, params: Params | None = None) -> Workspace:
    """A run with one closed round: base, one step, and st-anna's personal adapter; tiny unless settings say else."""
    params, now = params or tiny_params(), datetime(2026, 1, 2, tzinfo=UTC)
    channels = params.network.channels
    weights = build_net(channels, torch.Generator().manual_seed(1)).state_dict()
    data = save(weights)
    base = Base(
        sha256=sha256_bytes(data),
        architecture=Architecture(channels=channels),
        spacing_mm=params.data.spacing_mm,
        labels=STRUCTURES,
        source="nothing",
        n_bytes=len(data),
        curve=(1.0,),
    )
    merged = pack_adapter(_shift(weights, 0.01), "fp32")
    steps = (Step(round=1, sha256=sha256_bytes(merged), fraction=1.0),)
    member = Member(site=SITE, train_slices=10, dataset_md5="0" * 32, rank=2)
    plan = Plan(round=1, base=base, members=(member,), steps=(), opened=now, params=params)
    sealed_plan = sealed("plan", plan)
    close = Close(
        round=1,
        plan_sha256=sha256_bytes(sealed_plan),
        outcome="accepted",
        fraction=1.0,
        degraded=False,
        participants=(SITE,),
        missing=(),
        judges=(SITE,),
        gains={},
        merge_sha256=None,
        verdicts_sha256={},
        steps=steps,
        reason="",
        closed=now,
    )
    folder = root / "federation" / "rounds" / "0001"
    for path in (folder, root / "base", root / "cohort" / SITE):
        path.mkdir(parents=True)
    (root / "params.json").write_bytes(json_bytes(params.model_dump(mode="json")))
    (root / "base" / f"{base.sha256}.safetensors").write_bytes(data)
    (root / "base" / "base.json").write_text(base.model_dump_json())
    (folder / "plan.json").write_bytes(sealed_plan)
    (folder / "close.json").write_bytes(sealed("close", close))
    (folder / "merged.safetensors").write_bytes(merged)
    ws = open_workspace(root)
    if personal:
        own = pack_adapter(_shift(weights, -0.02), "fp32")
        write_personal(ws.site_home(SITE), own, 1, SITE, model_sha256(base, steps), 1.0)
    return ws


def sealed(name: str, record: Record) -> bytes:
    """A record of round 1 as the hub's mirror holds it."""
    return seal(
        SOMEBODY, f"global/rounds/0001/{name}.json", NOTHING_SEEN, json_bytes(record.model_dump(mode="json"))
    )


def _shift(weights: dict[str, Tensor], amount: float) -> dict[str, Factors]:
    """A step of rank 1 on every layer."""
    flat = {name: value.flatten(1) if value.ndim > 1 else value[:, None] for name, value in weights.items()}
    return {
        name: Factors(torch.full((v.shape[0], 1), amount), torch.ones(1, v.shape[1]))
        for name, v in flat.items()
    }


@dataclass(frozen=True)
class Reader(ReadyModel):
    """A model that reads the label off the grey value, as ``GREYS`` writes it."""

    @property
    def predict(self):  # type: ignore[no-untyped-def]
        return _read_greys


def _read_greys(images: Tensor) -> Tensor:
    """In each stack the darkest value is background and the brightest the cavity; the others lie evenly between."""
    stacks = images[:, 0].reshape(-1, SHAPE_XYZ[2], *images.shape[2:])
    low, high = stacks.amin((1, 2, 3), keepdim=True), stacks.amax((1, 2, 3), keepdim=True)
    level = ((stacks - low) / (high - low) * (N_CLASSES - 1)).round().long().flatten(0, 1)
    return torch.nn.functional.one_hot(level, N_CLASSES).permute(0, 3, 1, 2).float()


def reader(size: int = 96, spacing_mm: float = 1.0) -> Reader:
    """The reader on a grid of this size."""
    base = Base(
        sha256="b" * 64,
        architecture=Architecture(channels=CHANNELS),
        spacing_mm=spacing_mm,
        labels=STRUCTURES,
        source="nothing",
        n_bytes=1,
        curve=(1.0,),
    )
    return Reader("global", 1, "", base, "a" * 64, None, Grid(size, spacing_mm), {})


def true_masks(cavities_mm: tuple[float, ...] = CAVITIES_MM) -> NDArray[np.uint8]:
    """Labels ``(X, Y, Z, T)`` of a beating heart; the last slice is empty."""
    masks = [heart_mask(SHAPE_XYZ, SPACING_MM, cavity_mm) for cavity_mm in cavities_mm]
    return np.stack(masks, axis=-1).astype(np.uint8)


def greys_of(masks: NDArray[np.uint8]) -> NDArray[np.int16]:
    """An image of these labels, with noise too weak to change one."""
    noise = np.random.default_rng(0).integers(-8, 9, masks.shape)
    return np.asarray(np.array(GREYS)[masks] + noise, np.int16)


def write_cine(path: Path, affine: NDArray[np.float64] = AFFINE) -> Path:
    """A 4-D NIfTI file of the beating heart."""
    image = nib.Nifti1Image(greys_of(true_masks()), affine)
    image.header.set_zooms((*np.linalg.norm(affine[:3, :3], axis=0), 40.0))
    nib.save(image, path)
    return path
