"""When rounds start by themselves: a cron schedule, read before anything is made for it."""

from __future__ import annotations

from datetime import UTC, datetime

from cronsim import CronSim, CronSimError

from model.errors import ConfigError


def check_cron(cron: str) -> None:
    """Refuse a schedule that cannot be read.

    Args:
        cron: five fields, UTC.

    Raises:
        ConfigError: it cannot be read, or names a day that never comes.
    """
    try:
        if len(cron.split()) != 5:
            raise CronSimError("seconds are read differently by every program")
        next(CronSim(cron, datetime.now(UTC)))
    except (CronSimError, StopIteration) as error:
        mend = "write five fields, such as '0 2 * * *' for every night at two"
        raise ConfigError(f"'{cron}' is no cron schedule", "schedule", mend) from error
