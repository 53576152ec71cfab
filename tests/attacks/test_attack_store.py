"""A hospital's credentials in the wrong hands, or used for what is another's; names that mean more than a name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from federation_files import PARAMS_FILE, tiny_params

from flows import invitations
from flows.invitations import take_own_secret
from infra import s3_users
from infra.s3_server import S3Server
from infra.s3_users import S3User, make_user, remove_user
from model.errors import ConfigError, ServerError, StoreDeniedError
from tasks.events import log_event
from tasks.homes import Credentials, Home, Invitation, enter_home, open_workspace, write_home
from tasks.join import enter
from tasks.keys import new_token, token_key
from tasks.records import PublicIdentity
from tasks.settings import Environment
from tasks.store import Store

BUCKET, OWN, OTHER = "attack-store", "lakeside", "st-anna"
THEIRS, OURS = f"sites/{OTHER}/card.json", f"sites/{OWN}/card.json"


class Hub:
    """The store's administrator, and users as the hub makes them."""

    def __init__(self, server: S3Server) -> None:
        self._server = server
        self._root = S3User(server.access_key, server.secret_key)
        self.store = Store(server.environment(BUCKET))
        self.store.ensure_bucket()
        for key in (THEIRS, OURS):
            self.store.put(key, b"as it was")

    def invitation(self, site: str) -> Invitation:
        user, home = make_user(self._server.url, self._root, site, BUCKET), self._server.environment(BUCKET)
        return Invitation(
            home=Home(name=site, s3_endpoint=home.s3_endpoint, s3_bucket=BUCKET),
            access_key=user.access_key,
            secret_key=user.secret_key,
            params=tiny_params(),
            hub=PublicIdentity(sign=token_key(new_token()).public, age="age1"),
            token=new_token(),
        )

    def as_told_by(self, invitation: Invitation) -> Store:
        """Whoever has the file."""
        return self._as(S3User(invitation.access_key, invitation.secret_key))

    def invite(self, site: str) -> Store:
        return self._as(make_user(self._server.url, self._root, site, BUCKET))

    def _as(self, user: S3User) -> Store:
        env = self._server.environment(BUCKET).model_dump()
        own = {"s3_access_key": user.access_key, "s3_secret_key": user.secret_key}
        return Store(Environment.model_validate({**env, **own}))

    def revoke(self, site: str) -> None:
        remove_user(self._server.url, self._root, site)


@pytest.fixture
def hub(s3_server: S3Server) -> Iterator[Hub]:
    made = Hub(s3_server)
    yield made
    made.revoke(OWN)


def refuse(*_: object) -> None:
    """A store that lets nobody change a secret."""
    raise ServerError("the store gave no new secret", "store", "by hand")


def everything(*_: object) -> dict[str, object]:
    """The policy that a store without policies has for everybody."""
    allowed = {"Effect": "Allow", "Action": ["s3:*"], "Resource": ["arn:aws:s3:::*"]}
    return {"Version": "2012-10-17", "Statement": [allowed]}


def test_cross_site_read_and_write(hub: Hub, off: pytest.MonkeyPatch) -> None:
    off.setattr(s3_users, "site_policy", everything)
    thief = hub.invite(OWN)
    assert thief.get(THEIRS) == b"as it was"
    thief.put(THEIRS, b"forged")
    assert hub.store.get(THEIRS) == b"forged"
    off.undo()
    thief = hub.invite(OWN)
    with pytest.raises(StoreDeniedError):
        thief.get(THEIRS)
    with pytest.raises(StoreDeniedError):
        thief.put(THEIRS, b"forged again")
    assert hub.store.get(THEIRS) == b"forged"
    thief.put(OURS, b"its own")


def test_used_invitation_that_somebody_finds(hub: Hub, tmp_path: Path, off: pytest.MonkeyPatch) -> None:
    """The file lies in a mailbox long after its hospital has joined."""
    invitation, folder = hub.invitation(OWN), tmp_path / OWN
    enter(folder, invitation)
    off.setattr(invitations, "change_secret", refuse)
    assert not take_own_secret(folder, invitation)
    assert hub.as_told_by(invitation).get(OURS) == b"as it was"
    off.undo()
    assert take_own_secret(folder, invitation)
    with pytest.raises(StoreDeniedError):
        hub.as_told_by(invitation).get(OURS)
    assert enter_home(folder)[0].store.get(OURS) == b"as it was"


def test_stolen_credentials_after_revoke(hub: Hub, off: pytest.MonkeyPatch) -> None:
    thief = hub.invite(OWN)
    off.setattr("minio.minioadmin.MinioAdmin.user_remove", lambda *_: "")
    off.setattr("minio.minioadmin.MinioAdmin.policy_remove", lambda *_: "")
    hub.revoke(OWN)
    thief.put(OURS, b"by the thief")
    assert hub.store.get(OURS) == b"by the thief"
    off.undo()
    hub.revoke(OWN)
    with pytest.raises(StoreDeniedError):
        thief.put(OURS, b"by the thief again")
    assert hub.store.get(OURS) == b"by the thief"


def test_path_traversal_in_a_name(tmp_path: Path, off: pytest.MonkeyPatch) -> None:
    """An invitation names the hospital so that what it writes lands beside its folder."""
    folder = tmp_path / "machine"
    own = Credentials.model_validate({"access_key": "a", "secret_key": "b"})
    home = Home(name="../../elsewhere", s3_endpoint="http://127.0.0.1:9")

    def enter() -> None:
        write_home(folder, home, own, tiny_params())
        log_event(open_workspace(folder).site_home(home.name), "train", 1, "done")

    off.setattr("tasks.homes.checked_name", str)
    enter()
    assert (tmp_path / "elsewhere" / "events.jsonl").exists()
    off.undo()
    with pytest.raises(ConfigError, match="cannot be used in a key"):
        enter()
    assert PARAMS_FILE.exists()


def test_path_traversal_in_a_key(hub: Hub, off: pytest.MonkeyPatch) -> None:
    """A hospital is named so that its policy and its keys mean everybody's."""
    off.setattr("infra.store_policies.checked_name", str)
    off.setattr(s3_users, "site_policy", lambda _site, bucket: s3_users.store_policy("*", bucket))
    assert hub.invite(OWN).get(THEIRS)
    off.undo()
    off.setattr(s3_users, "site_policy", lambda _site, bucket: s3_users.store_policy("*", bucket))
    with pytest.raises(ConfigError, match="cannot be used in a key"):
        hub.invite(OWN)
