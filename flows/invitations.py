"""Invite a hospital, renew its keys, let it go: the list in the ledger, and its user in the store."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from pydantic import SecretStr

from infra.s3_users import S3User, change_secret, make_user, remove_user
from model.errors import ConfigError, ServerError
from tasks.files import json_bytes, write_atomic
from tasks.homes import Home, Invitation, enter_home, read_credentials, read_home, write_credentials
from tasks.identity import read_identity
from tasks.join import is_accepted
from tasks.key_offer import new_invitation
from tasks.ledger import checked_name
from tasks.roster import dismiss, end_key, invite, require_invited, revoke
from tasks.trust import refuse_hubs_name


def invite_site(hub: Path, site: str, reached: Home | None = None, user: S3User | None = None) -> Invitation:
    """Put a hospital on the list and give it a user of the store and a one-time key.

    Args:
        hub: the hub's folder.
        site: the hospital's name.
        reached: addresses as the hospital reaches them; the hub's own when left out.
        user: one that was made by hand, where the store does not know MinIO's calls.

    Returns:
        What the hospital needs to join, once. Invited again, it gets a new secret, and the old one ends; its own
        key stays unless the hub has ended it.

    Raises:
        ConfigError: the name cannot be used, or the folder is no hub's.
        TrustError: the name is the hub's.
        KeyFileError: the hub's keys cannot be used.
        ServerError: the store makes no user.
        StoreError: the store does not answer.
    """
    ws, home = enter_home(hub)
    refuse_hubs_name(checked_name(site))
    public = read_identity(hub).public
    given = user or make_user(home.s3_endpoint, _admin(hub), site, home.s3_bucket)
    roster = invite(ws, site)
    return Invitation(
        home=(reached or home).model_copy(update={"name": site}),
        access_key=given.access_key,
        secret_key=given.secret_key,
        params=ws.params,
        hub=public,
        token=new_invitation(ws.store, site),
        replaces=roster.ended(site),
    )


def rotate_site(
    hub: Path, site: str, now: bool = False, reached: Home | None = None, user: S3User | None = None
) -> Invitation:
    """Invite a hospital that has joined anew, to take a new key and a new secret of the store.

    Args:
        hub: the hub's folder.
        site: on the list.
        now: end its key at once; else it holds until the new one is registered.
        reached: addresses as the hospital reaches them; the hub's own when left out.
        user: one that was made by hand.

    Returns:
        What the hospital needs to join again.

    Raises:
        ConfigError: it is not on the list, or the folder is no hub's.
        ServerError: the store makes no user.
        StoreError: the store does not answer.
    """
    ws, _ = enter_home(hub)
    old = require_invited(ws, site).identity(site)
    if now:
        end_key(ws, site)
    invitation = invite_site(hub, site, reached, user)
    return invitation.model_copy(update={"replaces": old.sign}) if old else invitation


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


def take_own_secret(folder: Path, invitation: Invitation) -> bool:
    """Have a hospital that has joined change the secret of the store that its invitation told.

    The new one is written down before the store learns it; joining again finds which of both holds.

    Args:
        folder: the hospital's.
        invitation: that it has joined with.

    Returns:
        Whether the invitation's secret has ended; False where the store lets nobody change it.

    Raises:
        DiskError: the new secret cannot be written down; the old one still holds.
        StoreUnreachableError: the store does not say which of both it takes; join again.
    """
    told = read_credentials(folder)
    if told.secret_key.get_secret_value() != invitation.secret_key:
        return True
    fresh = secrets.token_urlsafe(30)
    write_credentials(folder, told.model_copy(update={"secret_key": SecretStr(fresh)}))
    try:
        change_secret(read_home(folder).s3_endpoint, S3User(told.access_key, invitation.secret_key), fresh)
    except ServerError:
        if is_accepted(folder):  # it was done, and the answer lost
            return True
        write_credentials(folder, told)
        return False
    return True


def dismiss_site(hub: Path, site: str, by_hand: bool = False) -> None:
    """Take a hospital off the list, and its user out of the store; what it has delivered counts.

    Args:
        hub: the hub's folder.
        site: on the list.
        by_hand: leave the user to the store's administrator.

    Raises:
        ConfigError: it is not on the list, or the folder is no hub's.
        ServerError: it is off the list, and the store does not remove its user.
    """
    ws, home = enter_home(hub)
    dismiss(ws, site)
    if not by_hand:
        remove_user(home.s3_endpoint, _admin(hub), site)


def revoke_site(hub: Path, site: str, by_hand: bool = False) -> None:
    """End a hospital's key and its user of the store at once; what it delivered and is not merged is refused.

    Args:
        hub: the hub's folder.
        site: that the hub knows.
        by_hand: leave the user to the store's administrator.

    Raises:
        ConfigError: the hub does not know it, or the folder is no hub's.
        ServerError: its key is revoked, and the store does not remove its user.
    """
    ws, home = enter_home(hub)
    revoke(ws, site)
    if not by_hand:
        remove_user(home.s3_endpoint, _admin(hub), site)


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


def _admin(hub: Path) -> S3User:
    own = read_credentials(hub)
    return S3User(own.access_key, own.secret_key.get_secret_value())
