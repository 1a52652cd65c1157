import torch
from hypothesis import given
from hypothesis import strategies as st

from fsdet.models.head import boxes_to_ltrb, decode_ltrb, ltrb_to_boxes


def test_decoding_is_the_expectation_in_float32_even_from_half_precision():
    logits = 3 * torch.randn(40, 4, 16, generator=torch.Generator().manual_seed(16))
    expected = (logits.softmax(-1) * torch.arange(16.0)).sum(-1)
    torch.testing.assert_close(decode_ltrb(logits), expected)
    assert decode_ltrb(logits.bfloat16()).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(decode_ltrb(logits), expected)


def test_distances_of_a_box_by_hand():
    point, stride = torch.tensor([[20.0, 12.0]]), torch.tensor([[8.0]])
    box = torch.tensor([[4.0, 8.0, 44.0, 10.0]])
    distances = torch.tensor([[2.0, 0.5, 3.0, -0.25]])
    assert boxes_to_ltrb(point, box, stride).equal(distances)
    assert ltrb_to_boxes(point, distances, stride).equal(box)


@given(
    point=st.lists(st.floats(0, 640, width=32), min_size=2, max_size=2),
    box=st.lists(st.floats(0, 640, width=32), min_size=4, max_size=4),
    stride=st.sampled_from([4.0, 8.0, 16.0, 32.0]),
)
def test_boxes_and_distances_are_inverse(point, box, stride):
    points, boxes, strides = torch.tensor([point]), torch.tensor([box]), torch.tensor([[stride]])
    back = ltrb_to_boxes(points, boxes_to_ltrb(points, boxes, strides), strides)
    torch.testing.assert_close(back, boxes, rtol=0, atol=1e-3)
