"""Fresh phantom slices for every step of pretraining, made on other cores while one trains."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator

from model.augment import augment
from model.randomise import random_slices
from model.seeds import derive_seed
from model.training import Batch
from tasks.settings import Params

_STEPS = 8
"""Steps that one unit of work serves."""
_AHEAD = 4
"""Units in the making while one is used."""

Arrays = tuple[NDArray[np.float32], NDArray[np.uint8]]


class PhantomStream:
    """The batch of any step, determined by the seed and the step alone.

    Args:
        pool: where slices are made.
        params: seed, grid, and the batch and steps of pretraining.
    """

    def __init__(self, pool: ProcessPoolExecutor, params: Params) -> None:
        self._pool, self._params = pool, params
        self._units: dict[int, Future[Arrays]] = {}

    def draw(self, step: int, generator: Generator) -> Batch:
        """Images ``(N, 1, Y, X)`` and masks ``(N, Y, X)`` of a step."""
        unit, k = divmod(step, _STEPS)
        last = -(-self._params.pretrain.steps // _STEPS)
        for i in range(unit, min(unit + _AHEAD, last)):
            if i not in self._units:
                self._units[i] = self._pool.submit(_make, *self._order(i))
        self._units.pop(unit - 1, None)
        images, masks = self._units[unit].result()
        batch = self._params.pretrain.batch
        part = slice(k * batch, (k + 1) * batch)
        chosen = torch.from_numpy(images[part])[:, None], torch.from_numpy(masks[part].astype(np.int64))
        return augment(*chosen, generator)

    def _order(self, unit: int) -> tuple[int, int, int, float]:
        seed = derive_seed(self._params.seed, "base", "phantoms", unit)
        data = self._params.data
        return seed, _STEPS * self._params.pretrain.batch, data.crop, data.spacing_mm


@contextmanager
def phantom_stream(params: Params) -> Iterator[PhantomStream]:
    """A stream whose workers end with the block."""
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        yield PhantomStream(pool, params)
        pool.shutdown(cancel_futures=True)


def _make(seed: int, count: int, size: int, spacing_mm: float) -> Arrays:
    return random_slices(count, size, spacing_mm, np.random.default_rng(seed))
