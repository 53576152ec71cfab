"""Set a hub up on a machine of its own, against a store and a Prefect server that run elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

from flows import stages
from infra.prefect_server import prefect_environment
from tasks.homes import HUB, Credentials, Home, enter_home, write_home
from tasks.identity import have_identity
from tasks.settings import Params, load_environment


def make_hub(folder: Path, prefect_api_url: str, params: Params) -> None:
    """Make the hub's folder, its keys and base, the bucket and the hub's deployment; run again, it renews them.

    Args:
        folder: the hub's own.
        prefect_api_url: of the server that the hub's worker will serve.
        params: the federation's settings.

    Raises:
        ConfigError: a ``CARDIOFED_S3_…`` variable is missing, or the folder is another machine's.
        StoreError: the store does not answer, or refuses these credentials.
    """
    env = load_environment()
    home = Home(
        name=HUB,
        s3_endpoint=env.s3_endpoint,
        s3_bucket=env.s3_bucket,
        s3_region=env.s3_region,
        prefect_api_url=prefect_api_url,
    )
    stands = stages.has_base(folder, params)
    write_home(folder, home, Credentials(access_key=env.s3_access_key, secret_key=env.s3_secret_key), params)
    have_identity(folder)
    ws, _ = enter_home(folder)
    ws.store.ensure_bucket()
    if not stands:
        stages.pretrain(folder, params)
    os.environ |= prefect_environment(prefect_api_url, folder / "worker")
    from flows.deployments import deploy_hub  # Prefect reads its settings when it is imported

    deploy_hub()
