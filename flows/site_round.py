"""A hospital's part in a round: what the hub's call starts there, and what Retry starts again."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import Field

from flows import phases
from flows.compute import one_thread_each
from flows.only_one import only_one
from model.errors import CardiofedError
from tasks.homes import this_home
from tasks.privacy import keep_errors
from tasks.site_round import Verb, next_duty, take_part, told_refusal

VERBS: dict[Any, Verb] = {
    "train": phases.train,
    "rate": phases.rate,
    "judge": phases.judge,
    "adapt": phases.adapt,
}

Round = Annotated[int, Field(ge=1, le=9999, description="Number of the round, as the hub opened it.")]
Patience = Annotated[
    int, Field(ge=0, le=86_400, description="Seconds to wait for the hub and the others before giving up.")
]


@flow(name="site-round")
def site_round(round: Round, patience_s: Patience = 3600) -> State[Any]:
    """Train, rate, judge and adapt at this hospital, each when the ledger says that it is time.

    What the ledger already holds is not done again. So Retry does only what is missing.

    Args:
        round: number of the round, as the hub opened it.
        patience_s: seconds to wait for the hub and the others before giving up; Retry goes on.

    Returns:
        Completed with what was done; failed where the hub does not go on.
    """
    one_thread_each()
    ws, home = this_home()
    keep_errors(ws.root)
    try:
        with only_one(ws.root):
            done = take_part(ws, round, home.name, float(patience_s), VERBS)
            left = next_duty(ws, round, home.name)
            refused = told_refusal(ws, round, home.name)
    except CardiofedError as error:
        return Failed(
            message=str(error)
        )  # an exception that is raised is kept as a pickle, and the hub told where
    if left != "over":
        said = f"the hub has not gone on for {patience_s} s; retry this run when it works again"
        return Failed(message=said)
    if refused:
        said = f"the hub did not admit this site's update: {refused}"
        return Completed(name="Quarantined", message=said)
    if not done:
        return Completed(
            name="Nothing to do", message="the ledger holds this site's part, or the round is over"
        )
    return Completed(message=f"done: {', '.join(done)}")
