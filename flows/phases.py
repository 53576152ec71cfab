"""The phases of a round as Prefect tasks: what each is called in the UI, and when trying again can help."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from prefect import Task, get_run_logger
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun

from flows import words
from flows.artifacts import publish_round
from flows.progress import advance
from model.errors import DiskError, StoreDeniedError, StoreError
from tasks.adapt import adapt_site
from tasks.admit import admit_updates
from tasks.audit.hub_facts import versioned
from tasks.audit.record import recorded
from tasks.audit.watch import watched
from tasks.close import close_round
from tasks.compare import average_full, train_alone, train_full
from tasks.enrol import found_federation
from tasks.final import evaluate_test_cases
from tasks.judge import judge_merged
from tasks.merge import merge_updates
from tasks.mirror import keep_round
from tasks.open import open_round
from tasks.privacy import concealed, without_traceback
from tasks.rate import rate_candidates
from tasks.roster import gather as gather_federation
from tasks.train import train_site

P = ParamSpec("P")
R = TypeVar("R")

RETRIES = 3
RETRY_DELAYS_S = [2.0, 10.0, 30.0]

for name in ("prefect.task_runs", "prefect.flow_runs"):
    logging.getLogger(name).addFilter(without_traceback)  # their lines go to the hub


def retrying_can_help(_task: Task[Any, Any], _run: TaskRun, state: State[Any]) -> bool:
    """Only a store or a disk may be well again a moment later; bad data or settings stay bad."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, StoreError | DiskError) and not isinstance(error, StoreDeniedError)


def phase(name: str, function: Callable[P, R], say: Callable[[R], str]) -> Task[P, R]:
    """Wrap one verb as a Prefect task.

    Args:
        name: a template over the verb's arguments, as the UI shows the run: ``train {site}``.
        function: from ``tasks/``; it finds its own result in the ledger when it was done before.
        say: the result in one line of the log; numbers only.

    Returns:
        The task; it is tried again only after faults of store or disk, and Prefect keeps no result of it.
    """

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with concealed():
            result = function(*args, **kwargs)
        get_run_logger().info(say(result))
        advance(say(result))
        return result

    return Task(
        run,
        name=name.split(" {")[0],
        task_run_name=name,
        retries=RETRIES,
        retry_delay_seconds=RETRY_DELAYS_S,
        retry_condition_fn=retrying_can_help,
        cache_policy=NO_CACHE,
        persist_result=False,
    )


found = phase("found federation", found_federation, words.founded)
gather = phase("gather federation", gather_federation, words.founded)
open_ = phase("open round {number}", recorded(open_round), words.opened)
train = phase("train {site}", watched(train_site), words.trained)
admit = phase("admit round {number}", recorded(admit_updates), words.admitted)
rate = phase("rate {site}", watched(rate_candidates), words.rated)
merge = phase("merge round {number}", recorded(merge_updates), words.merged)
judge = phase("judge {site}", watched(judge_merged), words.judged)
close = phase("close round {number}", recorded(close_round), words.closed)
adapt = phase("adapt {site}", watched(adapt_site), words.adapted)
version = phase("version round {number}", recorded(keep_round, versioned, thorough=True), words.kept)
report = phase(
    "report round {number}", recorded(publish_round), lambda size: f"report of {size / 1000:.0f} kB"
)

alone = phase("train alone {site}", train_alone, lambda _: "trained alone")
full = phase("fedavg {site}", train_full, lambda _: "trained full weights")
average = phase("average fedavg round {number}", average_full, lambda _: "averaged full weights")
evaluate = phase("evaluate {site}", evaluate_test_cases, lambda _: "evaluated on test cases")
