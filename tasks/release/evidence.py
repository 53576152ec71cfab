"""What the gate knows of patients: from the cases on this machine, or from what the hospitals tell of theirs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tasks.answers import find_answer
from tasks.cases import SiteCard
from tasks.clinical.strata import NOT_STATED
from tasks.enrol import prepared_sites, read_card
from tasks.ledger import card_key, evaluation_key
from tasks.records import Evaluation, PairedCell, Plan
from tasks.release.paired import paired_cells, strata_of
from tasks.release.records import Model, Silent, SiteData
from tasks.release.validate import validation_tables
from tasks.workspace import Workspace


@dataclass(frozen=True)
class Evidence:
    """Both models on patients, as sums.

    Attributes:
        cells: of all sites.
        strata: kind → names of all strata that the sites have patients of, however few.
        data: of the sites that were heard, what their cards say.
        silent: sites of whose patients nothing is known.
    """

    cells: tuple[PairedCell, ...]
    strata: dict[str, set[str]]
    data: tuple[SiteData, ...]
    silent: tuple[Silent, ...] = ()


def evidence_here(ws: Workspace, cohort: Path, candidate: Model, released: Model) -> Evidence:
    """Compare two models on the validation patients of all sites that are prepared on this machine.

    Args:
        ws: the run, with the parts of both models.
        cohort: parent of the prepared sites.
        candidate: the model that is to be released.
        released: the one in use.

    Returns:
        What was found.
    """
    tables = validation_tables(ws, cohort, candidate, released)
    cells = [cell for table in tables.values() for cell in paired_cells(table)]
    strata = _union(strata_of(table) for table in tables.values())
    return Evidence(tuple(cells), strata, tuple(_data(read_card(cohort / s)) for s in prepared_sites(cohort)))


def evidence_told(ws: Workspace, plan: Plan, candidate: Model, released: Model) -> Evidence:
    """Read what the hospitals' evaluations of a round say of its model beside the released one.

    Args:
        ws: the hub.
        plan: of the round.
        candidate: the round's model.
        released: the one in use.

    Returns:
        What was said of these very models; who said nothing is named, with the reason.

    Raises:
        StoreError: the store does not answer.
    """
    cells: list[PairedCell] = []
    data, strata, silent = [], [], []
    for member in plan.members:
        card = find_answer(ws.store, card_key(member.site), SiteCard)
        strata.append(_named(card))
        told = _told(ws, plan.round, member.site, candidate, released, card)
        if isinstance(told, str):
            silent.append(Silent(site=member.site, reason=told))
        else:
            cells += told
            data += [_data(card)] if card else []
    return Evidence(tuple(cells), _union(strata), tuple(data), tuple(silent))


def _told(
    ws: Workspace, number: int, site: str, candidate: Model, released: Model, card: SiteCard | None
) -> tuple[PairedCell, ...] | str:
    """A hospital's cells, or why they cannot be heard."""
    said = find_answer(ws.store, evaluation_key(site, number), Evaluation)
    if said is None or (said.site, said.round) != (site, number):
        return "it has not evaluated this round"
    if said.model_sha256 != candidate.sha256:
        return "it has evaluated another model"
    if said.against is None or not said.against.cells:
        return "too few patients to tell of them"
    if said.against.model_sha256 != released.sha256:
        return f"it has compared with {said.against.release}"
    most = card.patients.get("validation") if card else None
    if most is None or max(cell.patients for cell in said.against.cells) > most:
        return "it tells of more validation patients than its card has"
    return said.against.cells


def _named(card: SiteCard | None) -> dict[str, set[str]]:
    """Strata that a card names, those that it does not count among them."""
    if card is None:
        return {}
    hidden = [name.partition(".") for name in card.suppressed]
    named = {
        kind: {*counts, *(name for column, _, name in hidden if column == f"{kind}s")}
        for kind, counts in (("group", card.groups), ("vendor", card.vendors))
    }
    return {kind: {name or NOT_STATED for name in names} for kind, names in named.items() if names != {""}}


def _data(card: SiteCard) -> SiteData:
    return SiteData(site=card.site, patients=card.patients, groups=card.groups)


def _union(parts: Iterable[dict[str, set[str]]]) -> dict[str, set[str]]:
    strata: dict[str, set[str]] = defaultdict(set)
    for part in parts:
        for kind, names in part.items():
            strata[kind] |= names
    return dict(strata)
