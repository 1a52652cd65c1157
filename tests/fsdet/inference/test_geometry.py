import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from fsdet.data.transforms import letterbox
from fsdet.inference.geometry import from_letterbox

sides = st.integers(1, 700)
parts = st.tuples(*[st.floats(0, 1) for _ in range(4)])


@given(sides, sides, st.sampled_from([64, 128, 640]), st.lists(parts, max_size=4))
def test_into_the_square_and_back_is_where_it_was(height, width, size, fractions):
    corners = np.array(fractions, np.float64).reshape(-1, 4)
    corners = np.concatenate(
        [corners.reshape(-1, 2, 2).min(1), corners.reshape(-1, 2, 2).max(1)], 1
    )
    boxes = (corners * [width, height, width, height]).astype(np.float32)
    square, moved = letterbox(np.zeros((height, width, 3), np.uint8), boxes, size)
    back = from_letterbox(torch.from_numpy(moved), height, width, size)
    assert square.shape == (size, size, 3)
    # half a pixel of a picture that was shrunk a thousandfold cannot be told apart in float32
    assert np.allclose(back.numpy(), boxes, atol=1e-3 * max(height, width, size) / size)


@given(sides, sides, st.lists(st.tuples(*[st.floats(-50, 200) for _ in range(4)]), max_size=4))
def test_nothing_lies_outside_the_picture(height, width, boxes):
    back = from_letterbox(torch.tensor(boxes).reshape(-1, 4), height, width, 128)
    assert (back >= 0).all()
    assert (back <= torch.tensor([width, height, width, height])).all()


def test_a_wide_picture_is_shifted_and_scaled():
    # 256 x 64 fits a square of 128 at half its size, 48 px below the top
    back = from_letterbox(torch.tensor([[10.0, 50.0, 20.0, 60.0]]), 64, 256, 128)
    assert back.tolist() == [[20, 4, 40, 24]]
