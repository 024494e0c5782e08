"""Recorded gradients are read as they were written, and damaged files are refused."""

from __future__ import annotations

import numpy as np
import pytest

from longtail.analysis.dynamics import BINS
from longtail.errors import LongtailError
from longtail.run.dynamics import read_dynamics


def test_what_was_written_is_read(make_run, record):
    dynamics = read_dynamics(record(make_run("gcl"), tail=0.5, epochs=(2, 1)), 6)
    assert dynamics.stage.tolist() == [1, 1, 2]
    assert dynamics.end_of_stage_1 == 1
    np.testing.assert_array_equal(dynamics.images, [[300, 120, 60, 30, 12, 5]] * 3)
    np.testing.assert_allclose(dynamics.negative[0], [150, 60, 30, 15, 6, 2.5])
    np.testing.assert_allclose(dynamics.positive[0, -2:], [3.0, 1.25])
    np.testing.assert_allclose(dynamics.gradient, 0.5)
    assert dynamics.histogram.shape == (3, 6, BINS)


@pytest.mark.parametrize(
    ("damage", "words"), [("broken", "be read"), ("classes", "other classes"), ("missing", "stage 1, epoch 2")]
)
def test_damaged_recordings_are_one_sentence(make_run, damage, words, record):
    run = record(make_run("ce"))
    file = run / "dynamics" / "stage1-epoch0002.parquet"
    if damage == "broken":
        file.write_bytes(b"PAR1")
    elif damage == "missing":
        file.unlink()
    with pytest.raises(LongtailError, match=words) as caught:
        read_dynamics(run, 7 if damage == "classes" else 6)
    assert str(caught.value).endswith(".")
