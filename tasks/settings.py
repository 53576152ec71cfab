"""The two sources of settings: ``params.yaml`` (what changes a result) and the environment (where and who).

Nothing else in the project reads either.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, FilePath, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from model.errors import ConfigError

Fraction = Annotated[float, Field(gt=0, lt=1)]
Rate = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1)]
BROKEN_YAML = (yaml.YAMLError, ValueError, RecursionError)  # ValueError: such as a date in month 13


class _Section(BaseModel):
    """Frozen; an unknown key is a fault, and so is a number that is NaN or infinite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Data(_Section):
    """How images become network input."""

    spacing_mm: float = Field(gt=0.2, lt=10, description="in-plane pixel size of the network's grid, mm")
    crop: int = Field(ge=32, le=512, multiple_of=16, description="side of the heart-centred square, pixels")
    validation: Fraction = Field(description="fraction of a site's patients kept for validation")
    test: Fraction = Field(description="fraction of a site's patients kept for the final test")
    small_sites: bool = Field(
        False,
        description="let a site of one patient train, and one of two train and rate, neither with a test",
    )

    @model_validator(mode="after")
    def _leaves_training_cases(self) -> Data:
        if self.validation + self.test > 0.8:
            raise ValueError("validation + test leave less than a fifth of the patients for training")
        return self


class Network(_Section):
    """Size of the residual U-Net."""

    channels: tuple[Count, ...] = Field(min_length=2, max_length=6, description="feature maps per level")


class Pretrain(_Section):
    """The base, trained on randomised phantoms."""

    steps: Count = Field(description="optimizer steps")
    batch: Count = Field(description="slices per step")
    learning_rate: Rate = Field(description="AdamW's peak, for all weights")


class Federation(_Section):
    """Rounds and who must be there."""

    rounds: Count = Field(description="rounds of a whole federation")
    quorum: int = Field(ge=2, description="fewest updates, ratings and verdicts a round may close with")
    required: tuple[str, ...] = Field((), description="sites without which no round closes")
    deadline_s: int = Field(ge=10, description="most seconds the hub waits for a site in a phase")
    deadlines: dict[str, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict, description="site → seconds, in place of what was learned"
    )


class Training(_Section):
    """One site's local training."""

    steps: Count = Field(description="optimizer steps per site and round")
    batch: Count = Field(description="slices per step")
    learning_rate_factors: Rate = Field(description="AdamW's peak for LoRA's A and B")
    learning_rate_whole: Rate = Field(description="AdamW's peak for layers trained whole")
    learning_rate_full: Rate = Field(description="AdamW's peak for the full-weight comparison")
    weight_decay: float = Field(ge=0, le=1, description="of AdamW, per unit of learning rate")


class Lora(_Section):
    """Size of a site's adapter."""

    rank_max: int = Field(ge=1, le=256, description="rank of the site with most training slices")
    rank_min: int = Field(ge=1, le=256, description="rank of the smallest sites")
    rank_rule: Literal["sqrt", "linear", "constant", "auto"] = Field(
        description="how rank follows a site's share; auto: rank_max, the package keeps what is needed"
    )
    scaling: float = Field(gt=0, le=64, description="alpha / r")
    wide_from: int = Field(ge=0, description="weights from which a layer gets LoRA instead of a whole delta")
    trained_levels: int = Field(ge=1, le=6, description="levels, from the top, that are trained")

    @model_validator(mode="after")
    def _ordered(self) -> Lora:
        if self.rank_min > self.rank_max:
            raise ValueError(f"rank_min {self.rank_min} is above rank_max {self.rank_max}")
        return self


class Package(_Section):
    """How factors travel."""

    dtype: Literal["int4", "int8", "fp16", "fp32"] = Field(description="of the factors on the wire")
    upload_bytes: int = Field(ge=0, description="budget of a site's update; 0 keeps every rank")
    download_bytes: int = Field(ge=0, description="budget of the published step; 0 keeps every rank")
    energy: float | None = Field(gt=0, le=1, description="instead of budgets: share of ‖ΔW‖² that is kept")
    feedback: bool = Field(description="whether what was cut is added in the next round")
    max_bytes: int = Field(ge=10_000, description="largest package the hub admits")


class Rating(_Section):
    """How sites judge each other's updates."""

    slices: int = Field(ge=4, le=512, description="validation slices per rater")
    strictness: float = Field(ge=0, description="λ, per Dice")
    margin: float = Field(ge=0, lt=1, description="Dice of the mean that is forgiven")
    margin_structure: float = Field(ge=0, le=1, description="Dice of a single structure that is forgiven")
    doubt: float = Field(ge=0, le=5, description="standard errors given to the candidate")
    dissent: Fraction = Field(description="fraction of raters who may be outvoted in a candidate's disfavour")
    raters: Count = Field(description="raters per candidate, fewer where there are fewer sites")


