"""What the winner finds, in the report."""

from __future__ import annotations

import base64
from dataclasses import replace

from made_up_sweep import made_up_data

from sweeps.report.detections import detections_section
from sweeps.report.page import build_page


def test_picture_stands_in_the_page_itself():
    data = made_up_data(12)
    section = detections_section(data, b"seen")
    assert section.picture is not None
    _, _, text = section.picture.source.partition("base64,")
    assert base64.b64decode(text) == b"seen"
    assert f"trial {data.winner.record.label}" in section.sentence
    assert section.picture.source in build_page(data, [section])


def test_without_a_picture_or_a_winner_the_section_says_so():
    data = made_up_data(12)
    assert "left no picture" in detections_section(data, None).sentence
    nobody = replace(data, trials=())
    assert "No trial completed" in detections_section(nobody, None).sentence
