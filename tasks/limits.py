"""Limits on what others send: a record beyond them is refused early, cheaply and in few words."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from model.errors import PackageError

if TYPE_CHECKING:
    from tasks.cases import SiteCard

T = TypeVar("T", bound=BaseModel)

DEPTH_MAX = 16
"""Records nest 6 deep."""
LONGEST_NUMBER = 40
"""Characters; a double needs 24."""
INT_DIGITS = 18
"""Such a number is a count of everything, and fits 64 bits."""
SLICES_MAX = 1_000_000
"""Of one hospital's training side: 50,000 patients."""
REASON_LETTERS = 300
"""A reason may quote what a site sent, and that has no natural end."""
_FAULTS_NAMED = 10
_FAULTS_LISTED = 1000  # listing a fault takes a kilobyte
_FAULT_LETTERS = 120
_MEND = "whoever wrote it runs another version of the software; write the record again"
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.?[^"\\]*+)*+(?:"|\Z)|[][{},]', re.DOTALL)
_MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")


@dataclass(frozen=True)
class Limits:
    """How much one record may hold.

    Attributes:
        n_bytes: of the whole; a larger object is refused before it is downloaded.
        letters: of one text, names of fields included, which then is printable too; None for any text.
    """

    n_bytes: int
    letters: int | None = None

    @property
    def tokens(self) -> int:
        """Texts, brackets and commas; where values have a usual length there is one for 10 bytes or more."""
        return self.n_bytes // 8


OF_HUB = Limits(8_000_000)
"""The merge of 500 sites comes near this."""
OF_SITE = Limits(1_000_000, letters=300)
"""A passport with the loss of 100,000 steps comes near this; usual are 2 kB."""
INVITATION = Limits(100_000, letters=2000)


def limits_of(key: str) -> Limits:
    """What a record under this ledger key may hold; the hub's grow with the number of sites."""
    return OF_SITE if key.startswith("sites/") else OF_HUB


def parse_record(data: bytes, kind: type[T], where: str, limits: Limits) -> T:
    """Read a record that anybody may have written.

    Size, depth and number of values are known before anything is built of it; numbers are finite and of a usual
    length, and no type is taken for another.

    Args:
        data: JSON.
        kind: what it must be.
        where: it was found, for the error message.
        limits: how much it may hold.

    Returns:
        The record, every field of it present and of the right type.

    Raises:
        PackageError: beyond a limit, not JSON, or fields missing, unknown or of the wrong type.
    """
    try:
        text = _within(data, limits)
        tree = json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_short,
            object_pairs_hook=_refuse_twins,
        )
        if limits.letters is not None:
            _check_texts(tree, limits.letters)
        return kind.model_validate_json(data, strict=True)
    except ValidationError as error:
        raise PackageError(f"no valid {kind.__name__}: {told(error)}", where, _MEND) from None
    except (ValueError, RecursionError) as error:
        said = explain(str(error), _FAULT_LETTERS)
        raise PackageError(f"no JSON for a {kind.__name__}: {said}", where, _MEND) from None


def told(error: ValidationError) -> str:
    """The faults of a record in one line, the first of many; names of fields come from its writer, so they are cut."""
    count = error.error_count()
    if count > _FAULTS_LISTED:
        return f"{count} faults"
    listed = error.errors(include_url=False, include_context=False, include_input=False)
    named = [
        explain(f"{'.'.join(map(str, fault['loc'])) or '(all)'}: {fault['msg']}", _FAULT_LETTERS)
        for fault in listed[:_FAULTS_NAMED]
    ]
    more = [f"and {count - _FAULTS_NAMED} more"] if count > _FAULTS_NAMED else []
    return "; ".join([*named, *more])


def explain(text: str, letters: int = REASON_LETTERS) -> str:
    """A sentence that may quote a stranger, fit for logs, pages and terminals.

    Args:
        text: any.
        letters: the most that are kept.

    Returns:
        One line of printable characters; nothing in it is a tag or becomes a link.
    """
    plain = "".join(letter if letter.isprintable() else " " for letter in text[: 4 * letters])
    line = " ".join(plain.split()).replace("<", "‹").replace(">", "›")
    line = line.replace("](", "] (").replace("[/", "[ /").replace("://", ": //").replace("`", "'")
    return line if len(line) <= letters else f"{line[: letters - 1]}…"


def is_sound(card: SiteCard) -> bool:
    """Whether a hospital's card says of its data what a round can be planned with."""
    return 1 <= card.slices.get("train", 0) <= SLICES_MAX and _MD5.fullmatch(card.dataset_md5) is not None


def _within(data: bytes, limits: Limits) -> str:
    """The text of a record, when its brackets and commas promise no more than the limits."""
    if len(data) > limits.n_bytes:
        raise ValueError(f"{len(data)} bytes, at most {limits.n_bytes} are read")
    text = data.decode()
    depth, most = 0, limits.tokens
    for count, token in enumerate(_TOKEN.finditer(text)):
        sign = text[token.start()]
        depth += (sign in "[{") - (sign in "]}")
        if not 0 <= depth <= DEPTH_MAX:
            raise ValueError("a bracket closes nothing" if depth < 0 else f"nested deeper than {DEPTH_MAX}")
        if count == most:
            raise ValueError(f"more than {most} values")
    return text


def _check_texts(tree: Any, letters: int) -> None:
    left = [tree]
    while left:
        node = left.pop()
        if isinstance(node, dict):
            left += [*node.keys(), *node.values()]
        elif isinstance(node, list):
            left += node
        elif isinstance(node, str) and not (len(node) <= letters and node.isprintable()):
            said = (
                f"{len(node)} letters, at most {letters} are read"
                if node.isprintable()
                else "signs that do not print"
            )
            raise ValueError(f"a text with {said}")


def _finite(digits: str) -> float:
    value = float(digits) if len(digits) <= LONGEST_NUMBER else math.inf
    if not math.isfinite(value):
        raise ValueError(f"{digits[:20]} is no usual number")
    return value


def _short(digits: str) -> int:
    if len(digits.removeprefix("-")) > INT_DIGITS:
        raise ValueError(f"{digits[:20]}… is no usual number")
    return int(digits)


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _refuse_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        raise ValueError("a field stands there twice")
    return tree
