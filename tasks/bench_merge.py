"""Benchmark: a merge of very many sites in little memory, beside dense averaging and the merge of stacked factors.

Every method runs in a fresh process, after a warm-up on tiny layers that loads its code. Its memory is the highest
resident set (``VmHWM``: heap, workspaces of the linear algebra, mapped pages of files and of code) above the one
just before it starts. glibc is told to hand blocks from 32 KiB back at once; by default it keeps freed blocks in a
fragmented heap, which the method ``streaming, default malloc`` shows.
"""

from __future__ import annotations

import ctypes
import gc
import math
import mmap
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from model.factors import Factors, truncate_adapter
from model.merge import merge_shares, merge_step, volume_weights
from model.package import Dtype, PackageView, pack_adapter, unpack_adapter
from model.seeds import derive_generator
from model.streaming import merge_sources
from tasks.settings import Params
from tasks.variables import variables

PAPER_CHANNELS = (32, 64, 128, 256, 512)
"""The network of 26 MB."""

METHODS = ("streaming", "streaming, default malloc", "stacked", "dense")
_FEWEST_SLICES, _MOST_SLICES = 40, 1000
_TINY = (2, 4)
_M_MMAP_THRESHOLD, _MMAP_FROM = -3, 1 << 15  # of glibc's mallopt
_DECAY = 0.8  # of the singular values, from one component to the next


@dataclass(frozen=True)
class MethodCost:
    """What one way to merge took.

    Attributes:
        method: of :data:`METHODS`.
        seconds: wall time.
        cpu_s: CPU time, single thread.
        peak_bytes: highest resident set above the one before.
        read_bytes: size of the files that were merged.
        lost: fraction of the squared norm that the rank budget cut; None for dense averaging.
    """

    method: str
    seconds: float
    cpu_s: float
    peak_bytes: int
    read_bytes: int
    lost: float | None


@dataclass(frozen=True)
class MergeBench:
    """The benchmark's result.

    Attributes:
        sites: number of updates.
        channels: of the network.
        ranks: number of sites by rank.
        dtype: of the packages.
        rank_max: rank budget of the merged update.
        weights_bytes: the network's weights, float32.
        layer_bytes: its largest layer, float32.
        package_bytes: mean package.
        target_bytes: three such packages and the largest layer.
        exact_peak: whether the peak was reset before each method; if not, memory is a lower bound.
        costs: one per method.
    """

    sites: int
    channels: tuple[int, ...]
    ranks: dict[int, int]
    dtype: str
    rank_max: int
    weights_bytes: int
    layer_bytes: int
    package_bytes: int
    target_bytes: int
    exact_peak: bool
    costs: tuple[MethodCost, ...]

    @property
    def met(self) -> bool:
        """Whether the streaming merge stayed below the target; not claimed from a lower bound."""
        peak = next(c.peak_bytes for c in self.costs if c.method == "streaming")
        return self.exact_peak and peak < self.target_bytes


@dataclass(frozen=True)
class Case:
    """Updates to be merged, on disk.

    Attributes:
        folder: ``0000.safetensors`` … are packages, ``0000.npy`` … the layers that stand for every site's weights.
        shares: coefficient per site.
        ranks: rank per site.
        rank_max: rank budget of the merge.
        dtype: of the packages.
    """

    folder: Path
    shares: tuple[float, ...]
    ranks: tuple[int, ...]
    rank_max: int
    dtype: Dtype

    @property
    def packages(self) -> list[Path]:
        """One per site."""
        return [self.folder / f"{k:04d}.safetensors" for k in range(len(self.shares))]

    @property
    def weights(self) -> list[Path]:
        """Full weights, one file per layer."""
        return sorted(self.folder.glob("[0-9]*.npy"))


