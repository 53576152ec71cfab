"""A training that was killed continues where it was and ends in the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from shutil import copytree

import pytest
import torch
from federation_files import found, new_run, use_store
from safetensors.torch import save
from torch import Generator, Tensor

from model.batches import augmented_batches
from model.network import build_net
from model.seeds import derive_generator
from model.training import Batch, Group, Training
from tasks.checkpoint import EVERY, run_training
from tasks.ledger import adapter_key
from tasks.open import open_round
from tasks.settings import Environment
from tasks.train import train_site

STEPS = 2 * EVERY + 5
KILLED_AT = EVERY + 3

DYING_SITE = f"""
import os, signal, sys, torch
from model.training import Training
from tasks.train import train_site
from tasks.workspace import open_workspace

def dying(training, step=Training.step):
    if training.done == {KILLED_AT}:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(training)

torch.set_num_threads(1)
Training.step = dying
train_site(open_workspace(sys.argv[1]), 1, "st-anna")
"""


class PowerCutError(Exception):
    pass


def training(fails_at: int | None = None, drawn: list[int] | None = None) -> Training:
    """A small training; it dies when the batch of step ``fails_at`` is drawn."""
    net = build_net((4, 8), derive_generator(1, "net"))
    images = torch.randn(12, 1, 32, 32, generator=derive_generator(1, "images"))
    draw = augmented_batches(images, (images[:, 0] > 1).long(), 4, seed=5)

    def watched(step: int, generator: Generator) -> Batch:
        if drawn is not None:
            drawn.append(step)
        if step == fails_at:
            raise PowerCutError
        return draw(step, generator)

    groups = [Group(net.parameters(), 1e-2)]
    return Training(net, groups, watched, STEPS, 1e-4, derive_generator(1, "train"))


def result(done: Training) -> tuple[bytes, list[float]]:
    weights: dict[str, Tensor] = done.net.state_dict()
    return save(weights), done.curve


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[float]]:
    torch.set_num_threads(1)
    whole = training()
    run_training(whole, tmp_path_factory.mktemp("whole") / "training.safetensors", "work")
    return result(whole)


def die(checkpoint: Path, at: int = KILLED_AT) -> None:
    with pytest.raises(PowerCutError):
        run_training(training(fails_at=at), checkpoint, "work")


@pytest.mark.parametrize(("killed_at", "resumed_from"), [(0, 0), (KILLED_AT, EVERY), (2 * EVERY, 2 * EVERY)])
def test_an_interrupted_training_continues_to_the_same_bytes(
    uninterrupted: tuple[bytes, list[float]], tmp_path: Path, killed_at: int, resumed_from: int
) -> None:
    checkpoint = tmp_path / "training.safetensors"
    die(checkpoint, killed_at)
    drawn: list[int] = []
    again = training(drawn=drawn)
    run_training(again, checkpoint, "work")
    assert drawn == list(range(resumed_from, STEPS))
    assert result(again) == uninterrupted


def test_a_training_killed_again_and_again_ends_in_the_same_bytes(
    uninterrupted: tuple[bytes, list[float]], tmp_path: Path
) -> None:
    checkpoint = tmp_path / "training.safetensors"
    for at in (EVERY + 1, 2 * EVERY - 1, 2 * EVERY + 1):
        die(checkpoint, at)
    again = training()
    run_training(again, checkpoint, "work")
    assert result(again) == uninterrupted


def test_a_finished_training_is_not_trained_again(
    uninterrupted: tuple[bytes, list[float]], tmp_path: Path
) -> None:
    checkpoint = tmp_path / "training.safetensors"
    run_training(training(), checkpoint, "work")
    drawn: list[int] = []
    again = training(drawn=drawn)
    run_training(again, checkpoint, "work")
    assert drawn == []
    assert result(again) == uninterrupted


@pytest.mark.parametrize("kept", [0, 7, 100, 0.5, 0.999])
def test_a_torn_checkpoint_starts_over(
    uninterrupted: tuple[bytes, list[float]], tmp_path: Path, kept: float
) -> None:
    checkpoint = tmp_path / "training.safetensors"
    die(checkpoint)
    data = checkpoint.read_bytes()
    checkpoint.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    drawn: list[int] = []
    again = training(drawn=drawn)
    run_training(again, checkpoint, "work")
    assert drawn[0] == 0
    assert result(again) == uninterrupted


def test_a_checkpoint_of_other_work_starts_over(
    uninterrupted: tuple[bytes, list[float]], tmp_path: Path
) -> None:
    checkpoint = tmp_path / "training.safetensors"
    with pytest.raises(PowerCutError):
        run_training(training(fails_at=KILLED_AT), checkpoint, "other work")
    again = training()
    run_training(again, checkpoint, "work")
    assert result(again) == uninterrupted


def test_a_site_killed_while_it_trains_uploads_what_an_uninterrupted_one_does(
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    s3_environment: Environment,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_store(monkeypatch, s3_environment)
    ws = found(new_run(tmp_path_factory, tmp_path / "run", f"training.steps={STEPS}"))
    open_round(ws, 1)
    killed = subprocess.run(
        [sys.executable, "-c", DYING_SITE, str(ws.root)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    checkpoint = ws.site_home("st-anna") / "training.safetensors"
    assert checkpoint.exists()
    assert not ws.store.exists(adapter_key("st-anna", 1))
    train_site(ws, 1, "st-anna")
    assert not checkpoint.exists()

    resumed = ws.store.get(adapter_key("st-anna", 1))
    whole = new_run(tmp_path_factory, tmp_path / "whole", f"training.steps={STEPS}")
    copytree(ws.root / "keys", whole.root / "keys", dirs_exist_ok=True)  # the same hub and hospitals
    ws.store.put("sites/st-anna/rounds/0001/update.json", b"gone")
    train_site(whole, 1, "st-anna")
    assert ws.store.get(adapter_key("st-anna", 1)) == resumed
