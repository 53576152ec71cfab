"""Settings of a federation that has begun: what may change from one round to the next, and the rest refused."""

from __future__ import annotations

from pathlib import Path

from model.errors import ConfigError
from tasks.files import json_bytes, write_atomic
from tasks.homes import PARAMS_FILE, enter_home
from tasks.settings import CHANGEABLE, founding, lay_over


def change_settings(hub: Path, overrides: tuple[str, ...]) -> None:
    """Have the rounds that open from now on run under other settings; an open round keeps those of its plan.

    Args:
        hub: the hub's folder.
        overrides: such as ``merge.mode=shadow``.

    Raises:
        ConfigError: a value cannot be used, or is one that the model or its base stands on.
        DiskError: it cannot be written.
    """
    ws, _ = enter_home(hub)
    params = lay_over(ws.params, overrides)
    before, after = founding(ws.params), founding(params)
    fixed = sorted(name for name in before if before[name] != after[name])
    if fixed:
        what = f"'{', '.join(fixed)}' cannot change any more: the model stands on it"
        mend = f"these may: {', '.join(CHANGEABLE)}; for others found a new federation"
        raise ConfigError(what, str(hub / PARAMS_FILE), mend)
    write_atomic(hub / PARAMS_FILE, json_bytes(params.model_dump(mode="json")))
