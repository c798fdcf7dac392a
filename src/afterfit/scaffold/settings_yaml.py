"""The text of a settings file: YAML with comments, which is read back unchanged whatever the columns' names are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

LONGEST_KEY = 100  # YAML needs a question mark before longer keys
LONGEST_COMMENT = 110


@dataclass(frozen=True, slots=True)
class ColumnEntry:
    """One column: its kind, why it is left out (None: it is a feature), and a remark about it."""

    name: str
    kind: str
    left_out: str | None = None
    remark: str = ""


@dataclass(frozen=True, slots=True)
class FormatEntry:
    """How a column is written: one format that was recognised, or those between which a person must choose."""

    name: str
    formats: tuple[str, ...]
    remark: str
    is_sure: bool
    meanings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SettingsPlan:
    """Everything that goes into the file. `spread` is the standard deviation of a regression's target, in its unit."""

    name: str
    path: str
    target: str
    task: str
    positive: Any
    classes: int
    time: str | None
    key: str | None
    entries: tuple[ColumnEntry, ...]
    marks: tuple[str, ...]
    rows: int
    spread: float
    slices: tuple[str, ...]
    formats: tuple[FormatEntry, ...] = ()


def render_settings(plan: SettingsPlan, decisions: Sequence[tuple[str | None, str, str]]) -> str:
    """The text of the file.

    `decisions` about the target, the time column and the whole file are (column, decision, reason); they stand at the
    top as comments.
    """
    parts = [_head(plan, decisions), _columns(plan), _split(plan), _candidates(plan), _metrics(plan)]
    return "\n".join(line for part in parts for line in part) + "\n"


def yaml_scalar(value: Any) -> str:
    """A value as YAML on one line, with quotes where it needs them."""
    style = '"' if isinstance(value, str) and not value.isprintable() else None
    as_list = yaml.safe_dump([value], default_flow_style=True, default_style=style, width=2**31, allow_unicode=True)
    return as_list.strip().removeprefix("[").removesuffix("]")


def comment(text: str) -> str:
    """Text for a comment: one line, printable, not too long."""
    printable = "".join(char if char.isprintable() else " " for char in text)
    return printable if len(printable) <= LONGEST_COMMENT else f"{printable[: LONGEST_COMMENT - 1]}…"


def _head(plan: SettingsPlan, decisions: Sequence[tuple[str | None, str, str]]) -> Iterator[str]:
    yield f"# Drafted from {comment(plan.path)} ({plan.rows:,} rows). Read it, change what is wrong, then train."
    for column, decision, reason in decisions:
        yield f"# - {comment(f'{column}: ' if column else '')}{comment(f'{decision}, since {reason}')}"
    yield f"name: {yaml_scalar(plan.name)}"
    yield f"task: {plan.task}"
    yield f"target: {yaml_scalar(plan.target)}"
    if plan.positive is not None:
        yield f"positive: {yaml_scalar(plan.positive)}"
    if plan.time is not None:
        yield f"time: {yaml_scalar(plan.time)}"
    if plan.key is not None:
        yield f"key: [{yaml_scalar(plan.key)}]  # different in every row: outcomes join predictions by it"
    yield ""
    yield "source:"
    yield f"  path: {yaml_scalar(plan.path)}"
    yield ""


def _columns(plan: SettingsPlan) -> Iterator[str]:
    left_out = [entry for entry in plan.entries if entry.left_out is not None]
    features = [entry for entry in plan.entries if entry.left_out is None]
    if not (left_out or features or plan.marks or plan.formats):
        return
    yield "columns:"
    if left_out:
        yield "  ignore:  # everything else but target, time and key is a feature"
        yield from (f"    - {yaml_scalar(entry.name)}  # {comment(entry.left_out or '')}" for entry in left_out)
    if features:
        yield "  kinds:"
        for entry in features:
            remark = f"  # {comment(entry.remark)}" if entry.remark else ""
            yield from _kind_lines(entry.name, entry.kind + remark)
    yield from _formats(plan.formats)
    if plan.marks:
        yield f"  missing_marks: [{', '.join(map(yaml_scalar, plan.marks))}]"
    yield ""


def _formats(entries: Sequence[FormatEntry]) -> Iterator[str]:
    """How columns are written; lines between which a person must choose are comments."""
    if entries:
        yield "  formats:  # how numbers and dates are written; anything else in such a column is an error of its row"
    for entry in entries:
        if entry.is_sure:
            yield from _kind_lines(entry.name, f"{_quoted(entry.formats[0])}  # {comment(entry.remark)}")
            continue
        yield f"    # {comment(f'{entry.name}: {entry.remark}')}"
        for text, meaning in zip(entry.formats, entry.meanings, strict=True):
            lines = _kind_lines(entry.name, f"{_quoted(text)}  # {comment(meaning)}")
            yield from (f"    # {line.strip()}" for line in lines)


def _quoted(text: str) -> str:
    dumped = yaml.safe_dump([text], default_flow_style=True, default_style='"', width=2**31, allow_unicode=True)
    return dumped.strip().removeprefix("[").removesuffix("]")


def _kind_lines(key: str, value: str) -> Iterator[str]:
    text = yaml_scalar(key)
    if len(text) <= LONGEST_KEY:
        yield f"    {text}: {value}"
    else:
        yield f"    ? {text}"
        yield f"    : {value}"


def _split(plan: SettingsPlan) -> Iterator[str]:
    yield "split:"
    rule = "the last by time" if plan.time is not None else "chosen by a hash of the key or of the row's content"
    yield f"  share: 0.2  # held out: {rule}"
    yield f"  folds: {5 if plan.rows >= 500 else 3}"
    yield ""


def _candidates(plan: SettingsPlan) -> Iterator[str]:
    smallest = max(1, min(20, plan.rows // 50))
    largest = max(smallest + 1, min(500, plan.rows // 10))
    yield "candidates:"
    yield "  - builder: hist_gradient_boosting"
    yield f"    params: {{learning_rate: 0.05, max_iter: 150, min_samples_leaf: {smallest}}}"
    yield "    space:"
    yield "      learning_rate: {low: 0.02, high: 0.2, log: true}"
    yield "      max_leaf_nodes: {low: 4, high: 48, log: true}"
    yield f"      min_samples_leaf: {{low: {smallest}, high: {largest}, log: true}}"
    yield "  - builder: linear"
    yield "    space:"
    if plan.task == "classification":
        yield "      C: {low: 0.001, high: 10.0, log: true}"
    else:
        yield "      alpha: {low: 0.01, high: 1000.0, log: true}"
    yield ""


def _metrics(plan: SettingsPlan) -> Iterator[str]:
    primary, also = {
        ("classification", True): ("roc_auc", "log_loss, brier, average_precision, accuracy"),
        ("classification", False): ("log_loss", "accuracy"),
    }.get((plan.task, plan.classes == 2), ("mae", "rmse, r2"))
    yield "metrics:"
    yield f"  primary: {primary}"
    yield f"  also: [{also}]"
    if plan.slices:
        yield f"  slices: [{', '.join(map(yaml_scalar, plan.slices))}]"
    if plan.task == "regression" and plan.spread > 0:
        yield ""
        yield "gate:"
        yield "  # a loss up to this is still not worse: 1 % of the target's spread"
        yield f"  tolerance: {yaml_scalar(float(f'{plan.spread / 100:.2g}'))}"
