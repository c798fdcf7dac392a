"""The settings file of a use case: frozen and strict; every error names the file and the key."""

import difflib
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from afterfit.errors import SettingsError
from afterfit.package import ROOT
from afterfit.settings import (
    Alarms,
    Candidate,
    Columns,
    Gate,
    Log,
    Metrics,
    Policy,
    Registry,
    Scalar,
    Serving,
    Settings,
    Source,
    Split,
    Tuning,
)
from afterfit.texts.decoding import decode
from afterfit.texts.redaction import learn_settings

BUILTIN = ROOT / "usecases"
ANSWER_COLUMNS = frozenset({
    "row", "prediction_id", "prediction", "probability", "probabilities", "lower", "upper", "confidence",
    "model_version", "warnings", "error",
})  # fmt: skip
"""Columns of a scored table that hold the answer. A source's own column of such a name is carried under another one."""
NO_KEYS = {"root", "inherited"}
"""Fields that are no keys of a settings file."""
NAMES_ONLY = frozenset({"columns", "metrics", "key"})
"""Sections that hold names of columns, which may be called anything, and no secrets."""


class UseCase(Settings):
    """All settings of one model. The use case's name is the name of the registered model."""

    name: str
    description: str = ""
    task: Literal["classification", "regression"]
    target: str
    positive: Scalar | None = None
    time: str | None = None
    key: tuple[str, ...] = ()
    source: Source
    columns: Columns = Columns()
    split: Split = Split()
    candidates: tuple[Candidate, ...] = (Candidate(builder="hist_gradient_boosting"),)
    metrics: Metrics = Metrics()
    tuning: Tuning = Tuning()
    gate: Gate = Gate()
    registry: Registry = Registry()
    log: Log = Log()
    policy: Policy = Policy.model_validate({})
    alarms: Alarms = Alarms()
    serving: Serving = Serving()
    seed: int = Field(default=0, ge=0, lt=2**32)
    root: Path = Field(default=Path(), exclude=True)
    inherited: Columns = Field(default=Columns(), exclude=True)
    """What a version knows of the columns that `columns` says nothing of; no key of the file."""

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", name):
            raise ValueError(f"'{name}' must be letters, digits, '-', '_' and '.', beginning with a letter or digit")
        return name

    @model_validator(mode="after")
    def _consistent(self) -> "UseCase":
        if (self.split.train or self.split.holdout) and self.time is None:
            raise ValueError(
                "split.train and split.holdout are windows of time: name the time column, or use split.share"
            )
        if self.gate.window and self.time is None:
            raise ValueError("gate.window is a window of time: name the time column")
        if self.target in self.columns.features:
            raise ValueError(f"the target '{self.target}' stands in columns.features")
        if self.positive is not None and self.task == "regression":
            raise ValueError("positive names a class: a regression has none")
        told = sorted(set(self.metrics.slices) & set(self.columns.private))
        if told:
            raise ValueError(
                f"metrics.slices names {', '.join(told)}, which columns.private names too: a slice is called by its "
                "value, so take it out of one of the two"
            )
        if self.target == self.time:
            raise ValueError(f"the target '{self.target}' is the time column too: name another")
        if not self.candidates:
            raise ValueError("candidates is empty: name at least one builder")
        builders = [candidate.builder for candidate in self.candidates]
        doubled = sorted({name for name in builders if builders.count(name) > 1})
        if doubled:
            raise ValueError(f"candidates names {', '.join(doubled)} twice: give one candidate a wider space instead")
        return self

    @model_validator(mode="after")
    def _columns_apart(self) -> "UseCase":
        if "prediction_id" in self.key:
            raise ValueError(
                "the key 'prediction_id' has the name by which outcomes find an answer's own id: rename that column"
            )
        if self.time in {"prediction", "probability"}:
            raise ValueError(f"the time column '{self.time}' has the name of an answer: rename that column")
        asked = [name for name in self.columns.formats if name in self.columns.ignore]
        if asked:
            raise ValueError(
                f"columns.formats says how '{asked[0]}' is written, and columns.ignore leaves it out: take it out of "
                "one of them"
            )
        return self

    @property
    def hashed(self) -> tuple[str, ...]:
        """The private columns of which the prediction log holds hashes: all, or with `drop` those of the key."""
        return tuple(name for name in self.columns.private if self.log.private == "hash" or name in self.key)

    @property
    def primary_metric(self) -> str:
        """The metric that decides; a default for the task where the file names none."""
        return self.metrics.primary or {"classification": "log_loss", "regression": "mae"}[self.task]


