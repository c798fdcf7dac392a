"""The layout of a profile: the bins of each column, the scores of relations, and how rows depend on each other.

A layout is learnt once, from an even sample of the reference; then any window is counted by it. It is saved as JSON
with a format number, so that what an older release wrote stays readable.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from afterfit.drift import correlations, tabular
from afterfit.drift.binning import (
    Bins,
    CategoryBins,
    Combination,
    DateBins,
    NumberBins,
    learn_category,
    learn_combinations,
    learn_number,
    level_tests,
    sorted_digests,
)
from afterfit.drift.correlations import Score
from afterfit.drift.design_effects import TimeBlocks, choose_units, cut_into_blocks, lag_correlations
from afterfit.drift.tabular import Kind
from afterfit.errors import DataError

Array = np.ndarray[Any, Any]
FORMAT = 1
"""Number of the JSON format of saved profiles."""
SAMPLE = 200_000
"""Most rows that bins and design effects are learnt from."""
SAMPLE_VALUES = 20_000_000
"""Most values that they are learnt from: of a very wide table fewer rows are used."""
ROWS_OF_DIRECTIONS = 60_000
"""About how many rows of the sample the directions of relations are learnt from."""
ROWS_OF_SELECTION = 2_000
"""About how many rows the related columns of a wide table are chosen from; a sample never has fewer."""


@dataclass(frozen=True)
class Moments:
    """Moments of rows in some directions: variance and skewness (directions,), lag correlations (units, directions)."""

    variance: Array
    skewness: Array
    lags: Array


@dataclass(frozen=True)
class Dependence:
    """How rows depend on each other: lag correlations of each column's tests, moments of the relations' directions.

    `looks` holds for each column an array (units, tests). `residual` is by score, `column_forms` by the column's place
    in `related`, `pair_forms` by pair. `effective` is the sample's effective number of rows: its variances are those of
    so many independent rows.
    """

    looks: tuple[Array, ...]
    residual: Moments
    column_forms: Moments
    pair_forms: Moments
    effective: float


@dataclass(frozen=True)
class ColumnSpec:
    """One column of a layout."""

    name: str
    kind: Kind
    bins: Bins


@dataclass(frozen=True)
class ProfileSpec:
    """How windows are counted.

    `units` are nested units of time, finest first; `blocks` is how many blocks of each the sample had.
    """

    columns: tuple[ColumnSpec, ...]
    time: str | None
    units: tuple[str, ...]
    blocks: tuple[int, ...]
    scores: tuple[Score, ...]
    related: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]
    combinations: tuple[Combination, ...]
    dependence: Dependence
    hidden: bool


def even_sample(part: Any, columns: int) -> pd.DataFrame:
    """Rows of a part at even distances; which rows they are does not depend on their values."""
    rows = tabular.row_count(part)
    most_rows = max(min(SAMPLE, SAMPLE_VALUES // max(columns, 1)), ROWS_OF_SELECTION)
    step = -(-rows // most_rows) if rows > most_rows else 1
    if isinstance(part, pd.DataFrame):
        return part.iloc[::step]
    frame = part.take(np.arange(0, rows, step)) if step > 1 else part
    names = tabular.column_names(part)
    return pd.DataFrame({name: tabular.series(frame, i) for i, name in enumerate(names)})


def learn_layout(
    part: Any,
    *,
    time: str | None = None,
    kinds: Mapping[str, Kind] | None = None,
    hidden: bool = False,
    related: bool = True,
) -> ProfileSpec:
    """Learn a layout from one part.

    Args:
        part: a frame, an Arrow table or a record batch: the reference, or a fair sample of it.
        time: the column with the time of each row, or None where rows are independent.
        kinds: kinds of columns whose types do not say them, such as {"month": "category"}.
        hidden: keep digests of category names in place of the names.
        related: whether to learn relations between columns.
    """
    names = tabular.column_names(part)
    if time is not None and time not in names:
        raise DataError(f"There is no time column '{time}'; the columns are: {', '.join(names[:20])}.")
    kind_by_name = tabular.choose_kinds(part, time, kinds)
    if not kind_by_name:
        raise DataError("A profile needs at least one column besides the time column, and there is none.")
    frame = even_sample(part, len(names))
    seconds = None if time is None else tabular.as_seconds(frame.iloc[:, names.index(time)], time)
    units = () if seconds is None else choose_units(seconds)
    sample = cut_into_blocks(seconds, units) if seconds is not None and units else None
    coarsest_block = None if sample is None else _coarsest_block(sample, len(frame))
    columns, levels = _learn_columns(frame, kind_by_name, coarsest_block, hidden=hidden)
    combinations = learn_combinations([column.bins for column in columns], levels, coarsest_block) if related else ()
    with correlations.one_thread():
        layout = _learn_relations(columns, levels, sample, combinations=combinations, relations=related)
    return replace(layout, time=time, units=units, hidden=hidden)


def score_matrix(scores: Sequence[Score], columns: Sequence[ColumnSpec], levels: Sequence[Array]) -> Array:
    """(scores, rows) float32 whole numbers."""
    matrix = np.empty((len(scores), len(levels[0])), dtype=np.float32)
    for i, score in enumerate(scores):
        values = correlations.score_table(score, columns[score.column].bins).astype(np.float32)
        matrix[i] = values[levels[score.column]]
    return matrix


def score_sums(scores: Sequence[Score], columns: Sequence[ColumnSpec], levels: Sequence[Array]) -> correlations.Sums:
    """Sums of scores and of their products, over pieces that are small enough for exact float32 products."""
    sums = correlations.empty_sums(len(scores))
    for start in range(0, len(levels[0]), 65_536):
        sums += correlations.sum_scores(
            score_matrix(scores, columns, [level[start : start + 65_536] for level in levels])
        )
    return sums


def round_to_four_digits(values: Array) -> Array:
    """Values with four significant digits: more would be noise, and would make saved profiles larger."""
    with np.errstate(divide="ignore", invalid="ignore"):
        magnitude = np.floor(np.log10(np.abs(values)))
    power = 10.0 ** np.clip(3 - np.where(np.isfinite(magnitude), magnitude, 0.0), -280, 280)
    result: Array = np.rint(values * power) / power
    return result


def parse_json(text: str | bytes) -> Any:
    """The plain values in the JSON text of a saved profile; DataError where it is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"This is not a saved profile: it is no JSON ({error}).") from error


