from __future__ import annotations

import csv
import io

import pytest

from spectra_exp.presentation.text import count_text, csv_source, csv_text, interval_text, markdown_table
from spectra_exp.statistics.intervals import Interval


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        (Interval(3, 4.10234, 4.0892, 4.11548), "4.102 ± 0.013"),
        (Interval(3, 60.26, 59.03, 61.49), "60.26 ± 1.2"),
        # Two seeds: the interval is wider than what rows differ by.
        (Interval(2, 6.7741, 6.08, 7.46), "6.774 ± 0.69"),
        (Interval(3, 1234.5, 1000.0, 1469.0), "1234 ± 234"),
        (Interval(3, 0.05, 0.05, 0.05), "0.05000 ± 0"),
        (Interval(3, 0.1 + 0.2, 0.3, 0.30000000000000009), "0.3000 ± 0"),
        (Interval(3, 0.0, 0.0, 0.0), "0.000 ± 0"),
        (Interval(1, 4.10234, None, None), "4.102"),
        (Interval(1, 0.0123456, None, None), "0.01235"),
        (Interval(1, 2.5e-7, None, None), "2.500e-07"),
        (Interval(1, -3.0, None, None), "-3.000"),
        (None, ""),
    ],
)
def test_interval_text(interval: Interval | None, text: str) -> None:
    assert interval_text(interval) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, ""), (float("nan"), ""), (12, "12"), (1234, "1.23k"), (999_900, "1000k"), (79e6, "79M"), (1.5e9, "1.5G")],
)
def test_count_text(count: float | None, text: str) -> None:
    assert count_text(count) == text


def test_a_markdown_table_lines_up_and_escapes() -> None:
    text = markdown_table(["label", "n"], [["a|b", "3"], ["longer label", "12"]])
    assert text == ("| label        |   n |\n| :----------- | --: |\n| a\\|b         |   3 |\n| longer label |  12 |\n")


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+a",
        "-a",
        "@a",
        "\t=1",
        "\r=1",
        "'=1+1",
        "''-a",
        "'quoted'",
        "=",
        "-1",
        "-inf",
        "a\rb",
        "a\nb",
        " =1",
        "",
    ],
)
def test_a_spreadsheet_runs_no_text_and_each_is_found_again(text: str) -> None:
    (head,), (cell,) = csv.reader(io.StringIO(csv_text([text], [[text]]), newline=""), strict=True)
    assert head == cell and csv_source(cell) == text
    assert (cell == f"'{text}") == (text.lstrip("'")[:1] in [*"=+-@\t\r"] and text not in ("-1", "-inf"))


def test_numbers_of_a_csv_are_those_of_a_sum_in_any_order() -> None:
    values = [0.1, 0.2, 0.3]
    assert sum(values) != sum(reversed(values))
    assert csv_text(["a"], [[sum(values)]]) == csv_text(["a"], [[sum(reversed(values))]])
    assert csv_text(["a"], [[1 / 3, 5.0, 12, 1e-300]]) == "a\n0.333333333333,5.0,12,1e-300\n"
