"""Users in a MinIO-compatible store, one per machine: made with a policy of their own, given a new secret, removed."""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import urllib3
from minio.credentials.providers import StaticProvider
from minio.error import MinioAdminException
from minio.minioadmin import MinioAdmin

from infra.store_policies import store_policy
from model.errors import ServerError
from tasks.homes import HUB
from tasks.ledger import checked_name
from tasks.trusted_ca import trusted_for_store

_ANSWER_S = 20.0


@dataclass(frozen=True)
class S3User:
    """Credentials of one machine."""

    access_key: str
    secret_key: str = field(repr=False)


def site_policy(site: str, bucket: str) -> dict[str, object]:
    """What a site may do: see :func:`infra.store_policies.store_policy`."""
    return store_policy(site, bucket)


def make_user(endpoint: str, root: S3User, site: str, bucket: str) -> S3User:
    """Make a site's user, or rotate its secret: the old one, and whatever was derived from it, ends at once.

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
    return _make(endpoint, root, user_name(site), site_policy(site, bucket))


def make_hub_user(endpoint: str, root: S3User, bucket: str) -> S3User:
    """Make a user for the hub's work, who may not make users, or give it a new secret.

    Args:
        endpoint: of the store.
        root: who may make users.
        bucket: the federation's; it must be there, for this user makes none.

    Returns:
        Its credentials.

    Raises:
        ServerError: the store does not know these calls, or refuses them.
    """
    return _make(endpoint, root, f"{HUB}-{checked_name(bucket, 'bucket')}", store_policy(HUB, bucket))


def change_secret(endpoint: str, user: S3User, secret: str) -> None:
    """Have a user change its own secret, for which it needs nobody: the old one ends at once.

    Keys that somebody has derived from the old one live on until the hub rotates the user.

    Args:
        endpoint: of the store.
        user: whose secret.
        secret: the new one.

    Raises:
        ServerError: the store does not know this call, or refuses it.
    """
    with _administration(endpoint, user, f"gave {user.access_key} no new secret") as admin:
        admin.user_add(user.access_key, secret)


def remove_user(endpoint: str, root: S3User, site: str) -> bool:
    """Revoke a site's user and its policy: the site's next request is refused, in an open session, too.

    Args:
        endpoint: of the store.
        root: who may remove users.
        site: whose user.

    Returns:
        Whether there was one.

    Raises:
        ServerError: the store does not know these calls, or refuses them; the user may still be there.
    """
    name = user_name(site)
    with _administration(endpoint, root, f"did not remove the user {name}") as admin:
        was_there = _removed(lambda: admin.user_remove(name))
        _removed(lambda: admin.policy_remove(name))
    return was_there


def user_name(site: str) -> str:
    """Of a site's user and of its policy."""
    return f"site-{checked_name(site)}"


def _make(endpoint: str, root: S3User, name: str, policy: dict[str, object]) -> S3User:
    """A user that was there is removed first: else keys that its owner derived from the old secret outlive that."""
    user = S3User(name, secrets.token_urlsafe(30))
    with (
        _administration(endpoint, root, f"made no user {name}") as admin,
        tempfile.NamedTemporaryFile("w", suffix=".json") as file,
    ):
        json.dump(policy, file)
        file.flush()
        _removed(lambda: admin.user_remove(name))
        admin.policy_add(name, file.name)
        admin.user_add(name, user.secret_key)
        admin.policy_set(name, user=name)
    return user


@contextmanager
def _administration(endpoint: str, root: S3User, failed: str) -> Iterator[MinioAdmin]:
    parts = urlsplit(endpoint)
    timeout = urllib3.Timeout(_ANSWER_S)
    http = urllib3.PoolManager(timeout=timeout, retries=False, ca_certs=trusted_for_store())
    provider = StaticProvider(root.access_key, root.secret_key)
    secure = parts.scheme == "https"
    try:
        yield MinioAdmin(endpoint=parts.netloc, credentials=provider, secure=secure, http_client=http)
    except (MinioAdminException, urllib3.exceptions.HTTPError, ValueError) as error:
        mend = "do it with the store's own tools; `cardiofed hub policy NAME` prints the policy"
        raise ServerError(f"the store {failed}: {error}", endpoint, mend) from error


def _removed(request: Callable[[], object]) -> bool:
    """Whether there was anything to remove."""
    try:
        request()
    except MinioAdminException as error:
        if '"XMinioAdminNoSuch' not in str(error):
            raise
        return False
    return True