def check_format(saved: Mapping[str, Any]) -> None:
    """Refuse what is no profile, or one that a later release wrote."""
    number = saved.get("format") if isinstance(saved, Mapping) else None
    if not isinstance(number, int):
        raise DataError("This is not a saved profile: it has no format number. Save one with `to_json`.")
    if not 1 <= number <= FORMAT:
        raise DataError(
            f"This profile has format {number}; this release reads formats 1 to {FORMAT}. "
            "Read it with the release that wrote it, or a later one."
        )


def layout_to_dict(layout: ProfileSpec) -> dict[str, Any]:
    """A layout as plain values."""
    return {
        "time": layout.time,
        "units": list(layout.units),
        "blocks": list(layout.blocks),
        "hidden": layout.hidden,
        "columns": [{"name": c.name, "kind": c.kind, **_bins_to_dict(c.bins)} for c in layout.columns],
        "scores": [list(astuple(score)) for score in layout.scores],
        "related": list(layout.related),
        "pairs": [list(pair) for pair in layout.pairs],
        "combinations": [combination.to_list() for combination in layout.combinations],
        "dependence": _dependence_to_dict(layout.dependence),
    }


def layout_from_dict(saved: Mapping[str, Any]) -> ProfileSpec:
    """A layout from plain values."""
    columns = tuple(ColumnSpec(c["name"], c["kind"], _bins_from_dict(c)) for c in saved["columns"])
    units = tuple(saved["units"])
    return ProfileSpec(
        columns=columns,
        time=saved["time"],
        units=units,
        blocks=tuple(saved["blocks"]),
        scores=tuple(Score(*score) for score in saved["scores"]),
        related=tuple(saved["related"]),
        pairs=tuple((one, other) for one, other in saved["pairs"]),
        combinations=tuple(map(Combination.from_list, saved["combinations"])),
        dependence=_dependence_from_dict(saved["dependence"], len(units)),
        hidden=saved["hidden"],
    )


