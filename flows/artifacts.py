"""What a round shows in the Prefect UI: its tables and curves, no pixels."""

from __future__ import annotations

from prefect.artifacts import create_markdown_artifact

from tasks.history import read_history
from tasks.ledger import report_key
from tasks.report import render_report, round_markdown
from tasks.workspace import Workspace


def publish_round(ws: Workspace, number: int) -> int:
    """Render the report without images, put it in the ledger, and show its tables as an artifact.

    Args:
        ws: the run; every round mirrored in its folder is in the report.
        number: of the round that ledger key and artifact are named after.

    Returns:
        Size of the page, bytes.
    """
    page = render_report(ws.root, ws.hub_home / "report.html", images=False, tested=False)
    ws.store.put(report_key(number), page.read_bytes(), content_type="text/html")
    create_markdown_artifact(
        round_markdown(read_history(ws.rounds)), key=f"round-{number:04d}", description=f"Round {number}"
    )
    return page.stat().st_size
