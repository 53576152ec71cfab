"""Training that survives a kill: its state goes to disk every few steps and is picked up again."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from model.training import Training
from tasks.files import write_atomic

EVERY = 10
"""Steps between checkpoints."""


def run_training(training: Training, checkpoint: Path, identity: str) -> None:
    """Train to the end, from the checkpoint when it belongs to the same work.

    The result is bit for bit that of an uninterrupted run on the same machine. The caller removes the checkpoint
    once the result is safe.

    Args:
        training: freshly built.
        checkpoint: file of the saved state; need not exist.
        identity: hash of everything that determines the training; another identity starts over.
    """
    _resume(training, checkpoint, identity)
    while training.done < training.steps:
        training.step()
        if training.done % EVERY == 0 or training.done == training.steps:
            write_atomic(checkpoint, save(training.state(), metadata={"identity": identity}))


def _resume(training: Training, checkpoint: Path, identity: str) -> None:
    if not checkpoint.exists():
        return
    try:
        with safe_open(checkpoint, framework="pt") as file:
            same = (file.metadata() or {}).get("identity") == identity
        if same:
            training.restore(load_file(checkpoint))
    except SafetensorError:
        checkpoint.unlink()  # a torn file is worth nothing: start over
