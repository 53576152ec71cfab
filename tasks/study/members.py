"""The sites of a study in memory: who trains on what, who rates with what, who is honest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import Generator

from model.attacks import DATA_ATTACKS, biased_masks
from model.scanner_shift import ScannerLook, apply_look, site_look
from model.scoring import Panel, choose_slices
from model.seeds import derive_generator
from tasks.cases import CARD_FILE
from tasks.settings import Params
from tasks.slices import Slices, load_slices
from tasks.study.scenarios import Scenario


@dataclass(frozen=True)
class Member:
    """One site.

    Attributes:
        site: its name.
        train: slices it trains on, already falsified where it is an attacker of that kind.
        panel: validation slices it rates with.
        test: untouched but for the scanner's look; read only when the test is opened.
        slices: what it said its training slices were when it joined.
        attacker: whether it does harm, by its data, its update or its ratings.
    """

    site: str
    train: Slices
    panel: Panel
    test: Slices
    slices: int
    attacker: bool


def read_members(home: Path, scenario: Scenario, params: Params, seed: int) -> dict[str, Member]:
    """Read every prepared site and let the scenario loose on it.

    Args:
        home: folder of prepared sites.
        scenario: who looks, lies or labels differently.
        params: grid, and the number of rating slices.
        seed: of the scanners' looks and of what attackers draw.

    Returns:
        Site → member, by name.

    Raises:
        UnreadableError: a site's slices cannot be read.
    """
    sites = sorted(card.parent.name for card in home.glob(f"*/{CARD_FILE}"))
    return {site: _member(home / site, sites.index(site), scenario, params, seed) for site in sites}


def _member(home: Path, place: int, scenario: Scenario, params: Params, seed: int) -> Member:
    sides = {side: load_slices(home, side) for side in ("train", "validation", "test")}
    slices = len(sides["train"].z)
    if scenario.scanners:
        look = site_look(derive_generator(seed, "look", place))
        sides = {
            side: _seen(s, look, derive_generator(seed, "look", place, side)) for side, s in sides.items()
        }
    attacker = place in scenario.attackers
    if attacker and scenario.attack in DATA_ATTACKS:
        for side in scenario.falsified:
            sides[side] = _falsified(
                sides[side], scenario.attack, derive_generator(seed, "attack", place, side)
            )
    rater = sides["validation"]
    biased, tiny = (place in scenario.raters and scenario.rater_fault == f for f in ("biased", "tiny"))
    if biased:
        rater = replace(rater, masks=biased_masks(rater.masks))
    chosen = choose_slices(rater.phase, rater.patient, rater.z, 4 if tiny else params.rating.slices)
    case = rater.patient[chosen] * 2 + rater.phase[chosen]
    panel = Panel(rater.images[chosen], rater.masks[chosen], case)
    return Member(home.name, sides["train"], panel, sides["test"], slices, attacker)


def _seen(slices: Slices, look: ScannerLook, generator: Generator) -> Slices:
    return replace(slices, images=apply_look(slices.images, look, generator))


def _falsified(slices: Slices, attack: str, generator: Generator) -> Slices:
    images, masks = DATA_ATTACKS[attack](slices.images, slices.masks, generator)
    copies = images.shape[0] // slices.images.shape[0]
    return Slices(
        images, masks, slices.patient.repeat(copies), slices.phase.repeat(copies), slices.z.repeat(copies)
    )
