"""How the work shares this machine's cores: one thread per training, as many trainings as cores."""

from __future__ import annotations

import os

import torch

WORKERS = max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def one_thread_each() -> None:
    """Keep torch to one thread per training, so that results do not depend on the number of cores."""
    torch.set_num_threads(1)