class Merge(_Section):
    """How updates become one."""

    mode: Literal["average", "shadow", "rated"] = Field(
        description="whether ratings count, or are only shown"
    )
    form: Literal["paper", "renormalised"] = Field(description="whether penalties shorten the step")
    volume: Literal["linear", "sqrt", "uniform"] = Field(description="volume weight of n_c training slices")
    rank_max: int = Field(
        ge=1, le=512, description="largest rank of a package or of what is carried over, per layer"
    )
    clip: float = Field(gt=0, description="× median update norm")
    late_rounds: int = Field(
        2,  # for the plans of rounds that were opened before there was a bank
        ge=0,
        repr=False,  # a cell of the study is known by the repr of these settings, and has no ledger to look back on
        description="rounds that an update waits in which its site sends no fresh one; 0: a late update is lost",
    )
    late_discount: float = Field(
        ge=0, le=1, description="volume factor for every round that an update comes late"
    )


class Judge(_Section):
    """When a merged step is taken back."""

    tolerance: float = Field(ge=0, lt=1, description="Dice the median site may lose")


class Adapt(_Section):
    """Local adaptation of the closed model."""

    epochs: int = Field(ge=1, le=20, description="passes over the site's training slices")


class Dp(_Section):
    """Differential privacy of a site's update; see :mod:`tasks.spending`."""

    clip: float = Field(gt=0, description="L2 norm that a site's whole update is clipped to")
    noise: float = Field(
        gt=0, description="standard deviation of the noise on every weight, in units of clip"
    )
    delta: float = Field(gt=0, lt=1, description="probability with which ε may be exceeded")


class Privacy(_Section):
    """What others learn of a site's data."""

    digits: int = Field(
        4, ge=2, le=6, description="decimals of every score, loss and gain that leaves a site"
    )
    fewest: int = Field(
        5, ge=1, description="patients below which a count or an aggregate is withheld from others; 1: never"
    )
    encrypt: bool = Field(
        False, description="whether adapters, candidates and steps are encrypted in the store"
    )
    dp: Dp | None = Field(None, description="noise on every update; None for none")


class Server(_Section):
    """The study's server optimisers."""

    beta: float = Field(ge=0, lt=1, description="decay of the first moment")
    beta2: float = Field(ge=0, lt=1, description="FedAdam's decay of the second moment")
    tau: float = Field(gt=0, description="FedAdam's τ")
    rate_momentum: float = Field(gt=0, description="FedAvgM's server learning rate")
    rate_adam: float = Field(gt=0, description="FedAdam's server learning rate")


class Study(_Section):
    """Methods × scenarios × seeds."""

    source: str = Field(min_length=1, description="folder of a data set in ACDC's layout")
    rounds: Count = Field(description="rounds of every cell")
    validation: Fraction = Field(description="fraction of a site's patients kept for validation")
    test: Fraction = Field(description="fraction of a site's patients kept for the one final test")
    seeds: tuple[str, ...] = Field(min_length=1, description="SPLIT-TRAINING, such as 1-1")
    scenario_seeds: tuple[str, ...] = Field(description="of seeds, those that scenarios run under")
    choice_seeds: tuple[str, ...] = Field(description="as seeds, for the choices")
    methods: tuple[str, ...] = Field(description="run in the clean federation")
    adapted: tuple[str, ...] = Field(description="methods whose model the sites adapt before the test")
    choices: tuple[str, ...] = Field(description="compared on validation only, in the clean federation")
    defences: tuple[str, ...] = Field(description="run in all scenarios that touch every method")
    scenarios: tuple[str, ...] = Field(description="in which they are, besides the clean one")
    rating: tuple[str, ...] = Field(description="methods that raters can harm")
    rater_scenarios: tuple[str, ...] = Field(description="in which a rater is at fault")
    rivals: tuple[str, ...] = Field(description="further methods that are attacked")
    rival_scenarios: tuple[str, ...] = Field(description="in which they are")
    proximal: float = Field(ge=0, description="μ of FedProx")
    paper_strictness: float = Field(ge=0, description="λ of Rate-My-LoRA as the paper has it")
    server: Server


class Params(_Section):
    """All of ``params.yaml``."""

    seed: int = Field(ge=0, lt=2**31, description="of everything that is drawn")
    data: Data
    network: Network
    pretrain: Pretrain
    federation: Federation
    training: Training
    lora: Lora
    package: Package
    rating: Rating
    merge: Merge
    judge: Judge
    adapt: Adapt
    privacy: Privacy = Privacy()  # for the plans of rounds that were opened before there was such a section
    study: Study

    @model_validator(mode="after")
    def _crop_suits_levels(self) -> Params:
        halved = 2 ** (len(self.network.channels) - 1)
        if self.data.crop % halved or self.data.crop < 2 * halved:
            raise ValueError(
                f"data.crop {self.data.crop} must be a multiple of {halved}, at least {2 * halved}, "
                f"for the {len(self.network.channels)} levels of network.channels"
            )
        return self


