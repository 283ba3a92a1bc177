"""The settings that belong to a run as a whole: what each may be, and what to say of one that is not.

A part of the model, of the data or of the training (a ``_target_``) checks its own settings where its class is built
(:mod:`attnspan.config.instantiate`); here it is only a mapping. Unknown keys are refused everywhere but in such parts
and in ``trainer``, whose further keys Lightning checks.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Lt
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from attnspan.errors import InputError, nearest
from attnspan.runs.former_names import nearest_key

LOSS, SEQUENCE_ERROR_RATE = "loss", "sequence_error_rate"
OFFLINE, ONLINE, DISABLED = MODES = "offline", "online", "disabled"

_OTHER_LENGTHS = ("fast_dev_run", "max_epochs", "min_epochs", "max_time", "overfit_batches")
"""Lightning's other ways to end or to shorten a run, after which its summary would claim more than was done."""


def _refuse(message: str) -> PydanticCustomError:
    """An error whose message is a whole sentence; braces would be taken for placeholders."""
    return PydanticCustomError("sentence", "{message}", {"message": message})


def _not_null(value: Any) -> Any:
    if value is None:
        raise _refuse("seed is null, and an unseeded run cannot be repeated: give a number, as in seed=1")
    return value


def _project(value: str) -> str:
    if set(value) & set("/\\#?%:"):
        raise _refuse(f"logger.wandb.project: must be a name without any of / \\ # ? % :, not {value!r}")
    return value


def _deterministic(value: Any) -> Any:
    if not isinstance(value, bool) and value != "warn":
        raise _refuse(f"trainer.deterministic: must be true, false or warn, not {value!r}")
    return value


Count = Annotated[int, Ge(1)]
CountFromZero = Annotated[int, Ge(0)]
NotNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Lt(1)]
Path = Annotated[str, StringConstraints(min_length=1), Field(description="a path")]
Name = Annotated[str, StringConstraints(min_length=1), Field(description="a name")]
FolderName = Annotated[
    str,
    StringConstraints(pattern=r"^\w[\w.-]*$"),
    Field(description="a name of letters, digits, _ . - (a folder)"),
]


class Section(BaseModel):
    """A part of the config with a fixed set of keys."""

    model_config = ConfigDict(strict=True, extra="forbid", protected_namespaces=())


class Part(BaseModel):
    """A part of the config that a class is built from, which checks the rest."""

    model_config = ConfigDict(strict=True, extra="allow")


class Optimizer(Part):
    """``optimizer``."""

    lr: NotNegative


class ModelSizes(Section):
    """``model``: what encoder, decoder and embeddings share."""

    hidden_size: Count
    embedding_size: Count
    dropout: Share
    tied_target_embeddings: bool


class Loader(Section):
    """``loader``."""

    batch_tokens: Count
    evaluation_batch_tokens: Count
    workers: CountFromZero


class Plateau(Section):
    """``plateau``: when training has learned what it can."""

    patience: Count | None
    minimum_gain: Share
    minimum_difference: NotNegative


class Trainer(Part):
    """``trainer``: the arguments of Lightning's Trainer that a run depends on; Lightning checks the others."""

    max_steps: Count
    val_check_interval: Count
    log_every_n_steps: Count
    devices: Count
    accelerator: str
    strategy: Literal["auto", "ddp"] = "auto"
    gradient_clip_val: NotNegative | None = None
    num_nodes: Count = 1
    deterministic: Annotated[Any, AfterValidator(_deterministic), Field(description="true, false or warn")] = True


class Wandb(Section):
    """``logger.wandb``."""

    mode: Literal["offline", "online", "disabled"]
    project: Annotated[Name, AfterValidator(_project)]
    entity: Name | None
    examples: CountFromZero


class Logger(Section):
    """``logger``."""

    wandb: Wandb


class Settings(Section):
    """A run's resolved config."""

    arm: Name
    seed: Annotated[int, BeforeValidator(_not_null), Ge(0), Lt(2**32)]
    study: Name | None
    data_name: FolderName
    runs_dir: Path
    cache_dir: Path
    rerun: bool
    fail_fast: bool
    dry_run: bool
    threads: Count
    matmul_precision: Literal["highest", "high", "medium"]
    checkpoint_interval: NotNegative
    data: Part
    rnn: Part
    encoder: Part
    decoder: Part
    decoding: Part
    model: ModelSizes
    loader: Loader
    optimizer: Optimizer
    validation_hypotheses: CountFromZero
    schedule: Part
    plateau: Plateau
    trainer: Trainer
    logger: Logger
    label_smoothing: Share
    coverage_loss: NotNegative = 0.0
    guidance: Part | None = None
    scheduled_sampling: Part | None = None
    eos_in_training: bool
    oracle_length: bool
    selection_metric: Literal["loss", "sequence_error_rate"]


