import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdet.data.transforms import letterbox, letterbox_boxes, mirror


def painted(height: int, width: int, box: tuple[int, int, int, int]):
    """A black image with one white box."""
    image = np.zeros((height, width, 3), np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = 255
    return image, np.array([box], np.float32)


def bounds(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def test_mirror_moves_box_and_pixels_together():
    image, boxes = painted(20, 30, (3, 4, 10, 12))
    mirrored, moved = mirror(image, boxes)
    assert moved.tolist() == [[20, 4, 27, 12]]
    assert bounds(mirrored[..., 0] == 255) == moved[0].tolist()


def test_mirror_twice_is_the_original():
    image, boxes = painted(20, 30, (3, 4, 10, 12))
    again, back = mirror(*mirror(image, boxes))
    np.testing.assert_array_equal(again, image)
    np.testing.assert_array_equal(back, boxes)


def test_no_boxes_stay_no_boxes():
    image, none = np.zeros((20, 30, 3), np.uint8), np.zeros((0, 4), np.float32)
    assert mirror(image, none)[1].shape == (0, 4)
    assert letterbox(image, none, 64)[1].shape == (0, 4)


@pytest.mark.parametrize(("height", "width"), [(40, 80), (80, 40), (64, 64), (33, 97)])
def test_letterbox_moves_box_and_pixels_together(height, width):
    image, boxes = painted(height, width, (width // 4, height // 4, width // 2, height // 2))
    boxed, moved = letterbox(image, boxes, 128)
    assert boxed.shape == (128, 128, 3)
    np.testing.assert_allclose(bounds(boxed[..., 0] > 200), moved[0], atol=2)


def test_letterbox_pads_with_grey_in_equal_parts():
    boxed, _ = letterbox(np.zeros((32, 64, 3), np.uint8), np.zeros((0, 4), np.float32), 64)
    assert (boxed[:16] == 114).all()
    assert (boxed[16:48] == 0).all()
    assert (boxed[48:] == 114).all()


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([32, 64, 96]))
def test_the_whole_image_as_a_box_stays_inside_the_square(height, width, size):
    whole = np.array([[0, 0, width, height]], np.float32)
    boxed, moved = letterbox(np.full((height, width, 3), 7, np.uint8), whole, size)
    assert bounds(boxed[..., 0] == 7) == moved[0].round().tolist()
    assert (moved >= 0).all()
    assert (moved <= size + 1e-3).all()
    assert max(moved[0, 2:] - moved[0, :2]) == pytest.approx(size, rel=1e-5)


@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), min_size=1, max_size=6),
    st.sampled_from([32, 64, 96]),
)
def test_boxes_of_many_images_move_as_each_alone(extents, size):
    boxes = np.array([[0.25 * w, 0.5 * h, w, h] for w, h in extents], np.float32)
    together = letterbox_boxes(boxes, np.array(extents), size)
    for box, moved, (width, height) in zip(boxes, together, extents, strict=True):
        alone = letterbox(np.zeros((height, width, 3), np.uint8), box[None], size)[1]
        np.testing.assert_array_equal(alone[0], moved)
