"""What stands around records: their seals, age's envelopes, lines of the audit log, the keys that a hospital offers."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random

from pyrage.x25519 import Identity as AgeKey

from model.errors import CardiofedError
from tasks.audit.entry import GENESIS, Fact, line_of, read_line
from tasks.files import json_bytes
from tasks.key_offer import Offer
from tasks.keys import new_token, token_key
from tasks.limits import OF_SITE, parse_record
from tasks.records import PublicIdentity
from tasks.seal import NOTHING_SEEN, open_seal, seal
from tasks.sealed_box import open_sealed, seal_for

from .mutate import damage_bytes, damage_json
from .targets import Target, record_seeds, refused

PLACE = "sites/st-anna/key.json"
Envelope = tuple[str, bytes]


def envelopes() -> Target:
    """Damaged envelopes of all four kinds; a seal or an age file that was changed must never open."""
    key, age = token_key(new_token()), AgeKey.generate()
    record = record_seeds()[0][2]
    fact = Fact("uploaded", 2, "st-anna", "sites/st-anna/rounds/0002/update.json", "0" * 64, 2000)
    offer = Offer(
        site="st-anna",
        identity=PublicIdentity(sign=key.public, age=str(age.to_public())),
        proof="A" * 86 + "==",
    )
    seeds: dict[str, bytes] = {
        "seal": seal(key, PLACE, NOTHING_SEEN, record),
        "age": seal_for(record, [str(age.to_public())]),
        "line": line_of(0, fact, datetime(2026, 1, 1, tzinfo=UTC), GENESIS),
        "offer": json_bytes(offer.model_dump(mode="json")),
    }

    def make(draw: Random) -> Envelope:
        what = draw.choice(list(seeds))
        damage = damage_bytes if what in ("seal", "age") else damage_json
        return what, damage(draw, seeds[what])

    def read(sent: Envelope, _draw: Random) -> str:
        what, data = sent
        try:
            match what:
                case "seal":
                    assert open_seal(data, PLACE, key.public) == record and data == seeds["seal"]
                case "age":
                    assert open_sealed(data, [age], PLACE) == record
                case "line":
                    read_line(data, PLACE)
                case _:
                    parse_record(data, Offer, PLACE, OF_SITE)
        except CardiofedError as error:
            return refused(error)
        return "accepted"

    return Target(make, read)
