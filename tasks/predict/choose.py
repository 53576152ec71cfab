"""Which model segments: the one asked for, or the one the site has chosen, or the released global one."""

from __future__ import annotations

from model.errors import ConfigError
from tasks.predict.choice import choice_in_force, chosen_model
from tasks.predict.ready import NAMES, Name, ReadyModel, offered, ready_model
from tasks.predict.shelf import Shelf


def model_for(shelf: Shelf, asked: str | None, number: int | None) -> tuple[ReadyModel, str]:
    """Find the model to segment with.

    Args:
        shelf: where models lie.
        asked: base, global or personal; None for the default.
        number: of a closed round; None for the chosen one, else the released one's, else the last.

    Returns:
        The model, and why it is this one.

    Raises:
        ConfigError: no such model.
        IntegrityError: what was chosen is not what lies here.
        CardiofedError: as :func:`tasks.predict.ready.ready_model` raises it.
    """
    if asked is not None:
        return ready_model(shelf, checked_model(asked), number), "asked for"
    choice = choice_in_force(shelf)
    if choice is None:
        return ready_model(shelf, "global", number), "the default"
    why = f"the site's choice of {choice.chosen:%Y-%m-%d}"
    if number in (None, choice.round):
        return chosen_model(shelf, choice), why
    return ready_model(shelf, choice.model, number), f"{why}, of another round"


def checked_model(name: str) -> Name:
    """A model's name as the type of its names.

    Args:
        name: as a user has written it.

    Returns:
        The same.

    Raises:
        ConfigError: it is none.
    """
    for known in NAMES:
        if name == known:
            return known
    raise ConfigError(f"'{name}' is no model", "--model", f"use {', '.join(NAMES)}")


def other_model(shelf: Shelf, chosen: ReadyModel) -> ReadyModel | str:
    """The model whose masks are compared with the chosen one's: personal with global, and the reverse.

    Args:
        shelf: where models lie.
        chosen: the one that segments.

    Returns:
        The other one; or, in words, why there is none.
    """
    if chosen.name == "base":
        return "the base has no counterpart"
    if not shelf.site:
        return "no hospital is named whose personal model could be compared"
    if "personal" not in offered(shelf, chosen.round):
        return f"{shelf.site} has no personal adapter of round {chosen.round} here"
    return ready_model(shelf, "global" if chosen.name == "personal" else "personal", chosen.round)
