"""What settings were chosen by: each choice is a method with one setting changed, compared on validation only."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from tasks.study.methods import ALL_RANKS, METHODS, Method, by_steps


def _choice(default: str, *settings: str) -> Method:
    """The default with other settings."""
    return replace(METHODS[default], settings=(*METHODS[default].settings, *settings), default=default)


def _package(dtype: str, kilobytes: int, *settings: str) -> Method:
    budget = (f"package.dtype={dtype}", f"package.upload_bytes={kilobytes}000", "package.energy=null")
    return _choice("average", *budget, *settings)


CHOICES: dict[str, Method] = {
    **{
        f"fedavg-lr-{rate}": _choice("fedavg", f"training.learning_rate_full={rate}")
        for rate in ("5e-4", "1e-3", "2e-3", "4e-3")
    },
    **{f"fedprox-mu-{mu}": _choice("fedprox", f"study.proximal={mu}") for mu in ("1e-2", "1e-1")},
    **{
        f"fedavgm-rate-{rate}": _choice("fedavgm", f"study.server.rate_momentum={rate}")
        for rate in (0.5, 0.7, 1.4)
    },
    **{
        f"fedadam-rate-{rate}": _choice("fedadam", f"study.server.rate_adam={rate}")
        for rate in ("3e-4", "1e-3", "1e-2")
    },
    "fp16-all-ranks": _choice("average", *ALL_RANKS),
    **{
        f"{dtype}-{size}k": _package(dtype, size)
        for dtype, size in (("int8", 64), ("int8", 32), ("int4", 64), ("int4", 32), ("int4", 16), ("int4", 8))
    },
    "int4-32k-no-feedback": _package("int4", 32, "package.feedback=false"),
    "int4-32k-rank-auto": _package("int4", 32, "lora.rank_rule=auto"),
    "int4-16k-no-feedback": _package("int4", 16, "package.feedback=false"),
    "int4-16k-rank-auto": _package("int4", 16, "lora.rank_rule=auto"),
    "shared-a-16k": replace(_package("int4", 16), run=partial(by_steps, "average", shared_down=True)),
    "rank-auto-energy-0.9": _choice(
        "average", "package.dtype=int4", "lora.rank_rule=auto", "package.energy=0.9"
    ),
    "all-levels": _choice("average", "lora.trained_levels=5"),
}
"""Compared on validation only, to choose settings."""

ALL: dict[str, Method] = METHODS | CHOICES
