"""What a scoring says."""

import os
from pathlib import Path

import pytest

from afterfit.errors import SourceError
from afterfit.lifecycle import scoring
from afterfit.performance.evaluation import SliceResult
from afterfit.texts.redaction import redact


def test_slices_by_a_column_that_is_called_like_a_secret_keep_their_values():
    slices = tuple(SliceResult(column, "uk1", 7, {"roc_auc": 0.75}) for column in ("token", "password", "api_key"))
    quality = scoring.ScoredPerformance(21, False, {"roc_auc": (0.75, 0.7, 0.8)}, slices)
    lines = scoring._described(Path("scores.parquet"), "1", scoring.ScoreCounts(rows=21), quality)
    assert [redact(line) for line in lines] == lines
    assert "    token uk1: roc_auc 0.7500 (7 rows)" in lines


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_scores_never_take_the_place_of_a_device_or_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError, match="pipe is a device or a pipe"):
        scoring.score_source(None, "1", "", tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()
