"""Invite a hospital and let it go: the list in the ledger, its user in the store, its deployment on Prefect."""

from __future__ import annotations

import os
from pathlib import Path

from infra.s3_users import S3User, make_user
from model.errors import ConfigError
from tasks.files import json_bytes, write_atomic
from tasks.homes import Home, Invitation, enter_home, read_credentials
from tasks.ledger import checked_name
from tasks.roster import dismiss, invite


def invite_site(hub: Path, site: str, reached: Home | None = None, user: S3User | None = None) -> Invitation:
    """Put a hospital on the list and give it a user of the store.

    Args:
        hub: the hub's folder.
        site: the hospital's name.
        reached: addresses as the hospital reaches them; the hub's own when left out.
        user: one that was made by hand, where the store does not know MinIO's calls.

    Returns:
        What the hospital needs to join. Invited again, it gets a new secret, and the old one ends.

    Raises:
        ConfigError: the name cannot be used, or the folder is no hub's.
        ServerError: the store makes no user.
        StoreError: the store does not answer.
    """
    ws, home = enter_home(hub)
    checked_name(site)
    own = read_credentials(hub)
    admin = S3User(own.access_key, own.secret_key.get_secret_value())
    given = user or make_user(home.s3_endpoint, admin, site, home.s3_bucket)
    invite(ws, site)
    seen = (reached or home).model_copy(update={"name": site})
    return Invitation(home=seen, access_key=given.access_key, secret_key=given.secret_key, params=ws.params)


def write_invitation(invitation: Invitation, path: Path) -> None:
    """Write an invitation for the owner alone to read.

    Args:
        invitation: holds credentials.
        path: of the file to make.

    Raises:
        ConfigError: there is a file already.
        DiskError: it cannot be written.
    """
    if path.exists():
        raise ConfigError("there is a file already", str(path), "remove it, or name another")
    write_atomic(path, json_bytes(invitation.model_dump(mode="json")), mode=0o600)


def dismiss_site(hub: Path, site: str) -> None:
    """Take a hospital off the list; its user of the store stays until the store's administrator removes it.

    Args:
        hub: the hub's folder.
        site: on the list.

    Raises:
        ConfigError: it is not on the list, or the folder is no hub's.
    """
    ws, _ = enter_home(hub)
    dismiss(ws, site)


def user_by_hand() -> S3User:
    """A user that the store's administrator has made, from SITE_ACCESS_KEY and SITE_SECRET_KEY.

    Returns:
        Its credentials.

    Raises:
        ConfigError: one of them is missing.
    """
    names = ("SITE_ACCESS_KEY", "SITE_SECRET_KEY")
    found = [os.environ.get(name, "") for name in names]
    if not all(found):
        mend = "make the user with the policy of docs/operations.md, and set both"
        raise ConfigError("no user of the store was named", " and ".join(names), mend)
    return S3User(*found)
