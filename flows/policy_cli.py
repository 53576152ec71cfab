"""``cardiofed hub policy``: what a user of the store may do, for those who make users by hand."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer


def policy(
    name: Annotated[str, typer.Argument(help="The hospital; or hub, for the hub's own user.")],
    kind: Annotated[Literal["aws", "minio"], typer.Option(help="Of store.")] = "minio",
    bucket: Annotated[str, typer.Option(help="The federation's.")] = "cardiofed",
) -> None:
    """Print the policy of a hospital's or the hub's user of the store, as JSON."""
    from infra.store_policies import store_policy

    print(json.dumps(store_policy(name, bucket, kind), indent=2))
