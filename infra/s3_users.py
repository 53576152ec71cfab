"""A user per site in a MinIO-compatible store: it writes under its own prefix and reads ``global/`` and its own."""

from __future__ import annotations

import json
import secrets
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import urllib3
from minio.credentials.providers import StaticProvider
from minio.error import MinioAdminException
from minio.minioadmin import MinioAdmin

from model.errors import ServerError
from tasks.ledger import site_prefix

_ANSWER_S = 20.0


@dataclass(frozen=True)
class S3User:
    """Credentials of one site."""

    access_key: str
    secret_key: str = field(repr=False)


def site_policy(site: str, bucket: str) -> dict[str, object]:
    """What a site may do, as an S3 policy.

    Args:
        site: its name.
        bucket: the federation's.

    Returns:
        Read ``global/`` and its own prefix, write and list its own prefix; no deletes, nobody else's keys.
    """
    arn, own = f"arn:aws:s3:::{bucket}", site_prefix(site)
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": ["s3:GetObject"],
                "Resource": [f"{arn}/global/*", f"{arn}/{own}*"],
            },
            {"Effect": "Allow", "Action": ["s3:PutObject"], "Resource": [f"{arn}/{own}*"]},
            {
                "Effect": "Allow",
                "Action": ["s3:ListBucket"],
                "Resource": [arn],
                "Condition": {"StringLike": {"s3:prefix": [f"{own}*"]}},
            },
        ],
    }


def make_user(endpoint: str, root: S3User, site: str, bucket: str) -> S3User:
    """Make a site's user, or give it a new secret.

    Args:
        endpoint: of the store.
        root: who may make users.
        site: whose user.
        bucket: the federation's.

    Returns:
        Its credentials; the store keeps no copy that can be read again.

    Raises:
        ServerError: the store does not know these calls, or refuses them.
    """
    user = S3User(f"site-{site}", secrets.token_urlsafe(30))
    parts = urlsplit(endpoint)
    http = urllib3.PoolManager(timeout=urllib3.Timeout(_ANSWER_S), retries=False)
    provider = StaticProvider(root.access_key, root.secret_key)
    admin = MinioAdmin(
        endpoint=parts.netloc, credentials=provider, secure=parts.scheme == "https", http_client=http
    )
    try:
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(site_policy(site, bucket), file)
            file.flush()
            admin.policy_add(user.access_key, str(Path(file.name)))
        admin.user_add(user.access_key, user.secret_key)
        admin.policy_set(user.access_key, user=user.access_key)
    except (MinioAdminException, urllib3.exceptions.HTTPError, ValueError) as error:
        mend = "make the user with the store's own tools, with the policy that docs/operations.md shows"
        raise ServerError(f"the store made no user for {site}: {error}", endpoint, mend) from error
    return user
