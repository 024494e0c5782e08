"""Names stand where they hide no other name and no point, and inside of the figure."""

from __future__ import annotations

import numpy as np
import pytest

from longtail.report.label_places import PLACES, label_boxes, overlaps, place_labels

SIZE = (400.0, 300.0)


def boxes_of(points, texts, places):
    chosen = [list(PLACES).index(place) for place in places]
    return np.array([label_boxes(point, text)[n] for point, text, n in zip(points, texts, chosen, strict=True)])


@pytest.mark.parametrize("seed", range(5))
def test_names_of_points_that_are_not_crowded_overlap_nothing(seed):
    x, y = np.meshgrid([80, 200, 320], [60, 150, 240])
    points = np.stack([x.ravel(), y.ravel()], axis=1) + np.random.default_rng(seed).uniform(-15, 15, (9, 2))
    texts = [f"name {number}" for number in range(9)]
    around = np.hstack([points - 5, points + 5])
    boxes = boxes_of(points, texts, place_labels(points, texts, around, [], SIZE))
    assert overlaps(boxes, around).sum() == 0
    between = overlaps(boxes, boxes)
    assert between.sum() == pytest.approx(np.trace(between))
    assert (boxes >= 0).all()
    assert (boxes[:, 2:] <= SIZE).all()


def test_a_name_goes_to_the_side_that_has_room():
    corners = [(395, 150), (5, 150), (200, 299), (200, 1)]
    places = [place_labels([corner], ["cosine"], [], [], SIZE)[0] for corner in corners]
    assert places == ["middle left", "middle right", "bottom right", "top right"]


def test_a_line_is_avoided_where_another_place_is_free():
    whisker = [[150, 150, 250, 150]]
    place = place_labels([(200, 150)], ["kps"], [], whisker, SIZE)[0]
    assert PLACES[place][1] != 0
    np.testing.assert_allclose(overlaps(label_boxes((200, 150), "kps")[:1], whisker), [[18.6]])
