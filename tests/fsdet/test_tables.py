import io

import pytest
from rich.console import Console

from fsdet.tables import build_table, number_column, print_table


def printed(width: int, text: str) -> list[str]:
    """The lines of a table with a name, two numbers and a text, on a console of this width."""
    console = Console(width=width, file=io.StringIO(), highlight=False)
    table = build_table("name", number_column("AP50"), number_column("gap ± 95 %"), "message")
    table.add_row("novel", "0.123456", "0.1 ± 0.02", text)
    print_table(console, table)
    return console.file.getvalue().splitlines()


def test_columns_stand_two_spaces_apart_without_lines():
    assert [line.rstrip() for line in printed(80, "fine")] == [
        "name       AP50  gap ± 95 %  message",
        "novel  0.123456  0.1 ± 0.02  fine",
    ]


@pytest.mark.parametrize("width", [10, 30, 40, 80])
def test_text_wraps_and_numbers_are_never_cut(width):
    lines = printed(width, "train for longer than that")
    assert "novel  0.123456  0.1 ± 0.02  train" in lines[1]
    assert " ".join(line[29:].strip() for line in lines[1:]) == "train for longer than that"
    assert "…" not in "".join(lines)


def test_a_table_that_fits_stays_within_the_console():
    assert all(len(line) <= 60 for line in printed(60, "word " * 40))
