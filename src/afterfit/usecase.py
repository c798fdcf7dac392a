"""The settings file of a use case: frozen, strict, and every error names file and key."""

import difflib
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from afterfit.errors import SettingsError

BUILTIN = Path(__file__).parent / "usecases"
Kind = Literal["number", "integer", "boolean", "category", "datetime"]
Scalar = str | int | float | bool
Finite = Annotated[float, Field(allow_inf_nan=False)]
Margin = Annotated[Finite, Field(ge=0)] | Literal["auto"]


class Settings(BaseModel):
    """Frozen and strict: an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)


def _moment(value: Any) -> Any:
    """YAML reads 2013-01-01 as a date, which means its midnight, and 2013 as a number, which means nothing."""
    if isinstance(value, int | float) or (isinstance(value, str) and value.strip().lstrip("-").isdigit()):
        raise ValueError("must be a date or time such as 2013-01-31 or 2013-01-31T14:05")
    return value.isoformat() if hasattr(value, "isoformat") else value


def _utc(moment: datetime) -> datetime:
    """A time with a zone in UTC without one, as data reads times; others as they are."""
    return moment if moment.tzinfo is None else moment.astimezone(timezone.utc).replace(tzinfo=None)


class Source(Settings):
    """Where the rows are: one of `builtin`, `path` (a file, folder or s3:// address) and `sql` with `query`."""

    builtin: str | None = None
    path: str | None = None
    sql: str | None = None
    query: str | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> "Source":
        named = [key for key in ("builtin", "path", "sql") if getattr(self, key) is not None]
        if len(named) != 1:
            raise ValueError(f"name exactly one of builtin, path and sql, not {' and '.join(named) or 'none of them'}")
        if (self.sql is None) != (self.query is None):
            raise ValueError("sql (the database's address) and query go together")
        return self


class Columns(Settings):
    """Which columns are features, and how they are read. `features` empty: all but target, key, time and `ignore`."""

    features: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    kinds: dict[str, Kind] = {}
    required: tuple[str, ...] = ()
    private: tuple[str, ...] = ()
    missing_marks: tuple[str, ...] = ()
    on_invalid: Literal["error", "missing"] = "error"
    max_categories: int = Field(default=200, ge=2, le=250)
    min_category_rows: int = Field(default=20, ge=1)

    @field_validator("missing_marks", mode="before")
    @classmethod
    def _as_text(cls, marks: Any) -> Any:
        return [str(mark) for mark in marks] if isinstance(marks, list) else marks


Moment = Annotated[datetime, BeforeValidator(_moment), AfterValidator(_utc)]


class Window(Settings):
    """Rows from `start` (included) to `end` (excluded), in the time column's own clock; with a zone, read as UTC."""

    start: Moment | None = None
    end: Moment | None = None

    @model_validator(mode="after")
    def _forwards(self) -> "Window":
        if self.start and self.end and self.start >= self.end:
            raise ValueError(f"start ({self.start}) must be before end ({self.end})")
        return self


class Split(Settings):
    """What trains and what is held out. Windows need a time column; without them the last `share` is held out.

    Without a time column the held-out rows are those whose content hashes into the share, so that a row stays on
    its side whatever is added to the table.
    """

    train: Window | None = None
    holdout: Window | None = None
    share: float = Field(default=0.2, gt=0.0, lt=0.9)
    folds: int = Field(default=5, ge=2, le=20)


class Range(Settings):
    """One dimension of the search: `low` to `high` (floats or integers, optionally `log`), or `choices`."""

    low: Finite | int | None = None
    high: Finite | int | None = None
    log: bool = False
    choices: tuple[Scalar, ...] = ()

    @model_validator(mode="after")
    def _bounded(self) -> "Range":
        if bool(self.choices) == (self.low is not None or self.high is not None):
            raise ValueError("give either low and high, or choices")
        if not self.choices and (self.low is None or self.high is None or self.low >= self.high):
            raise ValueError("low must be below high, and both given")
        if self.log and self.low is not None and self.low <= 0:
            raise ValueError("log needs low above 0")
        return self


class Candidate(Settings):
    """A model builder by name (or any scikit-learn-compatible estimator by dotted name), its parameters and search."""

    builder: str
    params: dict[str, Any] = {}
    space: dict[str, Range] = {}


class Tuning(Settings):
    """How long the search may go on: it ends at `trials` or `seconds`, whichever comes first."""

    trials: int = Field(default=20, ge=1)
    seconds: float = Field(default=120.0, gt=0)
    folds: int = Field(default=3, ge=2, le=20)


class Value(Settings):
    """Money by row: `costs[true class][predicted class]`, or a function by dotted name of (outcome, prediction)."""

    costs: dict[Scalar, dict[Scalar, float]] = {}
    function: str | None = None
    unit: str = "EUR"

    @model_validator(mode="after")
    def _one_way(self) -> "Value":
        if bool(self.costs) == (self.function is not None):
            raise ValueError("give either costs or function")
        return self


class Metrics(Settings):
    """The metric that decides, those beside it, the columns to slice by, and the value in money."""

    primary: str | None = None
    also: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()
    smallest_slice: int = Field(default=200, ge=10)
    value: Value | None = None


class Gate(Settings):
    """Limits of promotion, in the primary metric's unit unless said otherwise.

    Attributes:
        require: "better" asks production's candidates to be better than the champion by more than `margin`;
            "not_worse" lets those in that are not worse by more than `tolerance`.
        margin: smallest improvement that is worth a promotion; "auto" measures how far apart two equal models are.
        tolerance: largest loss that is still not worse, for `not_worse` and for staging; "auto" as above.
        confidence: of intervals; the first gate on some rows has all of it, later ones less.
        guardrails: further metrics, each with the largest loss put up with, in its own unit.
        slice_tolerance: largest loss in a slice of `metrics.slices`; twice the tolerance where None.
        value_tolerance: largest loss of `metrics.value`, in money a row.
        smallest_holdout: complete outcomes below which a gate holds.
        window: the outcomes that production's gate looks at; those of split.holdout where None.
        label_delay_hours: outcomes of rows younger than this are not complete and not used.
        calibration_error: largest mean distance of probabilities from shares (or of coverage from 90 %).
        missing_fall: what the candidate may lose more than the champion when a column is missing or its most common
            category unknown; five times the tolerance where None.
        larger: how many times larger than the champion's a bundle may be.
        slower: how many times longer than the champion it may take to load or to answer.
        approval: production needs a person's approval, given as a tag of the version.
    """

    require: Literal["better", "not_worse"] = "better"
    margin: Margin = 0.0
    tolerance: Margin = 0.01
    confidence: float = Field(default=0.95, ge=0.5, lt=1)
    guardrails: dict[str, Annotated[Finite, Field(ge=0)]] = {}
    slice_tolerance: float | None = Field(default=None, ge=0)
    value_tolerance: float = Field(default=0.0, ge=0)
    smallest_holdout: int = Field(default=100, ge=10)
    window: Window | None = None
    label_delay_hours: float = Field(default=0.0, ge=0)
    calibration_error: float = Field(default=0.1, gt=0)
    missing_fall: float | None = Field(default=None, ge=0)
    larger: float = Field(default=5.0, ge=1)
    slower: float = Field(default=3.0, ge=1)
    approval: bool = False


class Registry(Settings):
    """How versions are kept. `stages` mirrors promotions to MLflow's old stages, for tooling that still reads them."""

    stages: bool = False


class UseCase(Settings):
    """One model's whole story in one file. Its name is the registered model's name."""

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
    seed: int = Field(default=0, ge=0, lt=2**32)
    root: Path = Field(default=Path(), exclude=True)

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
        if self.target == self.time:
            raise ValueError(f"the target '{self.target}' is the time column too: name another")
        if not self.candidates:
            raise ValueError("candidates is empty: name at least one builder")
        builders = [candidate.builder for candidate in self.candidates]
        doubled = sorted({name for name in builders if builders.count(name) > 1})
        if doubled:
            raise ValueError(f"candidates names {', '.join(doubled)} twice: give one candidate a wider space instead")
        return self

    @property
    def primary_metric(self) -> str:
        """The metric that decides; by task where the file names none."""
        return self.metrics.primary or {"classification": "log_loss", "regression": "mae"}[self.task]


def load_use_case(name_or_path: str | Path) -> UseCase:
    """Read a use case: the name of a built-in one, or the path of a YAML file.

    Relative paths inside the file are meant from the file's own folder.

    Raises:
        SettingsError: no such file, no YAML, an unknown key, or a value that does not fit; every fault is listed.
    """
    path = _find(str(name_or_path))
    try:
        content = yaml.load(path.read_text("utf-8"), _Strict)  # noqa: S506 - it is a SafeLoader
    except (yaml.YAMLError, ValueError) as error:  # a ValueError is text that is no UTF-8, or a day such as February 30
        raise SettingsError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    if not isinstance(content, dict):
        raise SettingsError(f"{path}: a settings file holds keys and values (name: …); this one is {_said(content)}")
    if "root" in content:
        raise SettingsError(f"{path}: unknown key 'root'")
    try:
        return UseCase.model_validate({**content, "root": path.resolve().parent})
    except ValidationError as error:
        faults = [f"{path}: {fault}" for fault in _faults(error)]
        raise SettingsError("\n".join(faults)) from error


class _Strict(yaml.SafeLoader):
    """YAML in which no key stands twice: the first of the two would be lost without a word."""

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


@lru_cache
def builtin_names() -> tuple[str, ...]:
    """The names of the use cases that come with the package."""
    return tuple(sorted(path.stem for path in BUILTIN.glob("*.yaml")))


def _find(text: str) -> Path:
    if text in builtin_names():
        return BUILTIN / f"{text}.yaml"
    path = Path(text)
    with suppress(RuntimeError):  # no such user: then it is a name that begins with ~
        path = path.expanduser()
    if path.is_file():
        return path
    if text and path.is_dir():
        raise SettingsError(f"'{text}' is a folder: give the settings file in it.")
    near = difflib.get_close_matches(text, builtin_names(), n=1, cutoff=0.4)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    known = ", ".join(builtin_names())
    raise SettingsError(f"There is no settings file '{text}', and no built-in use case of that name ({known}).{hint}")


def _said(content: Any) -> str:
    names = {list: "a list", str: "a text", bool: "true or false"}
    return "empty" if content is None else names.get(type(content), "a single value")


def _faults(error: ValidationError) -> Iterator[str]:
    told: set[str] = set()
    for fault in error.errors():
        where = ".".join(str(part) for part in _place(fault["loc"])) or "the file"
        if fault["type"] == "extra_forbidden":
            yield f"unknown key '{where}'{_nearest(fault['loc'])}"
        elif fault["type"] == "missing":
            yield f"the key '{where}' is required and absent"
        elif where not in told:
            told.add(where)  # a value that may be of several types has a fault for each
            several = len(_place(fault["loc"])) < len(fault["loc"]) and fault["type"].endswith("_type")
            message = "must be a single value" if several else fault["msg"].removeprefix("Value error, ")
            given = "" if isinstance(fault["input"], dict | BaseModel) else f" (it says {fault['input']!r})"
            yield f"{where}: {message}{given}"


def _place(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Where a fault is, without the type that was tried there."""
    tried = {"str", "int", "float", "bool", "constrained-str", "constrained-float"}
    return loc[:-1] if len(loc) > 1 and loc[-1] in tried else loc


def _nearest(loc: tuple[int | str, ...]) -> str:
    known = list(_model_at(loc[:-1]).model_fields)
    near = difflib.get_close_matches(str(loc[-1]), known, n=1, cutoff=0.5)
    return f": did you mean '{near[0]}'?" if near else f"; known are {', '.join(key for key in known if key != 'root')}"


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