def _learn_columns(
    frame: pd.DataFrame, kinds: Mapping[str, Kind], coarsest_block: Array | None, *, hidden: bool
) -> tuple[tuple[ColumnSpec, ...], list[Array]]:
    names = tabular.column_names(frame)
    columns, levels = [], []
    for name, kind in kinds.items():
        values = frame.iloc[:, names.index(name)]
        column, column_levels = _learn_column(name, kind, values, coarsest_block, hidden=hidden)
        columns.append(column)
        levels.append(column_levels.astype(np.uint8))
    return tuple(columns), levels


def _learn_column(
    name: str, kind: Kind, values: "pd.Series[Any]", block: Array | None, *, hidden: bool
) -> tuple[ColumnSpec, Array]:
    if kind == "datetime":
        present = values.notna().to_numpy()
        counts = (int((~present).sum()), int(present.sum()))
        return ColumnSpec(name, kind, DateBins(counts)), present.astype(np.int64)
    if kind == "number":
        numbers = tabular.as_numbers(values).floats
        numbers = np.where(np.isinf(numbers), np.nan, numbers)
        number_bins = learn_number(numbers)
        return ColumnSpec(name, kind, number_bins), number_bins.level_of_cell[number_bins.cells(numbers)]
    category_names = tabular.as_names(values)
    bins = learn_category(category_names, block, kind=kind, hidden=hidden)
    return ColumnSpec(name, kind, bins), bins.levels(category_names)[0]


def _coarsest_block(sample: TimeBlocks, rows: int) -> Array:
    block = np.full(rows, -1, dtype=np.int64)
    block[sample.order] = sample.parents[-1][sample.finest]
    return block


