"""What a trained model leaves in its folder."""

from dataclasses import fields

import numpy as np
import pytest

from afterfit.data.fingerprints import fingerprint
from afterfit.data.loading import Window
from afterfit.loop import tasks
from afterfit.loop.history import History
from afterfit.loop.stepping import Recipe
from afterfit.loop.task_runner import TaskRunner
from afterfit.model.training import train
from afterfit.settings import TrainOn
from made_loop import FIRST, PARAMS, table, use_case

RECIPE = Recipe("hist_gradient_boosting", PARAMS, 0, TrainOn(), 100, FIRST)


def known(folder, case):
    frame = table()
    return History.of(case, Window(frame, fingerprint(case, frame), {}, "made"), folder)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_model_that_is_found_again_has_what_its_folds_showed(tmp_path, task):
    changes = {"task": task, "target": "size", "columns": {"features": ["other"]}, "metrics": {"primary": "mae"}}
    rows = known(tmp_path, use_case(**(changes if task == "regression" else {})))
    model = TaskRunner(rows).ask(tasks.train, RECIPE)
    problem = tasks.table_of(rows, RECIPE).problem
    expected, found = train(problem, RECIPE.builder, RECIPE.params), tasks.trained_of(model)
    assert (found.metrics, found.dummy, found.last) == (expected.metrics, expected.dummy, expected.last)
    np.testing.assert_array_equal(found.rows, expected.rows)
    for name in ("out_of_fold", "out_of_fold_final"):
        one, other = getattr(found, name), getattr(expected, name)
        for part in fields(one):
            np.testing.assert_array_equal(getattr(one, part.name), getattr(other, part.name), err_msg=part.name)


def test_a_model_whose_folds_an_older_release_did_not_keep_is_trained_again(tmp_path):
    rows = known(tmp_path, use_case())
    model = TaskRunner(rows).ask(tasks.train, RECIPE)
    folds = model.folder.parent / tasks.FOLDS
    folds.unlink()
    assert TaskRunner(rows).ask(tasks.train, RECIPE).folder == model.folder
    assert folds.is_file()
