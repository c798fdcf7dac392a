"""The sections of a settings file, each frozen and strict, with meanings and defaults; how secrets come in."""

import os
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from afterfit.errors import SettingsError
from afterfit.package import ROOT
from afterfit.texts.decoding import decode
from afterfit.texts.redaction import learn

Kind = Literal["number", "integer", "boolean", "category", "datetime"]
Scalar = str | int | float | bool
Finite = Annotated[float, Field(allow_inf_nan=False)]
Margin = Annotated[Finite, Field(ge=0)] | Literal["auto"]
Cause = Literal["quality", "service", "drift", "estimated", "realised"]
PRESETS = ROOT / "policies.yaml"
SALT = "AFTERFIT_LOG_SALT"
"""The environment variable with the secret of the hashes of private values."""
USUAL_TOLERANCE = 0.01
"""Default of `gate.tolerance`, in the primary metric's unit. For AUC or accuracy it is one percentage point, a loss for
which few would change production."""
FALLS = 5.0
"""Default of `gate.missing_fall`, in tolerances. It is several, because the damage is done to every row here, and in
production only ever to some."""


class Settings(BaseModel):
    """Frozen and strict: an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)


def _moment(value: Any) -> Any:
    """A date or time as text. YAML reads 2013-01-01 as a date, which means its midnight; 2013, a number, is refused."""
    if isinstance(value, int | float) or (isinstance(value, str) and value.strip().lstrip("-").isdigit()):
        raise ValueError("must be a date or time such as 2013-01-31 or 2013-01-31T14:05")
    return value.isoformat() if hasattr(value, "isoformat") else value


def _utc(moment: datetime) -> datetime:
    """A time with a zone, converted to UTC and without the zone, as data reads times; other times unchanged."""
    try:
        return moment if moment.tzinfo is None else moment.astimezone(timezone.utc).replace(tzinfo=None)
    except OverflowError as error:
        raise ValueError("must lie between the years 1 and 9999 in UTC too") from error


class Source(Settings):
    """Where the rows are: one of `builtin`, `path` (a file, folder or s3:// address), or `sql` with `query`."""

    builtin: str | None = None
    path: str | None = None
    sql: str | None = None
    query: str | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> "Source":
        given = [key for key in ("builtin", "path", "sql") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"name exactly one of builtin, path and sql, not {' and '.join(given) or 'none of them'}")
        if (self.sql is None) != (self.query is None):
            raise ValueError("sql (the database's address) and query go together")
        return self


class Columns(Settings):
    """Which columns are features, and how they are read. Without `features`: all but target, key, time and `ignore`.

    `formats` says how values are written, by column, the time and the target too: numbers by a sample ("1.234,5",
    "49%", "(1,234.5)"), dates as "iso", "%d.%m.%Y", "%Y%m%d", "excel", "epoch s", "epoch ms" or "epoch us".
    """

    features: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    kinds: dict[str, Kind] = {}
    formats: dict[str, str] = {}
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

    @field_validator("formats", mode="before")
    @classmethod
    def _samples_as_text(cls, formats: Any) -> Any:
        """A sample such as 1234.5 is a number for YAML, and formats that all are comments are none."""
        if formats is None:
            return {}
        if not isinstance(formats, dict):
            return formats
        return {name: str(text) if type(text) in {int, float} else text for name, text in formats.items()}


Moment = Annotated[datetime, BeforeValidator(_moment), AfterValidator(_utc)]


def order_fault(start: datetime | None, end: datetime | None, names: tuple[str, str] = ("start", "end")) -> str:
    """A sentence where the start is not before the end; empty where it is."""
    if start is None or end is None or start < end:
        return ""
    return f"{names[0]} ({start}) must be before {names[1]} ({end})"


class Period(Settings):
    """Rows from `start` (included) to `end` (excluded), in the time column's own clock; with a zone, read as UTC."""

    start: Moment | None = None
    end: Moment | None = None

    @model_validator(mode="after")
    def _forwards(self) -> "Period":
        fault = order_fault(self.start, self.end)
        if fault:
            raise ValueError(fault)
        return self


class Split(Settings):
    """Which rows train, and which are held out: windows of time, or without windows the last `share` of the rows.

    Windows need a time column. Without a time column a hash of a row's content decides whether the row is held out. So
    a row stays on its side when rows are added to the table.
    """

    train: Period | None = None
    holdout: Period | None = None
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
    """A model builder by name (or a scikit-learn-compatible class by dotted name), its parameters and search space."""

    builder: str
    params: dict[str, Any] = {}
    space: dict[str, Range] = {}


class Tuning(Settings):
    """How long the search may take: it ends at `trials` or `seconds`, whichever comes first."""

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
    """The metric that decides, further metrics, the columns to slice by, and the value in money.

    The metrics are those of `performance.metrics.METRICS`: for classes `roc_auc`, `log_loss`, `accuracy`,
    `balanced_accuracy`, `macro_f1`; for two classes also `average_precision`, `brier`, `f1`, `precision`, `recall`; for
    numbers `mae`, `mse`, `rmse`, `r2`, `median_absolute_error`, `pinball`, `interval_coverage`.

    Attributes:
        primary: the metric that decides in search, gate and policy; where None, log_loss for classes and mae for
            numbers.
        also: further metrics that are measured and logged.
        slices: columns by whose values the rows are cut; each part is measured and compared on its own.
        smallest_slice: rows that a part needs; smaller ones are put together.
        value: how an answer and its outcome turn into money; None where nobody says it.
    """

    primary: str | None = None
    also: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()
    smallest_slice: int = Field(default=200, ge=10)
    value: Value | None = None


class Gate(Settings):
    """Limits of promotion, in the primary metric's unit unless said otherwise.

    Attributes:
        require: what production needs. "better": a candidate must be better than the champion by more than `margin`;
            "not_worse": it must not be worse by more than `tolerance`.
        margin: smallest improvement that is worth a promotion; "auto" measures by how much two equal models differ.
        tolerance: largest loss that counts as not worse, for `not_worse` and for staging; "auto" as above.
        confidence: of intervals. The first gate on some rows uses this one; later gates on the same rows a higher one.
        guardrails: further metrics, each with its largest acceptable loss, in its own unit.
        slice_tolerance: largest loss in a slice of `metrics.slices`; twice the tolerance where None.
        value_tolerance: largest loss of `metrics.value`, in money a row.
        smallest_holdout: with fewer complete outcomes the gate decides nothing and holds the version back.
        window: the period of outcomes for production's gate; the one of split.holdout where None.
        label_delay_hours: outcomes of rows younger than this are incomplete and not used.
        calibration_error: largest mean distance of probabilities from observed shares (or of coverage from 90 %).
        missing_fall: how much more than the champion the candidate may lose when a column is missing, or its most
            common category unknown; five times the tolerance where None.
        farther: how much farther the candidate's training rows may be from the gate's rows than the champion's, as the
            mean Jensen-Shannon distance of the columns (0: alike, 1: nothing in common).
        larger: how many times larger than the champion's the bundle may be.
        slower: how many times longer than the champion's it may take to load or to answer.
        approval: production needs a person's approval, given as a tag of the version.
    """

    require: Literal["better", "not_worse"] = "better"
    margin: Margin = 0.0
    tolerance: Margin = USUAL_TOLERANCE
    confidence: float = Field(default=0.95, ge=0.5, lt=1)
    guardrails: dict[str, Annotated[Finite, Field(ge=0)]] = {}
    slice_tolerance: float | None = Field(default=None, ge=0)
    value_tolerance: float = Field(default=0.0, ge=0)
    smallest_holdout: int = Field(default=100, ge=10)
    window: Period | None = None
    label_delay_hours: float = Field(default=0.0, ge=0)
    calibration_error: float = Field(default=0.1, gt=0)
    missing_fall: float | None = Field(default=None, ge=0)
    farther: float = Field(default=0.05, ge=0, le=1)
    larger: float = Field(default=5.0, ge=1)
    slower: float = Field(default=3.0, ge=1)
    approval: bool = False

    @property
    def known_tolerance(self) -> float:
        """The tolerance as a number; the default where it is "auto" and was not measured."""
        return USUAL_TOLERANCE if self.tolerance == "auto" else self.tolerance

    @property
    def fall_allowed(self) -> float:
        """How much more than the champion the candidate may lose from a damaged column, in the metric's unit."""
        return FALLS * self.known_tolerance if self.missing_fall is None else self.missing_fall


class Registry(Settings):
    """How versions are kept. `stages` copies promotions to MLflow's old stages, for tools that still read them."""

    stages: bool = False


class Log(Settings):
    """The prediction log: every answer, and the outcomes that arrive later.

    Attributes:
        folder: a folder, or an s3:// address for the sealed parts; no log is kept where None.
        durability: "acknowledged" writes an answer to disk before it is sent; "buffered" may lose the last answers of
            a process that is killed.
        keep_days: sealed days older than this are removed; all are kept where None.
        private: whether columns.private are hashed in the log, or left out of it.
        spool: the local folder for answers that are not sealed yet; `folder` where None. Required with an s3://
            address.
    """

    folder: str | None = None
    durability: Literal["acknowledged", "buffered"] = "acknowledged"
    keep_days: int | None = Field(default=None, ge=1)
    private: Literal["hash", "drop"] = "hash"
    spool: str | None = None

    @model_validator(mode="after")
    def _local_spool(self) -> "Log":
        if (self.spool or self.folder or "").startswith("s3://"):
            raise ValueError("name a local folder as spool: there answers wait until they are sealed to s3://")
        return self


@lru_cache
def presets() -> dict[str, dict[str, Any]]:
    """The policies that come with the package, by name."""
    presets_by_name: dict[str, dict[str, Any]] = yaml.safe_load(PRESETS.read_text("utf-8"))
    return presets_by_name


class TrainOn(Settings):
    """Which of the rows with known outcomes a retraining takes.

    Attributes:
        rows: "all"; "days", those of the last days; "change", those since drift or a fall was first observed (all,
            where there was none or too few are left); "weighted", recent rows more often than old ones.
        days: number of days, for "days".
        half_life_days: the age in days at which a row is drawn half as often, for "weighted".
    """

    rows: Literal["all", "days", "change", "weighted"] = "all"
    days: float | None = Field(default=None, gt=0)
    half_life_days: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _complete(self) -> "TrainOn":
        for rows, key in (("days", "days"), ("weighted", "half_life_days")):
            if (self.rows == rows) != (getattr(self, key) is not None):
                raise ValueError(f"{key} and rows: {rows} go together")
        return self


class Policy(Settings):
    """What the loop does about its findings. A preset gives the values that are absent here; see policies.yaml.

    Attributes:
        preset: never, calendar, on-drift, on-performance or cautious.
        every: the length of a window: 6h, 1d, 1w, 1mo.
        alarm: causes that raise an alarm, once for as long as the cause lasts.
        retrain: causes that lead to retraining.
        calendar: retrain after so many windows, whatever was found; 0: never.
        while_it_pays: retrain in each window as long as the last retraining paid, and once to find out. Whether it paid
            is measured on the rows since then, between production and the version that it replaced.
        pays: the smallest gain that pays, as a share of production's advantage over the dummy.
        again: retrain when the number of new outcomes reaches this multiple of the rows that production was trained on.
        fall: how far below its expected mean the primary metric counts as fallen, in its unit; "range": where it is
            below the whole range expected for the next window.
        sure: whether the whole interval of the metric must lie below, or its value alone.
        refused: quality is a cause from this share of rows without an answer on.
        errors: service is a cause from this share of failed requests on.
        roll_back: go back where production is surely worse than the version that it replaced.
        worse: by how much at least, in the primary metric's unit.
        trial: let a version go to production on trial if it has the same recipe on newer rows, and the gate found
            nothing against it but cannot tell yet whether it is better. The next windows compare it with the version
            that it replaced.
        minimum_outcomes: with fewer outcomes nothing is concluded and nothing is trained.
        cooldown: smallest number of windows between two retrainings.
        budget: largest number of retrainings in any 30 days; None: no limit.
        train_on: the rows that a retraining takes.
        tune: trials of a search around the best parameters so far, at each retraining; 0: the parameters stay.
        retraining_cost: of one retraining, in the value's unit.
        outcome_cost: of one known outcome, in the value's unit.
    """

    preset: str = "cautious"
    every: str = "1mo"
    alarm: tuple[Cause, ...] = ()
    retrain: tuple[Cause, ...] = ()
    calendar: int = Field(default=0, ge=0)
    while_it_pays: bool = False
    pays: Finite = Field(default=0.05, ge=0)
    again: Finite | None = Field(default=None, gt=0)
    fall: Annotated[Finite, Field(ge=0)] | Literal["range"] = "range"
    sure: bool = True
    refused: float = Field(default=0.05, gt=0, le=1)
    errors: float = Field(default=0.01, gt=0, le=1)
    roll_back: bool = False
    worse: Finite = Field(default=0.0, ge=0)
    trial: bool = True
    minimum_outcomes: int = Field(default=500, ge=20)
    cooldown: int = Field(default=1, ge=1)
    budget: int | None = Field(default=None, ge=1)
    train_on: TrainOn = TrainOn()
    tune: int = Field(default=0, ge=0)
    retraining_cost: Finite = Field(default=0.0, ge=0)
    outcome_cost: Finite = Field(default=0.0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _over_a_preset(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        name = given.get("preset", "cautious")
        if name not in presets():
            raise ValueError(f"there is no preset '{name}'; there are {', '.join(presets())}")
        return {**presets()[name], **given}


class Alarms(Settings):
    """Where alarms are sent, besides the run and the page: to `webhook`, an address, or to `command`, a command line.

    Attributes:
        webhook: receives each alarm as JSON in a POST request; `${NAME}` is read from the environment.
        secret: the name of the environment variable with the key that signs the body (HMAC-SHA256).
        command: the words of a command that gets the alarm as JSON on its standard input.
        tries: how often delivery is tried; after that the next step tries again.
    """

    webhook: str | None = None
    secret: str | None = None
    command: tuple[str, ...] = ()
    tries: int = Field(default=4, ge=1, le=10)


class Serving(Settings):
    """Limits and intervals of the server.

    Attributes:
        body_bytes: largest request body.
        unfolded_bytes: largest memory that a body's rows may take when they are unfolded, names and values counted in
            each row.
        waiting_bytes: bodies that a worker holds at once, together; further ones are rejected (429).
        rows: most rows of a request.
        unknown_columns: most columns of a row that the contract does not know.
        depth: how deep lists and objects of a body may be nested.
        requests: most requests that a worker answers at once; further ones are rejected (429).
        connections: most open connections of a worker; from there on those that ask nothing are closed, oldest first.
        seconds: longest time of a request, from its first byte to its answer.
        head_seconds: longest time until a request's head has come, from the connection or its first byte.
        batch_rows: most rows of a micro-batch.
        batch_milliseconds: longest wait for a micro-batch to fill under load; without load nothing waits.
        reload_seconds: time between two checks which version the alias points to.
        last_rows: number of recently answered rows on which a new version is tried before it serves.
        stop_seconds: time that a stopping server has to finish open requests.
        seal_seconds: time between two sealings of the prediction log in the background.
    """

    body_bytes: int = Field(default=4_194_304, ge=1_000, le=2**30)
    unfolded_bytes: int = Field(default=2**29, ge=1_000, le=2**34)
    waiting_bytes: int = Field(default=2**26, ge=1_000)
    rows: int = Field(default=10_000, ge=1)
    unknown_columns: int = Field(default=1_000, ge=0)
    depth: int = Field(default=32, ge=5, le=100)
    requests: int = Field(default=1_000, ge=1)
    connections: int = Field(default=2_000, ge=1)
    seconds: float = Field(default=30.0, gt=0, le=3600)
    head_seconds: float = Field(default=10.0, gt=0, le=3600)
    batch_rows: int = Field(default=256, ge=1)
    batch_milliseconds: float = Field(default=2.0, ge=0, le=100)
    reload_seconds: float = Field(default=2.0, gt=0)
    last_rows: int = Field(default=200, ge=0, le=100_000)
    stop_seconds: float = Field(default=20.0, gt=0)
    seal_seconds: float = Field(default=300.0, gt=0)


def secret(variable: str) -> str | None:
    """The secret in an environment variable, or in the file that the variable with `_FILE` behind its name gives.

    Returns:
        Its text without spaces around it; None where neither variable is set.

    Raises:
        SettingsError: the file cannot be read, or the secret is empty.
    """
    file = os.environ.get(f"{variable}_FILE")
    if file is None:
        text = os.environ.get(variable)
        if text is None:
            return None
    else:
        try:
            text = decode(Path(file).read_bytes())
        except (OSError, ValueError) as error:
            raise SettingsError(f"{variable}_FILE names '{file}', which cannot be read.") from error
    if not text.strip():
        raise SettingsError(f"{variable} is set and empty: set a token, or nothing at all.")
    learn(text.strip())  # one that a file holds is in no variable
    return text.strip()


def hash_secret(hashed: Sequence[str], *, kept: Sequence[str] = ()) -> str:
    """The secret of the hashes of private values; empty where nothing is hashed.

    Args:
        hashed: the private columns that are hashed.
        kept: those among them that are hashed whatever `log.private` says, for they are part of the key.

    Raises:
        SettingsError: there is none, and something is hashed.
    """
    text = secret(SALT) if hashed else ""
    if text is None:
        instead = "" if kept else "; or write log.private: drop"
        raise SettingsError(
            f"The prediction log holds hashes of private columns ({', '.join(sorted(hashed))}), and without a secret "
            f"whoever reads it can try out all values. Set {SALT} to a secret, made once by\n"
            f'  python -c "import secrets; print(secrets.token_urlsafe(32))"\nand kept outside the log{instead}.'
        )
    return text
