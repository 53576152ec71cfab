"""A hospital that is invited joins with its file alone, takes part by cron, and can be let go."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
from doctor_files import SITE, Federation, federation, findings
from federation_files import delete, tiny_params, write_hospitals
from typer.testing import CliRunner

from flows import invitations
from flows.cli import app
from flows.invitations import (
    dismiss_site,
    invite_site,
    revoke_site,
    rotate_site,
    take_own_secret,
    user_by_hand,
    write_invitation,
)
from infra.s3_users import S3User, change_secret
from model.errors import ConfigError, ServerError, SignatureError, StoreDeniedError, TrustError
from tasks.cases import SiteCard
from tasks.homes import enter_home, read_credentials, read_home, read_invitation
from tasks.identity import read_identity
from tasks.join import enter, join, offer
from tasks.keys import new_token
from tasks.ledger import card_key, federation_key, get_record, key_key, update_key
from tasks.open import open_round
from tasks.records import FederationRecord, Update
from tasks.roster import read_roster
from tasks.visits import absence_s

__all__ = ["federation"]

NEW = "seaview"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One hospital's data set."""
    return sorted(path for path in write_hospitals(tmp_path / "data").iterdir() if path.is_dir())[0]


def test_an_invitation_is_all_that_a_hospital_needs_to_join(
    federation: Federation, data: Path, tmp_path: Path
) -> None:
    file = tmp_path / "invitation"
    write_invitation(invite_site(federation.hub, NEW), file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    join(tmp_path / NEW, read_invitation(file), data, "acdc")
    assert NEW in [member.site for member in open_round(federation.gather(), 1).members]
    assert get_record(federation.store, card_key(NEW), SiteCard).site == NEW


def test_a_hospital_without_prefect_takes_part_by_cron_with_the_store_alone(
    federation: Federation, data: Path, tmp_path: Path
) -> None:
    join(tmp_path / NEW, invite_site(federation.hub, NEW), data, "acdc")
    open_round(federation.gather(), 1)
    done = CliRunner().invoke(app, ["site", "run", "--home", str(tmp_path / NEW)])
    assert (done.exit_code, "round 1: train" in done.output) == (0, True), done.output
    assert get_record(federation.store, update_key(NEW, 1), Update).site == NEW
    assert absence_s(federation.store, NEW, federation.store.now()) == 2 * 3600
    again = CliRunner().invoke(app, ["site", "run", "--home", str(tmp_path / NEW)])
    assert "nothing to do" in again.output


def test_who_is_invited_again_gets_a_new_secret_and_the_old_one_ends(
    federation: Federation, data: Path, tmp_path: Path
) -> None:
    first = invite_site(federation.hub, NEW)
    join(tmp_path / NEW, first, data, "acdc")
    invite_site(federation.hub, NEW)
    ws, _ = enter_home(tmp_path / NEW)
    with pytest.raises(StoreDeniedError):
        ws.store.put("sites/seaview/card.json", b"{}")


def test_who_is_let_go_is_not_invited_to_the_next_round(federation: Federation) -> None:
    ws = federation.gather()
    gone, *_ = read_roster(ws).sites
    dismiss_site(federation.hub, gone)
    assert gone not in [member.site for member in open_round(federation.gather(), 1).members]
    with pytest.raises(ConfigError, match="is not invited"):
        dismiss_site(federation.hub, gone)


def test_addresses_may_differ_for_hospitals_and_a_user_may_be_made_by_hand(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = read_home(federation.hub).model_copy(update={"s3_endpoint": "https://store.example.org"})
    with pytest.raises(ConfigError, match="no user of the store was named"):
        user_by_hand()
    monkeypatch.setenv("SITE_ACCESS_KEY", "made")
    monkeypatch.setenv("SITE_SECRET_KEY", "by hand")
    told = invite_site(federation.hub, NEW, outside, user_by_hand())
    assert (told.home.name, told.home.s3_endpoint) == (NEW, "https://store.example.org")
    assert user_by_hand() == S3User("made", "by hand")
    assert told.access_key == "made"


def test_a_file_is_never_overwritten_by_an_invitation(federation: Federation, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("mine")
    with pytest.raises(ConfigError, match="there is a file already"):
        write_invitation(invite_site(federation.hub, NEW), tmp_path / "there")
    assert (tmp_path / "there").read_text() == "mine"


def test_a_name_that_cannot_stand_in_a_key_is_refused_before_anything_is_made(federation: Federation) -> None:
    ws, _ = enter_home(federation.hub)
    before = read_roster(ws)
    with pytest.raises(ConfigError, match="cannot be used in a key"):
        invite_site(federation.hub, "../up")
    assert read_roster(ws) == before


@pytest.mark.parametrize("name", ["Sea View", "../x", "site/a", "-x", ""])
def test_a_name_that_cannot_stand_in_a_key_is_refused_before_anybody_hears_of_it(
    federation: Federation, tmp_path: Path, name: str
) -> None:
    before = read_roster(federation.gather())
    command = ["hub", "invite", "--home", str(federation.hub), "--out", str(tmp_path / "file"), "--", name]
    refused = CliRunner().invoke(app, command)
    assert isinstance(refused.exception, ConfigError) and "cannot be used" in refused.exception.what
    assert read_roster(federation.gather()) == before


def test_an_invitation_takes_no_file_that_is_there_and_leaves_the_old_secret_in_force(
    federation: Federation, data: Path, tmp_path: Path
) -> None:
    join(tmp_path / NEW, invite_site(federation.hub, NEW), data, "acdc")
    command = ["hub", "invite", NEW, "--home", str(federation.hub), "--out", str(tmp_path / NEW)]
    assert isinstance(CliRunner().invoke(app, command).exception, ConfigError)
    ws, _ = enter_home(tmp_path / NEW)
    assert ws.store.exists(card_key(NEW))


def test_a_hospitals_key_is_registered_once_it_has_joined(
    federation: Federation, data: Path, tmp_path: Path
) -> None:
    join(tmp_path / NEW, invite_site(federation.hub, NEW), data, "acdc")
    roster = read_roster(federation.gather())
    own = read_identity(tmp_path / NEW).public
    assert roster.identity(NEW) == own and NEW not in roster.refused
    told = get_record(federation.store, federation_key(), FederationRecord)
    assert told.identities[NEW] == own and told.hub == read_identity(federation.hub).public
    assert told.policies == tiny_params()


def test_an_invitation_works_once(federation: Federation, data: Path, tmp_path: Path) -> None:
    invitation = invite_site(federation.hub, NEW)
    join(tmp_path / NEW, invitation, data, "acdc")
    federation.gather()
    with pytest.raises(TrustError, match="this invitation was used"):
        join(tmp_path / "thief", invitation, data, "acdc")
    join(tmp_path / NEW, invitation, data, "acdc")  # the hospital itself may run it again
    assert read_roster(federation.gather()).identity(NEW) == read_identity(tmp_path / NEW).public


def test_a_key_that_is_offered_with_a_used_invitation_is_refused_and_shown(
    federation: Federation, data: Path, tmp_path: Path
) -> None:
    invitation = invite_site(federation.hub, NEW)
    join(tmp_path / NEW, invitation, data, "acdc")
    first = read_roster(federation.gather()).identity(NEW)
    enter(tmp_path / "thief", invitation)
    delete(federation.store, key_key(NEW))  # as one could who holds the store
    offer(tmp_path / "thief", invitation)
    roster = read_roster(federation.gather())
    assert roster.identity(NEW) == first
    assert "was used by" in roster.refused[NEW]
    shown = findings(federation.hub)["registration"]
    assert shown.level == "warning" and "was used by" in shown.said
    assert findings(tmp_path / "thief")["registration"].level == "failed"


def test_a_key_that_no_invitation_vouches_for_is_refused(
    federation: Federation, data: Path, tmp_path: Path
) -> None:
    forged = invite_site(federation.hub, NEW).model_copy(update={"token": new_token()})
    join(tmp_path / NEW, forged, data, "acdc")
    roster = read_roster(federation.gather())
    assert roster.identity(NEW) is None and "is not vouched for" in roster.refused[NEW]


def test_a_rotated_hospital_keeps_its_key_until_the_new_one_is_registered(
    federation: Federation, data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / NEW
    join(folder, invite_site(federation.hub, NEW), data, "acdc")
    old = read_roster(federation.gather()).identity(NEW)
    again = rotate_site(federation.hub, NEW)
    assert read_roster(federation.gather()).identity(NEW) == old
    join(folder, again, data, "acdc")
    new = read_identity(folder).public
    assert new != old
    join(folder, again, data, "acdc")
    assert read_identity(folder).public == new
    roster = read_roster(federation.gather())
    assert roster.identity(NEW) == new and old is not None and roster.state(NEW, old) == "replaced"
    assert {found.level for found in findings(folder).values()} == {"ok"}


def test_a_key_that_is_rotated_now_ends_before_there_is_another(federation: Federation) -> None:
    again = rotate_site(federation.hub, SITE, now=True)
    assert again.replaces and read_roster(enter_home(federation.hub)[0]).identity(SITE) is None
    with pytest.raises(SignatureError, match="registered no key"):
        get_record(enter_home(federation.hub)[0].store, card_key(SITE), SiteCard)


def test_a_revoked_hospital_is_out_at_once_and_comes_back_with_another_key_only(
    federation: Federation, data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / NEW
    join(folder, invite_site(federation.hub, NEW), data, "acdc")
    federation.gather()
    revoke_site(federation.hub, NEW)
    with pytest.raises(StoreDeniedError):
        enter_home(folder)[0].store.get(card_key(NEW))
    ws = federation.gather()
    assert NEW not in [member.site for member in open_round(ws, 1).members]
    with pytest.raises(SignatureError, match=f"has revoked the key of '{NEW}'"):
        get_record(ws.store, card_key(NEW), SiteCard)
    join(folder, invite_site(federation.hub, NEW).model_copy(update={"replaces": ""}), data, "acdc")
    assert "was revoked" in read_roster(federation.gather()).refused[NEW]
    join(folder, invite_site(federation.hub, NEW), data, "acdc")
    assert read_roster(federation.gather()).identity(NEW) == read_identity(folder).public


def test_who_is_let_go_loses_the_user_of_the_store(
    federation: Federation, data: Path, tmp_path: Path
) -> None:
    join(tmp_path / NEW, invite_site(federation.hub, NEW), data, "acdc")
    dismiss_site(federation.hub, NEW)
    with pytest.raises(StoreDeniedError):
        enter_home(tmp_path / NEW)[0].store.get(card_key(NEW))


def test_an_invitation_of_another_hub_changes_nothing(
    federation: Federation, data: Path, tmp_path: Path
) -> None:
    invitation = invite_site(federation.hub, NEW)
    join(tmp_path / NEW, invitation, data, "acdc")
    before = (tmp_path / NEW / "home.json").read_bytes()
    elsewhere = invitation.home.model_copy(update={"s3_endpoint": "http://127.0.0.1:9"})
    other = invitation.model_copy(update={"hub": read_identity(tmp_path / NEW).public, "home": elsewhere})
    with pytest.raises(TrustError, match="this folder knows the hub as"):
        join(tmp_path / NEW, other, data, "acdc")
    assert (tmp_path / NEW / "home.json").read_bytes() == before


def test_a_hospital_that_joins_has_a_secret_that_no_invitation_tells_and_keeps_it(
    federation: Federation, data: Path, tmp_path: Path
) -> None:
    folder, file = tmp_path / NEW, tmp_path / "invitation"
    invitation = invite_site(federation.hub, NEW)
    write_invitation(invitation, file)
    command = ["site", "join", str(file), "--home", str(folder), "--data", str(data)]
    for _ in range(2):
        joined = CliRunner().invoke(app, command)
        assert joined.exit_code == 0 and "the one in the invitation has ended" in joined.output, joined.output
        own = read_credentials(folder).secret_key.get_secret_value()
        assert own != invitation.secret_key and enter_home(folder)[0].store.exists(card_key(NEW))
    assert stat.S_IMODE((folder / "credentials.json").stat().st_mode) == 0o600
    join(folder, rotate_site(federation.hub, NEW), data, "acdc")
    assert read_credentials(folder).secret_key.get_secret_value() != own


@pytest.mark.parametrize("changed", [False, True])
def test_a_kill_while_the_secret_changes_leaves_one_that_holds(
    federation: Federation, data: Path, tmp_path: Path, changed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, invitation = tmp_path / NEW, invite_site(federation.hub, NEW)
    join(folder, invitation, data, "acdc")

    def killed(*arguments: Any) -> None:
        if changed:
            change_secret(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(invitations, "change_secret", killed)
    with pytest.raises(KeyboardInterrupt):
        take_own_secret(folder, invitation)
    monkeypatch.undo()
    join(folder, invitation, data, "acdc")
    assert take_own_secret(folder, invitation)
    assert enter_home(folder)[0].store.exists(card_key(NEW))


def test_where_the_store_lets_nobody_change_a_secret_the_old_one_holds_and_that_is_said(
    federation: Federation, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> None:
        raise ServerError("the store gave no new secret", "store", "by hand")

    folder, file = tmp_path / NEW, tmp_path / "invitation"
    write_invitation(invite_site(federation.hub, NEW), file)
    monkeypatch.setattr(invitations, "change_secret", refused)
    command = ["site", "join", str(file), "--home", str(folder), "--data", str(data)]
    assert "destroy that file" in " ".join(CliRunner().invoke(app, command).output.split())
    assert enter_home(folder)[0].store.exists(card_key(NEW))