class PackageFile:
    """A package on disk that is mapped for one layer at a time, so that none of its pages stays in memory.

    Args:
        path: the package.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of its layers."""
        return self._view().layers

    def factors(self, name: str) -> Factors:
        """Decode one layer; see :meth:`model.package.PackageView.factors`."""
        return self._view().factors(name)

    def _view(self) -> PackageView:
        with self._path.open("rb") as file:
            return PackageView(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def bench_merge(
    params: Params,
    sites: int = 200,
    channels: tuple[int, ...] = PAPER_CHANNELS,
    methods: tuple[str, ...] = METHODS,
) -> MergeBench:
    """Make updates of many sites in a temporary folder and merge them by every method.

    Args:
        params: rule of the ranks, dtype of the packages, rank budget and volume weights of the merge; the seed.
        sites: number of updates, at least 1.
        channels: of the network.
        methods: of :data:`METHODS`, ``streaming`` among them.

    Returns:
        Time and memory per method, beside the target.
    """
    with tempfile.TemporaryDirectory(prefix="cardiofed-bench-") as folder:
        case = make_case(Path(folder), params, sites, channels)
        tiny = make_case(Path(folder) / "tiny", params, 4, _TINY)
        measured = [measure_method(method, case, tiny) for method in methods]
        sizes = [path.stat().st_size for path in case.packages]
        weights = [np.load(path, mmap_mode="r").nbytes for path in case.weights]
    package_bytes = round(fmean(sizes))
    return MergeBench(
        sites=sites,
        channels=channels,
        ranks={r: case.ranks.count(r) for r in sorted(set(case.ranks))},
        dtype=case.dtype,
        rank_max=case.rank_max,
        weights_bytes=sum(weights),
        layer_bytes=max(weights),
        package_bytes=package_bytes,
        target_bytes=3 * package_bytes + max(weights),
        exact_peak=all(exact for _, exact in measured),
        costs=tuple(cost for cost, _ in measured),
    )


def make_case(folder: Path, params: Params, sites: int, channels: tuple[int, ...]) -> Case:
    """Write packages whose sizes are a federation's and whose values are drawn.

    The sites' numbers of slices are log-uniform from 40 to 1000; ranks follow from them by the settings' rule.
    An update is part common to all sites and part its own, with falling singular values; it holds every layer,
    however few a site trains by the settings, and is under no budget of bytes.

    Args:
        folder: made if missing.
        params: settings as in :func:`bench_merge`.
        sites: number of packages.
        channels: of the network.

    Returns:
        Where the files are, and how they are to be merged.
    """
    from model.lora import layer_rank, rank_for_volume  # PEFT and MONAI stay out of the measured processes
    from model.network import build_net

    folder.mkdir(parents=True, exist_ok=True)
    generator = derive_generator(params.seed, "bench", "merge")
    drawn = torch.rand(sites, generator=generator) * math.log(_MOST_SLICES / _FEWEST_SLICES)
    slices = {f"{k:04d}": round(_FEWEST_SLICES * math.exp(x)) for k, x in enumerate(drawn.tolist())}
    lora, most = params.lora, max(slices.values())
    ranks = tuple(
        rank_for_volume(n, most, lora.rank_min, lora.rank_max, lora.rank_rule) for n in slices.values()
    )
    shares = merge_shares(
        dict.fromkeys(slices, 1.0), volume_weights(slices, params.merge.volume), params.merge.form
    )
    shapes = {name: p.detach() for name, p in build_net(channels, generator).named_parameters()}
    common = {name: _drawn(p, lora.rank_max, generator) for name, p in shapes.items()}
    case = Case(folder, tuple(shares.values()), ranks, params.merge.rank_max, params.package.dtype)
    for path, rank in zip(case.packages, ranks, strict=True):
        update = {
            name: _site_update(p, common[name], layer_rank(p.reshape(p.shape[0], -1), rank), generator)
            for name, p in shapes.items()
        }
        path.write_bytes(pack_adapter(update, params.package.dtype))
    for i, p in enumerate(shapes.values()):
        np.save(folder / f"{i:04d}.npy", p.numpy())
    return case


def measure_method(method: str, case: Case, tiny: Case) -> tuple[MethodCost, bool]:
    """Run one method in a fresh process, first on ``tiny``, then measured on ``case``.

    Args:
        method: of :data:`METHODS`.
        case: what is measured.
        tiny: what loads the code.

    Returns:
        Time and memory, and whether the peak could be reset before.
    """
    pool = ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn"))
    with (
        variables({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}),
        pool,
    ):  # read when a child loads torch
        return pool.submit(run_method, method, case, tiny).result()


def run_method(method: str, case: Case, tiny: Case) -> tuple[MethodCost, bool]:
    """As :func:`measure_method`, in this process."""
    torch.set_num_threads(1)
    if not method.endswith("default malloc"):
        _give_back_blocks()
    merge = {"stacked": _stack, "dense": _average}.get(method, _stream)
    merge(tiny)
    before, exact = _reset_peak()
    started, cpu = time.perf_counter(), time.process_time()
    lost = merge(case)
    seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu
    files = case.weights * len(case.shares) if method == "dense" else case.packages
    return MethodCost(
        method=method,
        seconds=round(seconds, 3),
        cpu_s=round(cpu_s, 3),
        peak_bytes=_peak_bytes() - before,
        read_bytes=sum(path.stat().st_size for path in files),
        lost=None if lost is None else round(lost, 6),
    ), exact


def _stream(case: Case) -> float:
    """Layer by layer; each merged layer is written and let go."""
    sources = [(c, PackageFile(path)) for c, path in zip(case.shares, case.packages, strict=True)]
    kept = lost = 0.0
    with (case.folder / "merged").open("wb") as file:
        for layer in merge_sources(sources, case.rank_max):
            B, A = layer.factors  # orthogonal components: their energies add up
            kept += float((B.norm(dim=0) * A.norm(dim=1)).square().sum())
            lost += layer.cut**2
            np.save(file, B.float().numpy())
            np.save(file, A.float().numpy())
            del layer, B, A  # before the next one is made
    return lost / (kept + lost)


def _stack(case: Case) -> float:
    """As a round does it: all updates held, factors stacked, the step cut to the rank budget."""
    updates = {path.name: unpack_adapter(path.read_bytes()) for path in case.packages}
    step = merge_step(updates, dict(zip(updates, case.shares, strict=True)))
    return truncate_adapter(step, case.rank_max)[1]


def _average(case: Case) -> None:
    """FedAvg as frugal as it can be: one layer's float64 sum and one site's layer at a time."""
    with (case.folder / "averaged").open("wb") as file:
        for path in case.weights:
            total = np.zeros(np.load(path, mmap_mode="r").shape)
            for share in case.shares:
                weight = np.load(path)
                weight *= np.float32(share)
                total += weight
                del weight
            np.save(file, total.astype(np.float32))
            del total


def _drawn(like: Tensor, rank: int, generator: torch.Generator) -> Factors:
    """Random factors that fit a parameter, with falling components."""
    out, inner = like.shape[0], like[0].numel()
    fall = _DECAY ** (0.5 * torch.arange(rank))
    B, A = torch.randn(out, rank, generator=generator), torch.randn(rank, inner, generator=generator)
    return Factors(B * fall, A * fall[:, None])


def _site_update(like: Tensor, common: Factors, rank: int, generator: torch.Generator) -> Factors:
    own = _drawn(like, rank, generator)
    return Factors(common.B[:, :rank] + own.B, common.A[:rank] + own.A)


def _give_back_blocks() -> None:
    with suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MMAP_FROM)


def _reset_peak() -> tuple[int, bool]:
    """Resident bytes now, and whether the peak starts from there; free heap goes back first, or it would hide use."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
        return _status_bytes("VmRSS"), True
    return _peak_bytes(), False


def _peak_bytes() -> int:
    """Highest resident set: since the reset on Linux, of the whole process elsewhere."""
    if Path("/proc/self/status").exists():
        return _status_bytes("VmHWM")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _status_bytes(name: str) -> int:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024
