from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fsdet.data.cleaning import usable_objects
from fsdet.data.problems import Problems
from fsdet.data.records import Dataset, ImageRef, Record

coordinates = st.one_of(
    st.floats(-50, 150), st.sampled_from([0.0, 100.0, np.nan, np.inf, -np.inf, 1e300, -1e300])
)


@st.composite
def datasets(draw) -> tuple[Dataset, np.ndarray]:
    """Records with any numbers as boxes and labels, some without an image."""
    records, sizes = [], []
    for number in range(draw(st.integers(0, 4))):
        count = draw(st.integers(0, 4))
        boxes = draw(arrays(np.float64, (count, 4), elements=coordinates))
        labels = draw(arrays(np.int64, count, elements=st.integers(-2, 4)))
        records.append(Record(ImageRef(Path(f"{number}.png")), "train", boxes, labels))
        sizes.append(draw(st.sampled_from([(0, 0), (100, 80), (7, 100)])))
    names = ("a", "b", "c")
    return Dataset(Path(), names, tuple(records)), np.array(sizes, np.int64).reshape(-1, 2)


@given(datasets())
def test_what_is_kept_is_sound_and_every_other_object_is_counted_once(given_data):
    dataset, sizes = given_data
    problems = Problems()
    kept = usable_objects(dataset, sizes, problems)
    borders = np.tile(sizes[kept.records], 2)
    assert np.isfinite(kept.boxes).all()
    assert (kept.boxes >= 0).all()
    assert (kept.boxes <= borders).all()
    assert (kept.boxes[:, 2:] - kept.boxes[:, :2] >= 1 - 1e-4).all()
    assert ((kept.labels >= 0) & (kept.labels < 3)).all()
    assert (np.diff(kept.records) >= 0).all()
    seen = sum(
        len(record.labels)
        for record, size in zip(dataset.records, sizes, strict=True)
        if size.all()
    )
    left_out = sum(n for kind, n in problems.counts.items() if kind != "box across the border")
    assert len(kept.labels) + left_out == seen


@given(datasets())
def test_boxes_inside_are_kept_as_they_are(given_data):
    dataset, sizes = given_data
    kept = usable_objects(dataset, sizes, Problems())
    given_boxes = [
        tuple(box)
        for record, size in zip(dataset.records, sizes, strict=True)
        for box, label in zip(record.boxes.tolist(), record.labels, strict=True)
        if size.all()
        and 0 <= label < 3
        and 0 <= box[0] <= box[2] - 1.001
        and 0 <= box[1] <= box[3] - 1.001
        and box[2] <= size[0]
        and box[3] <= size[1]
    ]
    kept_boxes = {tuple(np.float32(box)) for box in kept.boxes}
    assert {tuple(np.float32(box)) for box in given_boxes} <= kept_boxes
