"""Found the federation: every site tells the hub what its card says, the hub writes down who takes part."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from model.errors import ConfigError, RoundError, UnreadableError
from model.lora import rank_for_volume
from tasks.cases import CARD_FILE, SiteCard
from tasks.identity import read_identity
from tasks.ledger import FEDERATION, base_key, card_key, find_record, plan_key, put_record, roster_key
from tasks.records import Base, FederationRecord, Member, Plan, PublicIdentity
from tasks.registered import Roster, registered
from tasks.settings import Params, founding
from tasks.small_cells import shareable
from tasks.store import Store
from tasks.trust import HUB, have_all_identities, identity_folder
from tasks.workspace import Workspace


def read_card(data_home: Path) -> SiteCard:
    """Read a prepared site's card.

    Args:
        data_home: folder of the site's prepared data.

    Returns:
        What the site tells about its data: counts, ranges and the data's md5.

    Raises:
        UnreadableError: the site was not prepared, or the card is damaged.
    """
    path = data_home / CARD_FILE
    try:
        return SiteCard.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as e:
        raise UnreadableError(f"no usable site card: {e}", str(path), "prepare the site's data again") from e


def prepared_sites(cohort: Path) -> tuple[str, ...]:
    """Names of the sites whose data is prepared, sorted."""
    return tuple(sorted(path.parent.name for path in cohort.glob(f"*/{CARD_FILE}")))


def found_federation(ws: Workspace, base: Base) -> FederationRecord:
    """Publish base, cards, keys and the federation record; a second call with the same sites changes nothing.

    Args:
        ws: the run.
        base: record of the pretrained base, whose file lies in ``ws.base_home``.

    Returns:
        The federation record: the base, and every prepared site with its rank.

    Raises:
        ConfigError: fewer sites than the quorum.
        RoundError: the store holds another federation, of another base or other settings.
    """
    local, store = local_federation(ws, base), ws.store
    identities = have_all_identities(ws.root, prepared_sites(ws.cohort))
    store.ensure_bucket()
    found = find_record(store, FEDERATION, FederationRecord)
    if found is not None and found.base != base:
        raise RoundError(
            f"the federation stands on base {found.base.sha256[:12]}…, this run has {base.sha256[:12]}…",
            FEDERATION,
            "use another bucket or run name for another base",
        )
    opened = find_record(store, plan_key(1), Plan)
    if opened is not None and (opened.base, opened.params) != (base, ws.params):
        raise _foreign(opened)
    if not store.exists(base_key(base.sha256)):
        store.put(base_key(base.sha256), (ws.base_home / f"{base.sha256}.safetensors").read_bytes())
    for site in prepared_sites(ws.cohort):
        card = read_card(ws.data_home(site))
        put_record(store, card_key(site), shareable(card, ws.params.privacy.fewest))
    record = published(ws, local, _list_keys(store, identities))
    if found != record:
        put_record(store, FEDERATION, record)
    return record


def published(ws: Workspace, record: FederationRecord, roster: Roster) -> FederationRecord:
    """The federation with all that the hub vouches for: its own keys, the members' and the settings.

    Args:
        ws: the hub's workspace, or a run of all roles.
        record: base and members.
        roster: the hub's list.

    Returns:
        The whole record.

    Raises:
        KeyFileError: the hub has no keys.
    """
    known = {member.site: roster.identity(member.site) for member in record.members}
    told = {
        "hub": read_identity(identity_folder(ws.root, HUB)).public,
        "identities": {site: identity for site, identity in known.items() if identity},
        "policies": ws.params,
    }
    return record.model_copy(update=told)


def local_federation(ws: Workspace, base: Base) -> FederationRecord:
    """The federation of all sites prepared on this machine.

    Args:
        ws: the run.
        base: record of the pretrained base.

    Returns:
        The base, and every prepared site with its rank.

    Raises:
        ConfigError: fewer sites than the quorum, so that no round could ever close.
    """
    cards = [read_card(ws.data_home(site)) for site in prepared_sites(ws.cohort)]
    quorum = ws.params.federation.quorum
    if len(cards) < quorum:
        raise ConfigError(
            f"the quorum is {quorum}, and there are {len(cards)} sites",
            "federation.quorum",
            f"lower it to at most {len(cards)}, or form more sites" if len(cards) > 1 else "form more sites",
        )
    return FederationRecord(base=base, members=members_of(cards, ws.params))


def _list_keys(store: Store, identities: dict[str, PublicIdentity]) -> Roster:
    """The list of a run of all roles: hospitals that are new come onto it, a key that was revoked stays so."""
    before = roster = registered(store)
    for site in identities.keys() - {HUB} - roster.keys.keys():
        roster = roster.with_identity(site, identities[site])
    roster = roster.model_copy(update={"sites": tuple(sorted(identities.keys() - {HUB}))})
    if roster != before:
        put_record(store, roster_key(), roster)
    return roster


def refuse_foreign(plan: Plan, base: Base, params: Params) -> None:
    """Refuse to go on with the rounds of another run that used the same bucket.

    Members may change from round to round, and so may settings that the model does not stand on
    (:data:`tasks.settings.CHANGEABLE`), so they are not compared.

    Args:
        plan: found in the store.
        base: of this run.
        params: of this run.

    Raises:
        RoundError: base or founding settings differ.
    """
    if plan.base != base or founding(plan.params) != founding(params):
        raise _foreign(plan)


def _foreign(plan: Plan) -> RoundError:
    return RoundError(
        f"this bucket holds another federation: its round {plan.round} has another base or other settings",
        plan_key(plan.round),
        "restore the base and the settings of that run, or use another bucket (CARDIOFED_S3_BUCKET)",
    )


def members_of(cards: list[SiteCard], params: Params) -> tuple[Member, ...]:
    """Invitations with a rank by data volume (:func:`model.lora.rank_for_volume`)."""
    largest = max(card.slices["train"] for card in cards)
    lora = params.lora
    return tuple(
        Member(
            site=card.site,
            train_slices=card.slices["train"],
            dataset_md5=card.dataset_md5,
            rank=rank_for_volume(card.slices["train"], largest, lora.rank_min, lora.rank_max, lora.rank_rule),
        )
        for card in cards
    )
