"""Words of strangers in what people read: terminals and pages show them, and do nothing else with them."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from flows.progress import advance, progress_bar
from flows.status import status_table
from flows.words import admitted
from tasks.limits import explain
from tasks.records import Candidates, Refusal
from tasks.report import _environment
from tasks.standing import RoundStanding, SiteStanding

WORDS = ["[/]", "[/red] x", "[bold]x", "[link=file:///etc]x[/link]", "\\[/x]", "[[[/", "](http://x)"]


def standing(note: str) -> RoundStanding:
    site = SiteStanding(
        site="lakeside",
        steps=("invited",),
        times={},
        doing="",
        contact_s=None,
        trainings=0,
        sent_bytes=0,
        received_bytes=0,
        note=note,
    )
    return RoundStanding(
        1, "failed", f"1 update was admitted, the quorum is 2; without: lakeside ({note})", 1.0, (site,)
    )


@pytest.mark.parametrize("words", WORDS)
def test_a_refusal_stands_in_the_status_as_it_was_said(words: str) -> None:
    out = io.StringIO()
    Console(file=out, width=200).print(status_table(standing(words)))
    assert "".join(out.getvalue().split()).count("".join(words.split())) == 2  # lines are folded


@pytest.mark.parametrize("words", WORDS)
def test_a_refusal_does_not_break_the_progress_bar(words: str) -> None:
    record = Candidates(
        round=1,
        plan_sha256="0" * 64,
        candidates=(),
        nonce="",
        assigned={},
        quarantined=(Refusal(site="a", reason=words),),
        missing=(),
    )
    with progress_bar("round", 1):
        advance(admitted(record))


def test_a_page_shows_tags_as_text() -> None:
    page = _environment().from_string("{{ words }}").render(words="<script>alert(1)</script>")
    assert "<script" not in page


def test_an_explanation_opens_no_tag_and_makes_no_link() -> None:
    said = explain("see [this](https://evil.example) <img src=x> [/bold] `run`")
    assert said == "see [this] (https: //evil.example) ‹img src=x› [ /bold] 'run'"
