"""What the machine has to work with: disk, memory, GPU."""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil

from tasks.doctor.finding import Finding, broken, doubtful, named, well

_GB = 1e9
DISK_FAILED_GB, DISK_WARNING_GB = 1.0, 5.0
MEMORY_FAILED_GB, MEMORY_WARNING_GB = 1.0, 2.0


@named("disk")
def disk_space(folder: Path) -> Finding:
    """Free space where the folder lies: below 5 GB a warning, below 1 GB failed."""
    free_gb = shutil.disk_usage(folder).free / _GB
    return _enough(free_gb, DISK_FAILED_GB, DISK_WARNING_GB, "free space there")


@named("memory")
def memory() -> Finding:
    """Memory that programs can still have: below 2 GB a warning, below 1 GB failed."""
    free_gb = psutil.virtual_memory().available / _GB
    return _enough(free_gb, MEMORY_FAILED_GB, MEMORY_WARNING_GB, "end other programs, or add memory")


@named("GPU")
def gpu() -> Finding:
    """Names the GPU; none is no fault."""
    import torch  # takes seconds

    if not torch.cuda.is_available():
        return well("none, the CPU works")
    return well(torch.cuda.get_device_name())


def _enough(free_gb: float, failed_gb: float, warning_gb: float, mend: str) -> Finding:
    said = f"{free_gb:.1f} GB free"
    if free_gb >= warning_gb:
        return well(said)
    tell = broken if free_gb < failed_gb else doubtful
    return tell(f"{said}, {warning_gb:.0f} GB are wanted", mend)
