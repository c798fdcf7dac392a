"""Pictures and cards: what a person looks at in a run, drawn from out-of-fold predictions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix, precision_recall_curve, roc_curve

from afterfit.model.bundle import Bundle
from afterfit.performance.predictions import Predictions

INK, ACCENT, FAINT = "#1f2933", "#0b6e99", "#c9d2da"
MOST_BARS = 20
MOST_POINTS = 5000


def _axes(title: str, x: str, y: str, *, wide: float = 5.2, high: float = 4.2) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(wide, high), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11, color=INK, loc="left")
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def classification(y: npt.NDArray[Any], predictions: Predictions) -> dict[str, Figure]:
    """ROC, precision-recall and calibration (one line a class for more than two), and the confusion matrix.

    Args:
        y: (n,) class indices.
        predictions: out-of-fold predictions for the same rows.
    """
    classes, table = predictions.classes or (), np.asarray(predictions.probabilities)
    lines = {str(classes[k]): (y == k, table[:, k]) for k in ([1] if len(classes) == 2 else range(len(classes)))}
    known = {label: line for label, line in lines.items() if 0 < line[0].sum() < len(y)}
    pictures = {"confusion": _confusion(y, predictions)}
    if known:
        pictures |= {
            "roc": _roc(known),
            "precision_recall": _precision_recall(known),
            "calibration": _calibration(known),
        }
    return pictures


Lines = Mapping[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]]


def _roc(lines: Lines) -> Figure:
    figure, axes = _axes("ROC, out of fold", "false positive rate", "true positive rate")
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
    for label, (hit, share) in lines.items():
        wrong, right, _ = roc_curve(hit, share)
        axes.plot(wrong, right, label=label, **_line(lines))
    return _with_legend(figure, axes, lines)


def _precision_recall(lines: Lines) -> Figure:
    figure, axes = _axes("Precision and recall, out of fold", "recall", "precision")
    for label, (hit, share) in lines.items():
        precision, recall, _ = precision_recall_curve(hit, share)
        axes.plot(recall, precision, label=label, **_line(lines))
        if len(lines) == 1:
            axes.axhline(hit.mean(), color=FAINT, linewidth=1)
    axes.set_ylim(0, 1.02)
    return _with_legend(figure, axes, lines)


def _calibration(lines: Lines) -> Figure:
    figure, axes = _axes("Calibration, out of fold", "predicted probability", "observed share")
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
    for label, (hit, share) in lines.items():
        order = np.argsort(share, kind="stable")
        tenths = [part for part in np.array_split(order, 10) if len(part)]
        axes.plot(
            [share[part].mean() for part in tenths],
            [hit[part].mean() for part in tenths],
            marker="o",
            label=label,
            **_line(lines),
        )
    return _with_legend(figure, axes, lines)


def _line(lines: Lines) -> dict[str, Any]:
    return {"color": ACCENT, "linewidth": 1.8} if len(lines) == 1 else {"linewidth": 1.4}


def _with_legend(figure: Figure, axes: Axes, lines: Lines) -> Figure:
    if 1 < len(lines) <= MOST_BARS:
        axes.legend(frameon=False, fontsize=8)
    return figure


def _confusion(y: npt.NDArray[Any], predictions: Predictions) -> Figure:
    classes = predictions.classes or ()
    counts = confusion_matrix(y, predictions.prediction, labels=range(len(classes)))
    size = min(4.2 + 0.25 * len(classes), 12.0)
    figure, axes = _axes("Confusion, out of fold", "predicted", "true", wide=size, high=size)
    axes.imshow(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    names = [str(label)[:20] for label in classes]
    axes.set_xticks(range(len(names)), names, rotation=0 if len(names) < 6 else 90)
    axes.set_yticks(range(len(names)), names)
    if len(names) <= MOST_BARS:
        for row, column in np.ndindex(counts.shape):
            dark = counts[row, column] > counts[row].sum() / 2
            axes.text(
                column,
                row,
                f"{counts[row, column]:,}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if dark else INK,
            )
    return figure


def regression(y: npt.NDArray[Any], predictions: Predictions) -> dict[str, Figure]:
    """Predicted against true, and the residuals' distribution.

    Args:
        y: (n,) true numbers.
        predictions: out-of-fold predictions for the same rows.
    """
    chosen = np.linspace(0, len(y) - 1, min(len(y), MOST_POINTS)).astype(int)
    against, axes = _axes("Predicted against true, out of fold", "predicted", "true")
    axes.scatter(predictions.prediction[chosen], y[chosen], s=5, alpha=0.35, color=ACCENT, linewidths=0)
    ends = [float(predictions.prediction.min()), float(predictions.prediction.max())]
    axes.plot(ends, ends, color=INK, linewidth=1)
    spread, axes = _axes("Residuals, out of fold", "true minus predicted", "rows")
    residuals = y - predictions.prediction
    low, high = np.quantile(residuals, [0.005, 0.995])
    axes.hist(np.clip(residuals, low, high), bins=60, color=ACCENT)
    axes.axvline(0, color=INK, linewidth=1)
    return {"predicted_against_true": against, "residuals": spread}


def bars(title: str, x: str, sizes: Mapping[str, float], spreads: Mapping[str, float] | None = None) -> Figure:
    """Horizontal bars, the largest first: importances of features or of search dimensions."""
    ranked = sorted(sizes, key=lambda name: -sizes[name])[:MOST_BARS][::-1]
    figure, axes = _axes(title, x, "", wide=6.2, high=1.2 + 0.26 * len(ranked))
    errors = None if spreads is None else [spreads[name] for name in ranked]
    axes.barh([name[:40] for name in ranked], [sizes[name] for name in ranked], xerr=errors, color=ACCENT, ecolor=INK)
    axes.axvline(0, color=INK, linewidth=0.8)
    return figure


def history(values: Sequence[tuple[int, float, bool]], metric: str, *, greater_is_better: bool) -> Figure:
    """A search's trials in order: (number, value, pruned), and the best so far."""
    figure, axes = _axes("The search, trial by trial", "trial", metric)
    finished = [(number, value) for number, value, pruned in values if not pruned]
    stopped = [(number, value) for number, value, pruned in values if pruned]
    best = np.maximum.accumulate if greater_is_better else np.minimum.accumulate
    axes.step(
        [n for n, _ in finished], best([v for _, v in finished]), where="post", color=INK, linewidth=1, label="best"
    )
    axes.plot([n for n, _ in finished], [v for _, v in finished], "o", color=ACCENT, label="finished")
    if stopped:
        axes.plot([n for n, _ in stopped], [v for _, v in stopped], "x", color=FAINT, label="stopped early")
    axes.legend(frameon=False, fontsize=8)
    return figure


def card(bundle: Bundle) -> str:
    """The model card in Markdown: what it answers, from what, how well, and what it has never seen."""
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
            f"| {_cell(column.name)} | {column.kind}{', required' if column.required else ''} | {_span(column)} | "
            f"{column.missing_share:.1%} |"
            for column in contract.columns
        ),
        "",
        "A value outside this is answered with a warning; see `warnings` in each answer.",
        "",
        f"Bundle digest `{bundle.digest}`.",
    ]
    return "\n".join(lines) + "\n"


def _span(column: Any) -> str:
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
    return "not defined" if value is None or not np.isfinite(value) else f"{value:.4g}"
