"""What a training says in words."""

from types import SimpleNamespace

import numpy as np
import pytest

from afterfit.lifecycle.training_run import describe
from afterfit.model.training import CVScore


def lines(metrics, dummy):
    """The words of a training with these values of each fold."""
    return describe(
        SimpleNamespace(
            table=SimpleNamespace(train=SimpleNamespace(start=None, rows=90), name="t.csv", left_out={}),
            trained=SimpleNamespace(
                metrics={name: CVScore.of(values) for name, values in metrics.items()},
                dummy={name: CVScore.of(values) for name, values in dummy.items()},
            ),
            version=None,
            builder="linear",
            use_case=SimpleNamespace(time=None),
        )
    )


@pytest.mark.parametrize(
    ("name", "model", "dummy", "said"),
    [
        ("log_loss", [0.7, 0.8], [0.6, 0.7], "worse than"),
        ("log_loss", [0.5, 0.6], [0.6, 0.7], ""),
        ("roc_auc", [0.4, 0.5], [0.5, 0.5], "worse than"),
        ("roc_auc", [0.5, 0.5], [0.5, 0.5], "the same as"),
        ("r2", [0.1, 0.2], [-0.1, 0.0], ""),
    ],
)
def test_a_model_that_is_no_better_than_the_dummy_is_said_to_be_so(name, model, dummy, said):
    words = [line for line in lines({name: model}, {name: dummy}) if "has learnt nothing that helps" in line]
    assert len(words) == bool(said)
    assert all(said in line and name in line for line in words)


def test_what_is_not_defined_is_never_printed():
    undefined = [np.nan, np.nan]
    model = {"mae": [1.0, 2.0], "pinball": [np.nan, 3.0], "r2": undefined}
    said = "\n".join(lines(model, {"mae": [3.0, 4.0], "pinball": undefined, "r2": undefined}))
    assert "nan" not in said
    assert "r2                 is not defined in any of 2 folds" in said