class _UniqueKeys(yaml.SafeLoader):
    """YAML as its standard has it: PyYAML itself lets the last of two equal keys win in silence."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        first: dict[str, int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            line = key.start_mark.line + 1
            if key.value in first:
                said = f"'{key.value}' stands on line {first[key.value]} and again on line {line}"
                raise yaml.YAMLError(said)
            first[key.value] = line
        return node


class Environment(BaseSettings):
    """Where the store is and who we are there, from ``CARDIOFED_…`` variables."""

    model_config = SettingsConfigDict(env_prefix="CARDIOFED_", frozen=True)

    s3_endpoint: str = Field(description="http(s)://host:port of any S3-compatible store")
    s3_access_key: str
    s3_secret_key: SecretStr
    s3_bucket: str = "cardiofed"
    s3_region: str = "us-east-1"
    ca_bundle: FilePath | None = Field(
        None, description="certificates, PEM, that the store's is checked against"
    )


class _KeySettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="CARDIOFED_", frozen=True)

    key_passphrase: SecretStr = SecretStr("")


def key_passphrase() -> str:
    """What locks this machine's signing key, from CARDIOFED_KEY_PASSPHRASE; empty for a key without."""
    return _KeySettings().key_passphrase.get_secret_value()


def load_params(path: Path, overrides: tuple[str, ...] = ()) -> Params:
    """Read ``params.yaml`` and lay ``section.key=value`` overrides over it.

    Args:
        path: the YAML file.
        overrides: such as ``federation.rounds=10``; values are parsed as YAML.

    Returns:
        The settings, every one checked for type and bounds.

    Raises:
        ConfigError: names every fault of the file and the overrides at once.
    """
    try:
        tree = yaml.load(path.read_text(), _UniqueKeys)
    except FileNotFoundError as e:
        raise ConfigError("no settings file", str(path), "run from the project's folder") from e
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"the settings file cannot be read: {e}", str(path), "restore it with git") from e
    except BROKEN_YAML as e:
        raise ConfigError(
            f"not YAML: {' '.join(str(e).split())}", str(path), "correct the line it names"
        ) from e
    if not isinstance(tree, dict):
        raise ConfigError("the settings file holds no mapping", str(path), "restore it with git checkout")
    for text in overrides:
        _lay_over(tree, text)
    try:
        return Params.model_validate(tree)
    except ValidationError as e:
        raise _faults(e, str(path)) from e


CHANGEABLE = ("federation", "training", "rating", "merge", "judge", "adapt")
"""Sections that a round may have others of than the round before it; the model and its base stand on the rest."""


def founding(params: Params) -> dict[str, Any]:
    """The settings that stay as they are for as long as a federation lives; those of studies are none of its own."""
    return params.model_dump(mode="json", exclude={*CHANGEABLE, "study"})


def lay_over(params: Params, overrides: tuple[str, ...]) -> Params:
    """Settings with ``section.key=value`` overrides laid over them.

    Args:
        params: checked settings, left as they are.
        overrides: such as ``federation.rounds=10``.

    Returns:
        New settings.

    Raises:
        ConfigError: names every faulty override.
    """
    tree = params.model_dump(mode="json")
    for text in overrides:
        _lay_over(tree, text)
    try:
        return Params.model_validate(tree)
    except ValidationError as e:
        raise _faults(e, "overrides") from e


def load_environment() -> Environment:
    """Read the ``CARDIOFED_…`` variables.

    Returns:
        Address, bucket and credentials of the store; the secret key does not show when printed.

    Raises:
        ConfigError: names every missing or malformed variable at once.
    """
    try:
        return Environment()
    except ValidationError as e:
        raise _faults(e, "environment, CARDIOFED_…") from e


def _lay_over(tree: dict[str, Any], text: str) -> None:
    key, sign, value = text.partition("=")
    if not sign:
        raise ConfigError(f"override '{text}' has no '='", "--set", "write it as section.key=value")
    *parents, leaf = key.strip().split(".")
    node: Any = tree
    for name in parents:
        node = node.setdefault(name, {})
        if not isinstance(node, dict):
            raise ConfigError(f"'{key}' goes through '{name}', which is a value", "--set", "see params.yaml")
    try:
        node[leaf] = yaml.load(value, _UniqueKeys)
    except BROKEN_YAML as e:
        raise ConfigError(
            f"override '{text}' is not YAML: {' '.join(str(e).split())}",
            "--set",
            "quote or correct the value",
        ) from e


def _faults(error: ValidationError, where: str) -> ConfigError:
    lines = []
    for fault in error.errors():
        name = ".".join(str(part) for part in fault["loc"]) or "(whole file)"
        said = "unknown setting" if fault["type"] == "extra_forbidden" else fault["msg"]
        lines.append(f"{name}: {said}")
    count = "1 faulty setting" if len(lines) == 1 else f"{len(lines)} faulty settings"
    return ConfigError(
        f"{count}\n    " + "\n    ".join(lines), where, "see params.yaml and tasks/settings.py"
    )
