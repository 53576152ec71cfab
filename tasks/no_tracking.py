"""No component tells its maker anything: the variables by which each is told so, in one place."""

from __future__ import annotations

NO_TRACKING = {
    "DO_NOT_TRACK": "1",  # Prefect's client and others
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DVC_NO_ANALYTICS": "1",
    "ITERATIVE_DO_NOT_TRACK": "1",  # the sender that DVC brings
    "HF_HUB_DISABLE_TELEMETRY": "1",  # PEFT brings the hub's client
    "HF_HUB_OFFLINE": "1",
}
"""Set before anything else is imported, and for every process that is started; JuiceFS is told on its command line."""
