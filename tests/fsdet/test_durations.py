import pytest

from fsdet.durations import duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (59.6, "60 s"),
        (150, "2 min 30 s"),
        (599.9, "10 min 0 s"),
        (930, "16 min"),
        (9000, "2 h 30 min"),
        (180000, "2.1 days"),
    ],
)
def test_times_are_told_in_words(seconds, words):
    assert duration(seconds) == words
