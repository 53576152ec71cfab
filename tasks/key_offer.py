"""How a hospital's key gets onto the hub's list: its invitation holds a one-time key that vouches for one other.

The hub keeps the one-time key's public half alone, so whoever can read the whole store still cannot join in a
hospital's place.
"""

from __future__ import annotations

from pydantic import Field

from model.errors import IntegrityError, ObjectMissingError, PackageError, SignatureError, TrustError
from tasks.files import json_bytes
from tasks.keys import Key, fingerprint, new_token, token_key, verify
from tasks.ledger import find_record, invitations_key, key_key, put_record
from tasks.limits import OF_SITE, explain, parse_record
from tasks.records import PublicIdentity, Record
from tasks.registered import Roster
from tasks.seal import SEAL_BYTES, split_seal
from tasks.store import Store

_MEND = "ask the hub for a new invitation: `cardiofed hub rotate`"


class Offer(Record):
    """The keys that a hospital wants to be known by."""

    site: str
    identity: PublicIdentity
    proof: str = Field(description="signature by the invitation's one-time key over name and keys")


class OneTimeKey(Record):
    """An invitation as the hub remembers it."""

    public: str = Field(description="half of the invitation's one-time key")
    used_by: str = Field("", description="the signing key that it vouched for")


class Invitations(Record):
    """The last invitation of every hospital."""

    by_site: dict[str, OneTimeKey] = Field({})


def new_invitation(store: Store, site: str) -> str:
    """Make the one-time key of an invitation; an earlier one of the same hospital ends.

    Args:
        store: the hub's.
        site: that is invited.

    Returns:
        The secret half, for the invitation's file alone.
    """
    token = new_token()
    known = _invitations(store).by_site
    fresh = OneTimeKey(public=token_key(token).public)
    put_record(store, invitations_key(), Invitations(by_site=known | {site: fresh}))
    return token


def offer_key(store: Store, site: str, identity: PublicIdentity, token: str) -> None:
    """Tell the hub a hospital's keys, vouched for by its invitation.

    Args:
        store: the hospital's.
        site: its name.
        identity: its public keys.
        token: of the invitation.

    Raises:
        TrustError: the invitation was used for other keys.
        StoreError: the store does not take it.
    """
    one_time = token_key(token)
    found = _found_offer(store, site)
    if found is not None and found.identity != identity and _is_vouched(found, one_time.public):
        what = f"this invitation was used: the key {fingerprint(found.identity.sign)} has joined as '{site}' with it"
        mend = "if that was not you, tell the hub at once, to revoke it; else ask for a new invitation"
        raise TrustError(what, key_key(site), mend)
    offer = Offer(site=site, identity=identity, proof=_proof(one_time, site, identity))
    put_record(store, key_key(site), offer)


def take_offers(store: Store, roster: Roster) -> Roster:
    """The hub's list after every key that an unused invitation vouches for was registered.

    Args:
        store: the hub's.
        roster: the list before.

    Returns:
        The list, with the reason for each key that was not registered; the invitations' use is written down.
    """
    refused: dict[str, str] = {}
    for site in roster.sites:
        try:
            identity = _new_identity(store, roster, site)
        except ObjectMissingError:
            continue
        except (IntegrityError, PackageError, TrustError) as error:
            refused[site] = explain(error.what)
            continue
        roster = roster if identity is None else roster.with_identity(site, identity)
    return roster.model_copy(update={"refused": refused})


def _new_identity(store: Store, roster: Roster, site: str) -> PublicIdentity | None:
    """What is to be registered for a hospital, its invitation's use written down; None when nothing new is offered.

    Args:
        store: the hub's.
        roster: the list.
        site: on the list.

    Returns:
        The public keys that were offered, or None.

    Raises:
        TrustError: the offer may not be taken.
    """
    offer, known = _read_offer(store, site), _invitations(store).by_site
    invitation, sign = known.get(site), offer.identity.sign
    vouched = invitation is not None and _is_vouched(offer, invitation.public)
    state = roster.state(site, offer.identity)
    if state is not None and not (vouched and invitation and not invitation.used_by):
        return None
    if state == "revoked":
        raise TrustError(
            f"the key {fingerprint(sign)} was revoked", key_key(site), "have the hospital make another"
        )
    if invitation is None or not vouched:
        what = f"the key {fingerprint(sign)} is not vouched for by the last invitation of '{site}'"
        raise TrustError(what, key_key(site), _MEND)
    if invitation.used_by not in ("", sign):
        what = f"the invitation of '{site}' was used by {fingerprint(invitation.used_by)}, not {fingerprint(sign)}"
        raise TrustError(what, key_key(site), _MEND)
    used = invitation.model_copy(update={"used_by": sign})
    put_record(store, invitations_key(), Invitations(by_site=known | {site: used}))
    return offer.identity


def _read_offer(store: Store, site: str) -> Offer:
    """What a hospital offers, sealed by the very key that it offers."""
    place = key_key(site)
    sealed = split_seal(store.get(place, max_bytes=OF_SITE.n_bytes + SEAL_BYTES), place)
    sealed.check(place)
    offer = parse_record(sealed.record, Offer, place, OF_SITE)
    if (offer.site, offer.identity.sign) != (site, sealed.key):
        raise SignatureError("the key that is offered is not the one it is sealed by", place, _MEND)
    return offer


def _found_offer(store: Store, site: str) -> Offer | None:
    try:
        return _read_offer(store, site)
    except (ObjectMissingError, IntegrityError, PackageError, SignatureError):
        return None


def _invitations(store: Store) -> Invitations:
    return find_record(store, invitations_key(), Invitations) or Invitations()


def _proof(one_time: Key, site: str, identity: PublicIdentity) -> str:
    return one_time.sign(_vouched(site, identity))


def _is_vouched(offer: Offer, public: str) -> bool:
    try:
        verify(public, _vouched(offer.site, offer.identity), offer.proof, key_key(offer.site))
    except SignatureError:
        return False
    return True


def _vouched(site: str, identity: PublicIdentity) -> bytes:
    return f"cardiofed-join 1\n{site}\n".encode() + json_bytes(identity.model_dump(mode="json"))
