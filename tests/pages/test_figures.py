import io

import numpy as np
import pytest
from matplotlib.image import imread

from afterfit.pages import figures
from afterfit.performance.predictions import Predictions

pytestmark = pytest.mark.usefixtures("real_pictures")


def drawn(figure):
    """The picture as a person sees it: its PNG, read back."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    file.seek(0)
    return imread(file)


def several(k, rows=400, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, k, rows)
    table = rng.dirichlet(np.ones(k), rows) + 0.5 * np.eye(k)[y]
    table /= table.sum(axis=1, keepdims=True)
    return y, Predictions.of_probabilities(table, tuple(f"class {n}" for n in range(k)))


@pytest.mark.parametrize(("k", "lines"), [(2, 1), (3, 3), (30, 30)])
def test_classification_draws_one_line_a_class_and_one_for_two_classes(k, lines):
    pictures = figures.classification(*several(k))
    assert set(pictures) == {"roc", "precision_recall", "calibration", "confusion"}
    curves = [line for line in pictures["roc"].axes[0].lines if not line.get_label().startswith("_")]
    assert len(curves) == (lines if k > 2 else 1)
    for figure in pictures.values():
        assert drawn(figure).std() > 0


def test_the_roc_curve_is_that_of_the_positive_class():
    y, predictions = several(2)
    curve = figures.classification(y, predictions)["roc"].axes[0].lines[-1]
    area = np.trapezoid(curve.get_ydata(), curve.get_xdata())
    assert area > 0.8  # the other class's would lie below the diagonal


def test_rows_of_one_class_leave_only_the_confusion():
    y, predictions = several(2)
    assert set(figures.classification(np.zeros_like(y), predictions)) == {"confusion"}


def test_the_confusion_counts_every_row():
    y, predictions = several(3)
    texts = [
        int(text.get_text().replace(",", ""))
        for text in figures.classification(y, predictions)["confusion"].axes[0].texts
    ]
    assert (len(texts), sum(texts)) == (9, 400)
    assert texts[0] == ((y == 0) & (predictions.prediction == 0)).sum()


@pytest.mark.parametrize("rows", [1, 50, 20_000])
def test_a_regression_shows_predictions_and_residuals_of_bounded_size(rows):
    y = np.random.default_rng(0).normal(size=rows)
    pictures = figures.regression(y, Predictions.of_values(y * 0.5))
    assert len(pictures["predicted_against_true"].axes[0].collections[0].get_offsets()) == min(
        rows, figures.MOST_POINTS
    )
    for figure in pictures.values():
        assert drawn(figure).std() > 0


def test_residuals_that_are_all_equal_can_be_drawn():
    for figure in figures.regression(np.ones(30), Predictions.of_values(np.ones(30))).values():
        assert drawn(figure).std() > 0


def test_bars_show_the_largest_first_and_not_too_many():
    figure = figures.bars("t", "x", {f"f{n}": float(n) for n in range(40)}, {f"f{n}": 0.1 for n in range(40)})
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == [f"f{n}" for n in range(20, 40)]  # from below
    drawn(figure)
    drawn(figures.bars("t", "x", {}))


@pytest.mark.parametrize(("greater", "best"), [(True, [1.0, 3.0, 3.0]), (False, [1.0, 1.0, 0.5])])
def test_the_history_shows_the_best_so_far_without_those_that_were_stopped(greater, best):
    values = [(0, 1.0, False), (1, 3.0, False), (2, 99.0, True), (3, 0.5, False)]
    figure = figures.history(values, "auc", greater_is_better=greater)
    assert figure.axes[0].lines[0].get_ydata().tolist() == best
    drawn(figure)