def check_settings(config: dict[str, Any]) -> None:
    """Check the settings that belong to the run as a whole.

    Args:
        config: resolved, in plain dicts, lists, strings and numbers.

    Raises:
        InputError: one line with the key of each that cannot be, and what it must be.
    """
    try:
        Settings.model_validate(config)
    except ValidationError as error:
        raise InputError("; ".join(dict.fromkeys(map(_explain, error.errors())))) from error
    trainer = config["trainer"]
    for key in trainer:
        if key in _OTHER_LENGTHS or key.startswith("limit_"):
            raise InputError(
                f"trainer.{key}: a run is trainer.max_steps updates long and sees whole splits; leave it out"
            )
    if not config["eos_in_training"]:
        _check_decoding_without_eos(config)
    if (nodes := trainer.get("num_nodes", 1)) != 1:
        raise InputError(f"trainer.num_nodes={nodes}: a run stays on one machine; leave it out")
    threads, devices, cores = config["threads"], trainer["devices"], os.cpu_count() or 1
    if threads * devices > cores:
        each = f" in each of trainer.devices={devices} processes" if devices > 1 else ""
        raise InputError(f"threads={threads}{each} is more than this machine's {cores} cores")


def _check_decoding_without_eos(config: dict[str, Any]) -> None:
    """A model that never saw <eos> cannot end a hypothesis: it is judged with the reference's length given."""
    needed = {"oracle_length": True, "validation_hypotheses": 0, "selection_metric": LOSS}
    missing = [f"{key}={str(value).lower()}" for key, value in needed.items() if config[key] != value]
    if missing:
        raise InputError(
            "eos_in_training=false: such a model cannot end a hypothesis, so free-running ones say nothing; set "
            f"{' '.join(missing)}"
        )


def check_sections(config: dict[str, Any]) -> None:
    """Raise :class:`InputError` for a section of a config, not resolved yet, that is no mapping."""
    for key, field in Settings.model_fields.items():
        is_section = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        value = config.get(key, {})
        if is_section and not isinstance(value, dict) and "${" not in str(value):
            raise InputError(f"{key}: must be {_kind(field)}, not {config[key]!r}")


def _explain(error: Any) -> str:
    """One line for an error of pydantic's."""
    if error["type"] == "sentence":
        return str(error["ctx"]["message"])
    *parents, name = error["loc"]
    section, key = _section(parents), ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        known = (field for field in section.model_fields if field != "arm")  # it is the file's name
        return f"{key}: there is no such key; {nearest_key(str(name), known)}"
    if error["type"] == "missing":
        return f"{key}: is missing"
    field = section.model_fields[name]
    if error["type"] == "literal_error":
        return f"{key}: there is no {error['input']!r}; {nearest(str(error['input']), get_args(field.annotation))}"
    hint = "; logger=none switches W&B off" if key == "logger.wandb" else ""
    return f"{key}: must be {_kind(field)}, not {error['input']!r}{hint}"


def kind_of(key: str) -> str | None:
    """What the setting at a dotted ``key`` may be, in words; None if it is not checked here."""
    *parents, name = key.split(".")
    fields = Settings.model_fields
    for parent in parents:
        inner = fields[parent].annotation if parent in fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return None
        fields = inner.model_fields
    return _kind(fields[name]) if name in fields else None


def _section(parents: list[Any]) -> type[BaseModel]:
    section: type[BaseModel] = Settings
    for parent in parents:
        annotation = section.model_fields[parent].annotation
        assert isinstance(annotation, type)
        section = annotation
    return section


def _kind(field: FieldInfo) -> str:
    """What a field may hold, in words."""
    if field.description:
        return field.description
    if get_origin(field.annotation) is Literal:
        return " | ".join(get_args(field.annotation))
    inner = next((each for each in get_args(field.annotation) if each is not type(None)), field.annotation)
    null = "null or " if inner is not field.annotation else ""
    metadata = [*field.metadata, *getattr(inner, "__metadata__", ())]
    inner = getattr(inner, "__origin__", inner)
    if isinstance(inner, type) and issubclass(inner, BaseModel):
        return "a mapping" if inner is Wandb else "one of its group's choices, or a mapping"
    if inner is bool:
        return f"{null}true or false"
    if inner is str:
        return f"{null}a name"
    least = [f"at least {one.ge}" for one in metadata if isinstance(one, Ge)]
    most = [f"less than {'2^32' if one.lt == 2**32 else one.lt}" for one in metadata if isinstance(one, Lt)]
    above = [f"more than {one.gt}" for one in metadata if isinstance(one, Gt)]
    return f"{null}a {'whole ' if inner is int else ''}number of {' and '.join([*least, *above, *most])}"
