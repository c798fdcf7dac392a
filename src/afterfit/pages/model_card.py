"""The model card in Markdown: the target, the training rows, the expected metrics, and what a row looks like."""

from math import isfinite
from typing import Any

from afterfit.model.bundle import Bundle
from afterfit.texts.redaction import redact


def render(bundle: Bundle) -> str:
    """The card of a version.

    Args:
        bundle: with its manifest and its contract.
    """
    manifest, contract = bundle.manifest, bundle.scorer.contract
    window = manifest.window
    lines = [
        f"# {manifest.name}",
        "",
        f"Predicts `{manifest.target}` ({manifest.task}) with `{manifest.builder}`.",
        "",
        f"Trained {manifest.created} on {int(window['rows']):,} rows"
        + (f" from {window['start']} to {window['end']}" if window.get("start") else "")
        + f" of {window['name']} (sha256 {str(window['sha256'])[:12]}…).",
        "",
        "## What to expect",
        "",
        "| metric | mean over folds | sd | next window, 90 % |",
        "|---|---|---|---|",
        *(
            f"| {name} | {_number(spread['mean'])} | {_number(spread['sd'])} | "
            f"{_number(spread['low'])} to {_number(spread['high'])} |"
            for name, spread in manifest.expected.items()
        ),
        "",
        "## What a row looks like",
        "",
        "| column | kind | range or categories | missing in training |",
        "|---|---|---|---|",
        *(
            f"| {_cell(column.name)} | {column.kind}{', required' if column.required else ''} | "
            f"{_range_or_categories(column)} | {column.missing_share:.1%} |"
            for column in contract.columns
        ),
        "",
        "A value outside this is answered with a warning; see `warnings` in each answer.",
        "",
        f"Bundle digest `{bundle.digest}`.",
    ]
    return redact("\n".join(lines) + "\n")


def _range_or_categories(column: Any) -> str:
    if column.private:
        return "private"
    if column.kind == "category":
        shown = ", ".join(_cell(text[:20]) for text in column.categories[:6])
        more = len(column.categories) - 6
        return f"{shown} and {more:,} more" if more > 0 else shown
    if column.kind == "datetime":
        return f"{column.earliest} to {column.latest}" if column.earliest else ""
    return "" if column.low is None else f"{column.low:g} to {column.high:g}"


def _cell(text: str) -> str:
    plain = " ".join(text.split())
    return plain.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "'")


def _number(value: float | None) -> str:
    return "not defined" if value is None or not isfinite(value) else f"{value:.4g}"