def _learn_relations(
    columns: tuple[ColumnSpec, ...],
    levels: list[Array],
    sample: TimeBlocks | None,
    *,
    combinations: tuple[Combination, ...],
    relations: bool,
) -> ProfileSpec:
    test_lags = tuple(
        _lags_of_tests(column.bins, column_levels, sample)
        for column, column_levels in zip(columns, levels, strict=True)
    )
    scores_by_column = [correlations.scores_of(i, column.bins) if relations else [] for i, column in enumerate(columns)]
    chosen = _choose_related(scores_by_column, columns, levels)
    scores = tuple(score for i in chosen for score in scores_by_column[i])
    step = max(-(-len(levels[0]) // ROWS_OF_DIRECTIONS), 1)
    thinned_levels = [column_levels[::step] for column_levels in levels]
    thinned_sample = None if sample is None else _thin_blocks(sample, step, len(levels[0]))
    sums = score_sums(scores, columns, thinned_levels)
    directions = correlations.find_directions(sums, scores)
    strengths = correlations.strengths(directions)
    pairs = sorted(
        pair
        for pair, strength_of_pair in sorted(strengths.items(), key=lambda item: -item[1])[: correlations.MOST_PAIRS]
        if strength_of_pair >= correlations.STRENGTH
    )
    related = tuple(sorted(directions.groups)) if len(directions.groups) > 1 else ()
    moments = _direction_moments(
        directions, _standard_rows(directions, scores, columns, thinned_levels), related, pairs, thinned_sample
    )
    effective = _effective_rows(len(levels[0]), test_lags, sample)
    return ProfileSpec(
        columns=columns,
        time=None,
        units=(),
        blocks=() if sample is None else tuple(len(rows) for rows in sample.rows_of),
        scores=scores,
        related=related,
        pairs=tuple(pairs),
        combinations=combinations,
        dependence=Dependence(test_lags, *moments, effective=effective),
        hidden=False,
    )


def _thin_blocks(sample: TimeBlocks, step: int, rows: int) -> TimeBlocks:
    """The cut of every step-th row."""
    finest = np.full(rows, -1, dtype=np.int64)
    finest[sample.order] = sample.finest
    thinned = finest[::step]
    order = np.argsort(thinned, kind="stable")
    order = order[thinned[order] >= 0]
    present_blocks, starts, counts = np.unique(thinned[order], return_index=True, return_counts=True)
    parents = tuple(np.unique(parent[present_blocks], return_inverse=True)[1] for parent in sample.parents)
    rows_of = tuple(np.bincount(parent, weights=counts).astype(np.int64) for parent in parents)
    return TimeBlocks(order, starts, rows_of, parents)


def _lags_of_tests(bins: Bins, levels: Array, sample: TimeBlocks | None) -> Array:
    """Lag correlations of a column's tests: (units, tests)."""
    tests, scores = level_tests(bins)
    if sample is None:
        return np.zeros((0, len(tests)))
    counts = np.bincount(levels[sample.order], minlength=bins.size).astype(np.float64)
    centred = scores - (counts[1:] @ scores[1:]) / max(counts[1:].sum(), 1.0)
    centred[0] = 0.0
    centred[:, 0] = scores[:, 0] - counts[0] / max(counts.sum(), 1.0)
    blocks = len(sample.starts)
    block_level_rows = np.bincount(sample.finest * bins.size + levels[sample.order], minlength=blocks * bins.size)
    variances = (counts @ centred**2) / max(counts.sum(), 1.0)
    return round_to_four_digits(
        lag_correlations(block_level_rows.reshape(blocks, bins.size) @ centred, variances, sample)
    )


def _choose_related(
    scores_by_column: Sequence[Sequence[Score]], columns: Sequence[ColumnSpec], levels: Sequence[Array]
) -> list[int]:
    """The columns whose relations are tested: all, or of a wide table the most strongly related ones."""
    candidates = [i for i, scores in enumerate(scores_by_column) if scores]
    if sum(len(scores_by_column[i]) for i in candidates) <= correlations.MOST_SCORES:
        return candidates
    step = max(len(levels[0]) // ROWS_OF_SELECTION, 1)
    rows = np.stack(
        [correlations.score_table(scores_by_column[i][0], columns[i].bins)[levels[i][::step]] for i in candidates]
    ).astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    norms = np.sqrt((rows**2).sum(axis=1, keepdims=True))
    rows /= np.where(norms > 0, norms, 1.0)
    similarity = np.abs(rows @ rows.T)
    np.fill_diagonal(similarity, 0.0)
    chosen: list[int] = []
    score_count = 0
    for position in np.argsort(-similarity.max(axis=1), kind="stable").tolist():
        score_count += len(scores_by_column[candidates[position]])
        if score_count > correlations.MOST_SCORES:
            break
        chosen.append(candidates[position])
    return sorted(chosen)


def _standard_rows(
    directions: correlations.Directions, scores: Sequence[Score], columns: Sequence[ColumnSpec], levels: Sequence[Array]
) -> Array:
    """(rows, scores) centred and in units of the standard deviation; 0 where a score does not vary."""
    matrix = score_matrix(scores, columns, levels) - directions.means[:, None].astype(np.float32)
    matrix *= np.where(directions.scales > 0, 1.0 / np.where(directions.scales > 0, directions.scales, 1.0), 0.0)[
        :, None
    ]
    return matrix.T


def _direction_moments(
    directions: correlations.Directions,
    rows: Array,
    related: Sequence[int],
    pairs: Sequence[tuple[int, int]],
    sample: TimeBlocks | None,
) -> tuple[Moments, Moments, Moments]:
    residual = rows @ directions.residual.T.astype(np.float32)
    column_forms = [directions.form_with_others(column).row_contributions(rows) for column in related]
    pair_forms = [directions.form_of_pair(*pair).row_contributions(rows) for pair in pairs]
    return (
        _moments(residual, sample),
        _moments(np.stack(column_forms, axis=1) if column_forms else np.zeros((len(rows), 0)), sample),
        _moments(np.stack(pair_forms, axis=1) if pair_forms else np.zeros((len(rows), 0)), sample),
    )


def _moments(rows: Array, sample: TimeBlocks | None) -> Moments:
    centred = rows - rows.mean(axis=0) if len(rows) else rows
    count = max(len(rows), 1)
    square = centred**2
    variance = square.sum(axis=0, dtype=np.float64) / count
    third_moment = (square * centred).sum(axis=0, dtype=np.float64) / count
    skewness = third_moment / np.where(variance > 0, variance, 1.0) ** 1.5
    lags = np.zeros((0, rows.shape[1]))
    if sample is not None:
        sums = np.add.reduceat(centred[sample.order], sample.starts, axis=0)
        lags = round_to_four_digits(lag_correlations(sums.astype(np.float64), variance, sample))
    return Moments(round_to_four_digits(variance), round_to_four_digits(skewness), lags)


def _effective_rows(rows: int, test_lags: Sequence[Array], sample: TimeBlocks | None) -> float:
    """The effective number of rows, by the median over columns of the largest design effect of their tests."""
    if sample is None:
        return float(rows)
    pairs_per_row, finer_total = [], float(rows)
    for blocks in sample.rows_of:
        total = float((blocks.astype(np.float64) ** 2).sum())
        pairs_per_row.append((total - finer_total) / rows)
        finer_total = total
    design_effects = [float((1.0 + np.array(pairs_per_row) @ lags).max()) for lags in test_lags]
    return float(round_to_four_digits(np.array([rows / max(float(np.median(design_effects)), 1.0)]))[0])


def _bins_to_dict(bins: Bins) -> dict[str, Any]:
    if isinstance(bins, NumberBins):
        grid = [bins.offset, bins.scale, bins.centre, bins.curve]
        return {"grid": grid, "starts": list(bins.starts), "sample": list(bins.sample), "decimals": bins.decimals}
    if isinstance(bins, CategoryBins):
        return {
            "names": list(bins.kept),
            "known": sorted_digests(bins.known),
            "sample": list(bins.sample),
            "once": bins.once,
            "hidden": bins.hidden,
        }
    return {"sample": list(bins.sample)}


def _bins_from_dict(saved: Mapping[str, Any]) -> Bins:
    sample = tuple(saved["sample"])
    if "grid" in saved:
        offset, scale, centre, curve = saved["grid"]
        return NumberBins(offset, scale, centre, curve, tuple(saved["starts"]), sample, saved["decimals"])
    if "names" in saved:
        known = None if saved["known"] is None else frozenset(saved["known"])
        return CategoryBins(tuple(saved["names"]), known, sample, saved["once"], saved["hidden"])
    return DateBins(sample)


def _dependence_to_dict(dependence: Dependence) -> dict[str, Any]:
    return {
        "looks": [lags.tolist() for lags in dependence.looks],
        "residual": _moments_to_dict(dependence.residual),
        "column_forms": _moments_to_dict(dependence.column_forms),
        "pair_forms": _moments_to_dict(dependence.pair_forms),
        "effective": dependence.effective,
    }


def _dependence_from_dict(saved: Mapping[str, Any], units: int) -> Dependence:
    return Dependence(
        looks=tuple(_lags(lags, units) for lags in saved["looks"]),
        residual=_moments_from_dict(saved["residual"], units),
        column_forms=_moments_from_dict(saved["column_forms"], units),
        pair_forms=_moments_from_dict(saved["pair_forms"], units),
        effective=saved["effective"],
    )


def _moments_to_dict(moments: Moments) -> dict[str, Any]:
    return {
        "variance": moments.variance.tolist(),
        "skewness": moments.skewness.tolist(),
        "lags": moments.lags.tolist(),
    }


def _moments_from_dict(saved: Mapping[str, Any], units: int) -> Moments:
    variance, skewness = np.array(saved["variance"], dtype=float), np.array(saved["skewness"], dtype=float)
    lags = np.array(saved["lags"], dtype=float).reshape(units, len(variance))
    return Moments(variance, skewness, lags)


def _lags(saved: list[list[float]], units: int) -> Array:
    return np.array(saved, dtype=float) if units else np.zeros((0, 0))


def describe_design(layout: ProfileSpec) -> str:
    """How dependence between rows is accounted for, in words."""
    if layout.time is None:
        return "no time column: each row counts for one, and dependence between rows is not accounted for"
    if not layout.units:
        return (
            f"'{layout.time}' spans too little time to measure how rows depend on each other: each row counts for one"
        )
    units = ", ".join(layout.units)
    return f"rows that share time in '{layout.time}' ({units}) depend on each other: they count as fewer rows"
