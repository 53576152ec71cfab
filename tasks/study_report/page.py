"""The study's README.md: claims, methods, scenarios, seeds, choices, and what is missing."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from tasks.findings import number, signed
from tasks.study_report.roles import Roles
from tasks.study_report.seeds import Seed, change_of
from tasks.study_report.tables import Tables
from tasks.study_report.words import bytes_cell, counted, interval_cell, markdown, mean_cell


def study_page(tables: Tables, choices: pd.DataFrame, pictures: Mapping[str, str]) -> str:
    """The page as Markdown.

    Args:
        tables: of ``make_tables``.
        choices: of ``choice_table``; without rows the section is left out.
        pictures: title → file name.

    Returns:
        Text that ends with a line break.
    """
    parts = [
        "# Results of the study",
        _reading(tables.keyed),
        _provisional(tables.lacking),
        "## Claims",
        markdown(["claim", "target", "measured", "met"], tables.claims.to_numpy().tolist()),
        f"## Methods, scenario {tables.roles.clean}",
        _method_lines(tables.methods, tables.roles.reference),
        _method_words(tables.roles),
        _undefined(tables.methods),
        "## Scenarios",
        _scenario_lines(tables.scenarios),
        _twin_words(tables.scenarios, tables.roles.clean),
        *(f"![{title}]({name})" for title, name in pictures.items()),
        *_seed_parts(tables.seeds),
        *_choice_parts(choices),
        *_lacking_parts(tables.lacking),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _reading(keyed: bool) -> str:
    units = (
        "a patient who is tested under several splits is drawn as one"
        if keyed
        else "a patient who is tested under two splits counts as two, so the intervals are somewhat too narrow"
    )
    return (
        "Dice: mean over seeds of the mean over honest sites of the mean over test patients; ± is the standard "
        "deviation over seeds (pairs of split and training seed). Intervals are 95 %, from a bootstrap over patients "
        f"within sites; {units}. Seeds are not drawn: an interval speaks of other patients at these sites. None is "
        "corrected for the number of comparisons, and with few patients per site they still cover less than 95 %."
    )


def _provisional(lacking: pd.DataFrame) -> str:
    if lacking.empty:
        return ""
    return f"**Provisional: {counted(len(lacking), 'cell')} of the study missing (see the end).**"


def _undefined(methods: pd.DataFrame) -> str:
    """Said only where something was undefined."""
    if methods.empty or not (methods["undefined_structures"] > 0).any():
        return ""
    each = ", ".join(f"{m}: {n}" for m, n in methods["undefined_structures"].items() if n)
    return (
        "Where neither the masks nor the model have a structure, its Dice is undefined and the patient's mean is "
        f"that of the other structures; so many times it was ({each})."
    )


def _method_lines(methods: pd.DataFrame, reference: str) -> str:
    head = ["method", "Dice", f"difference to {reference}", "own patients", "others' patients"]
    lines = []
    for name, row in methods.iterrows():
        apart = interval_cell(row["difference"], row["low"], row["high"])
        shown = f"{mean_cell(row, 'dice')}{' *own*' if row['judged'] == 'own' else ''}"
        sides = [mean_cell(row, "in_client"), mean_cell(row, "cross_client")]
        costs = [bytes_cell(row["upload_bytes"]), bytes_cell(row["download_bytes"]), number(row["ratio"], 1)]
        counts = [str(row["seeds"]), str(row["patients"])]
        lines.append([str(name), shown, "reference" if name == reference else apart, *sides, *costs, *counts])
    return markdown([*head, "up", "down", "full / up", "seeds", "patients"], lines)


def _method_words(roles: Roles) -> str:
    return (
        "*own*: a method without a global model, each site's model on its own patients. "
        f"*{roles.plain}* adds the adapters by volume; *average* also clips them and lets the sites judge the step, "
        f"as the live federation always does; *{roles.ours}* rates them as well. Bytes are those of updates and "
        "models, per site and round; images, which pooled training would collect, are not counted. *Down* counts "
        "the published step and, where sites rate, the candidates that a rater fetches. Methods that merge the "
        "factors A and B themselves count their fp16 values alone, without a package's header."
    )


def _scenario_lines(scenarios: pd.DataFrame) -> str:
    head = [
        "scenario",
        "method",
        "Dice",
        "difference to its clean twin",
        "within 1 point",
        "attacker's weight",
    ]
    lines = []
    for (scenario, method), row in zip(scenarios.index, scenarios.to_dict("records"), strict=True):
        within = "" if pd.isna(row["within_1_point"]) else "yes" if row["within_1_point"] else "no"
        lines.append(
            [
                *(str(scenario), str(method), mean_cell(row, "dice")),
                interval_cell(row["difference"], row["low"], row["high"]),
                *(within, number(row["attacker_weight"], 2), number(row["honest_min"], 2)),
                *(str(row[c]) for c in ("seeds", "patients", "paired_seeds", "paired_patients")),
            ]
        )
    counts = ["seeds", "patients", "seeds paired", "patients paired"]
    return markdown([*head, "lowest honest weight", *counts], lines)


def _twin_words(scenarios: pd.DataFrame, clean: str) -> str:
    """Whom the table counts, and what its differences are to; the exceptions by name."""
    honest = "Honest sites alone; one whose ratings alone are at fault is honest."
    if scenarios.empty:
        return honest
    twins = dict(zip(scenarios.index.get_level_values("scenario"), scenarios["beside"], strict=True))
    other = [f"that of {name} is {twin}" for name, twin in twins.items() if twin not in ("", clean)]
    alone = ", ".join(str(name) for name, twin in twins.items() if not twin and name != clean)
    reason = ", because it hides only where sites differ in look"
    return (
        f"{honest} The difference is to the same method in the scenario's clean twin, which lacks this fault and "
        f"nothing else, under the same seeds on the same patients. The twin is {clean}"
        f"{''.join(f'; {words}{reason}' for words in other)}."
        f"{f' Without a twin, because their sites or images are others: {alone}.' if alone else ''}"
    )


def _seed_parts(seeds: pd.DataFrame) -> list[str]:
    if seeds.empty:
        return []
    kinds: tuple[tuple[Seed, str], ...] = (("train_seed", "training seed"), ("split_seed", "split"))
    changes = [(name, change_of(seeds, seed)) for seed, name in kinds]
    apart = [
        f"{number(change.mean, 3)} where only the {name} changes "
        f"({', '.join(f'{a} → {b}' for a, b in change.pairs)})"
        for name, change in changes
        if change.pairs
    ]
    lines = [
        [str(m), *(number(v, 3) for v in row)] for m, row in zip(seeds.index, seeds.to_numpy(), strict=True)
    ]
    return [
        "## What seeds do",
        "Dice in the clean federation, a column per pair of split and training seed; another split also tests other "
        "patients.",
        markdown(["method", *seeds.columns], lines),
        f"Mean absolute difference over these methods: {'; '.join(apart)}." if apart else "",
    ]


def _choice_parts(choices: pd.DataFrame) -> list[str]:
    if choices.empty:
        return []
    head = ["setting", "validation Dice", "difference to the default", "default", "up", "down", "full / up"]
    lines = []
    for name, row in choices.iterrows():
        default = name == row["default"]
        costs = [bytes_cell(row["upload_bytes"]), bytes_cell(row["download_bytes"]), number(row["ratio"], 1)]
        apart = "default" if default else _difference_cell(row["difference"], row["difference_sd"])
        against = "" if default else str(row["default"])
        counts = [str(row["seeds"]), "" if default else str(row["paired_seeds"])]
        lines.append([str(name), mean_cell(row, "validation_dice"), apart, against, *costs, *counts])
    return [
        "## What the defaults were chosen by (validation)",
        "The test was not opened for these. Dice here is of the global model on every site's validation slices after "
        "the last round, mean over sites, then over seeds; it is not comparable with the test Dice above. The "
        "difference is on the same slices under the same seeds; ± is the standard deviation over seeds. These slices "
        "also judged and rated updates during training, and the defaults were picked by looking at them, so a "
        "default's lead is flattered.",
        markdown([*head, "seeds", "seeds paired"], lines),
    ]


def _difference_cell(mean: float, sd: float) -> str:
    return signed(mean) if math.isnan(sd) else f"{signed(mean)} ± {number(sd, 3)}"


def _lacking_parts(lacking: pd.DataFrame) -> list[str]:
    if lacking.empty:
        return []
    grouped = lacking.groupby(["method", "scenario", "lacks"], sort=True)
    lines = []
    for (method, scenario, lacks), rows in grouped:
        seeds = zip(rows["split_seed"], rows["train_seed"], strict=True)
        lines.append([str(method), str(scenario), str(lacks), ", ".join(f"{s}/{t}" for s, t in seeds)])
    return ["## Missing", markdown(["method", "scenario", "lacks", "split/training seeds"], lines)]