def load_use_case(name_or_path: str | Path) -> UseCase:
    """Read a use case: the name of a built-in one, or the path of a YAML file.

    Relative paths in the file start from the file's own folder.

    Raises:
        SettingsError: no such file, invalid YAML, an unknown key, or an invalid value; every fault is listed.
    """
    path = settings_file(str(name_or_path))
    try:
        text = decode(path.read_bytes())
        learn_settings(text)
        content = yaml.load(text, _Strict)  # noqa: S506 - it is a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: no text, or a day such as February 30
        raise SettingsError(f"{path}: not readable as YAML: {yaml_fault(error)}") from error
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    if not isinstance(content, dict):
        raise SettingsError(
            f"{path}: a settings file holds keys and values (name: …); this one is {_describe(content)}"
        )
    for key in NO_KEYS & content.keys():
        raise SettingsError(f"{path}: unknown key '{key}'")
    learn_settings({key: part for key, part in content.items() if key not in NAMES_ONLY})
    try:
        return UseCase.model_validate({**content, "root": path.resolve().parent})
    except ValidationError as error:
        faults = [f"{path}: {fault}" for fault in _faults(error)]
        raise SettingsError("\n".join(faults)) from error


def yaml_fault(error: Exception) -> str:
    """What is wrong with a text, and where, in one line; the text itself is not repeated, as it may hold a secret."""
    if isinstance(error, RecursionError):
        return "its values are nested too deeply"
    if not isinstance(error, yaml.MarkedYAMLError):
        return " ".join(str(error).split())
    mark = error.problem_mark or error.context_mark
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return " ".join(f"{place}{error.problem or error.context} {error.note or ''}".split())


@lru_cache
def builtin_names() -> tuple[str, ...]:
    """The names of the use cases that come with the package."""
    return tuple(sorted(path.stem for path in BUILTIN.glob("*.yaml")))


def settings_file(text: str) -> Path:
    """The settings file for the name of a built-in use case, or for a path.

    Raises:
        SettingsError: there is no such file.
    """
    if text in builtin_names():
        return BUILTIN / f"{text}.yaml"
    path = Path(text)
    with suppress(RuntimeError):  # "~name" without such a user: taken as a plain file name
        path = path.expanduser()
    if path.is_file():
        return path
    if text and path.is_dir():
        raise SettingsError(f"'{text}' is a folder: give the settings file in it.")
    near = difflib.get_close_matches(text, builtin_names(), n=1, cutoff=0.4)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    known = ", ".join(builtin_names())
    raise SettingsError(f"There is no settings file '{text}', and no built-in use case of that name ({known}).{hint}")


class _Strict(yaml.SafeLoader):
    """YAML that refuses a repeated key: plain YAML would silently drop the first of the two."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's own
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key '{key.value}' stands there twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _describe(content: Any) -> str:
    descriptions = {list: "a list", str: "a text", bool: "true or false"}
    return "empty" if content is None else descriptions.get(type(content), "a single value")


def _faults(error: ValidationError) -> Iterator[str]:
    reported: set[str] = set()
    for fault in error.errors():
        key = ".".join(str(part) for part in _keys_of(fault["loc"])) or "the file"
        if fault["type"] == "extra_forbidden":
            yield f"unknown key '{key}'{_nearest(fault['loc'])}"
        elif fault["type"] == "missing":
            yield f"the key '{key}' is required and absent"
        elif key not in reported:
            reported.add(key)  # a value that may have one of several types has a fault for each of them
            has_several_types = len(_keys_of(fault["loc"])) < len(fault["loc"]) and fault["type"].endswith("_type")
            message = "must be a single value" if has_several_types else fault["msg"].removeprefix("Value error, ")
            given = "" if isinstance(fault["input"], dict | BaseModel) else f" (it says {fault['input']!r})"
            yield f"{key}: {message}{given}"


def _keys_of(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """The keys that lead to a fault, without the type that pydantic tried there."""
    types = {"str", "int", "float", "bool", "constrained-str", "constrained-float"}
    return loc[:-1] if len(loc) > 1 and loc[-1] in types else loc


def _nearest(loc: tuple[int | str, ...]) -> str:
    known = [key for key in _model_at(loc[:-1]).model_fields if key not in NO_KEYS]
    near = difflib.get_close_matches(str(loc[-1]), known, n=1, cutoff=0.5)
    return (
        f": did you mean '{near[0]}'?"
        if near
        else f"; known are {', '.join(key for key in known if key not in NO_KEYS)}"
    )


def _model_at(loc: tuple[int | str, ...]) -> type[BaseModel]:
    model: type[BaseModel] = UseCase
    for part in loc:
        if isinstance(part, str) and part in model.model_fields:
            model = next(_models(model.model_fields[part].annotation), model)
    return model


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)
