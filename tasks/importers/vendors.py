"""Vendors by one name each: a header's own words may hold anything, a hospital's name included."""

from __future__ import annotations

import re

from tasks.importers.found import NOT_SAID

_VENDORS = (
    ("Siemens", "siemens"),
    ("Philips", "philips"),
    ("GE", "ge medical|ge health|general electric|^ge$"),
    ("Canon", "canon|toshiba"),
    ("United Imaging", "united imaging|uih"),
    ("Fujifilm", "fuji|hitachi"),
    ("Esaote", "esaote"),
)
OTHER = "other"
_WORD = re.compile(r"[^A-Za-z0-9 +-]+")


def vendor_name(text: str) -> str:
    """The vendor that a header means; ``other`` for one that is not listed, ``unknown`` for an empty text."""
    plain = text.strip().lower()
    if not plain or plain == NOT_SAID:
        return NOT_SAID
    return next((name for name, pattern in _VENDORS if re.search(pattern, plain)), OTHER)


def short_word(text: str) -> str:
    """A centre or a group as a word for a table: 20 plain characters at most; ``unknown`` when nothing is left."""
    return _WORD.sub(" ", text).strip()[:20].strip() or NOT_SAID
