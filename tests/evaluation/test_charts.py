import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcoder.evaluation.charts import (
    MAX_POINTS,
    Bar,
    Boundary,
    interval_chart,
    line_chart,
    moving_mean,
    number_text,
    percent_text,
    point_chart,
    shade,
    stacked_shares,
    thin,
)

LABELS = {"x_label": "step", "y_label": "nats"}
BAR = Bar("Base", 0.2, 0.1, 0.3, "20.0% [10.0%, 30.0%]")


def points_of(svg, css):
    root = ET.fromstring(svg)
    lines = [line.get("points") for line in root.iter("polyline") if line.get("class") == css]
    return [[tuple(map(float, pair.split(","))) for pair in line.split()] for line in lines]


def test_a_curve_runs_from_the_left_to_the_right_edge_and_upwards_for_larger_values():
    (curve,) = points_of(line_chart("KL", [[(1, 0.0), (2, 1.0), (3, 0.5)]], **LABELS), "curve")
    assert [x for x, _ in curve] == [52.0, 211.0, 370.0]
    assert [y for _, y in curve] == [182.0, 20.0, 101.0]  # y grows downwards in SVG


def test_stages_are_parted_and_named():
    svg = line_chart("KL", [[(1, 0.1)], [(2, 0.2)]], [Boundary(1, "PPO 1"), Boundary(2, "PPO 2")], **LABELS)
    assert len(points_of(svg, "curve")) == 2
    assert [line.get("class") for line in ET.fromstring(svg).iter("line")].count("stage") == 1
    assert "PPO 1" in svg
    assert "PPO 2" in svg


def test_values_that_are_not_finite_are_left_out():
    (curve,) = points_of(
        line_chart("KL", [[(1, 1.0), (2, float("nan")), (3, float("inf")), (4, 2.0)]], **LABELS), "curve"
    )
    assert len(curve) == 2
    assert line_chart("KL", [[(1, float("nan"))], []], **LABELS) == ""


def test_a_long_curve_is_thin_with_a_bold_mean():
    svg = line_chart("KL", [[(x, x % 2) for x in range(1000)]], **LABELS)
    (raw,), (mean,) = points_of(svg, "faint"), points_of(svg, "curve")
    assert len(raw) == len(mean) <= MAX_POINTS


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=1500))
def test_thinning_and_smoothing_stay_within_the_values(values):
    points = [(float(x), y) for x, y in enumerate(values)]
    for kept in (thin(points), moving_mean(points)):
        assert min(values) - 1e-3 <= min(y for _, y in kept)
        assert max(y for _, y in kept) <= max(values) + 1e-3
    assert len(thin(points)) <= MAX_POINTS


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=40))
def test_any_curve_gives_well_formed_svg_without_broken_coordinates(values):
    svg = line_chart("a & b", [list(enumerate(values))], [Boundary(0, "<SFT>")], **LABELS)
    if svg:
        ET.fromstring(svg)
        assert "nan," not in svg
        assert ",nan" not in svg


def test_stacked_shares_fill_the_whole_height():
    svg = stacked_shares("Levels", [1.0, 2.0], [[0.25, 0.75], [1.0, 0.0]], ["0", "1"], x_label="step", y_label="share")
    first, second = (polygon.get("points").split() for polygon in ET.fromstring(svg).iter("polygon"))
    height = 182.0 - 20.0
    assert first[0] == f"52.0,{182.0 - 0.25 * height:.1f}"
    assert second[0] == "52.0,20.0"
    assert second[-1] == first[0]


def test_an_interval_is_drawn_from_its_lower_to_its_upper_end():
    root = ET.fromstring(interval_chart("pass@1", [Bar("Base", 0.5, 0.0, 1.0, "")], x_label="pass@1"))
    whisker = next(line for line in root.iter("line") if "whisker" in line.get("class"))
    dot = next(root.iter("circle"))
    assert (whisker.get("x1"), whisker.get("x2"), dot.get("cx")) == ("14.0", "366.0", "190.0")


def test_zero_is_marked_for_differences_only():
    assert 'class="zero"' in interval_chart("d", [BAR], x_label="points", zero=True)
    assert 'class="zero"' not in interval_chart("d", [BAR], x_label="share")


@pytest.mark.parametrize(
    "svg",
    [
        line_chart("<KL>", [[(1, 0.1), (2, 0.3)]], **LABELS),
        stacked_shares("<KL>", [1.0], [[1.0]], ["level 0"], x_label="step", y_label="share"),
        interval_chart("<KL>", [BAR], x_label="share"),
        point_chart("<KL>", [BAR, BAR], y_label="share"),
    ],
)
def test_every_chart_has_words_for_those_who_do_not_see_it(svg):
    root = ET.fromstring(svg)
    assert root.get("role") == "img"
    assert root.find("title").text == "<KL>"
    assert "%" in root.get("aria-label") or "0.3" in root.get("aria-label")


@pytest.mark.parametrize(
    "chart", [lambda: interval_chart("x", [], x_label="x"), lambda: point_chart("x", [], y_label="y")]
)
def test_nothing_to_draw_draws_nothing(chart):
    assert chart() == ""


def test_numbers_are_short_and_signed_where_they_are_differences():
    assert percent_text(0.12345) == "12.3%"
    assert percent_text(-0.00001) == "0.0%"
    assert percent_text(0.012, signed=True) == "+1.2 pt"
    assert [number_text(value) for value in (0.0, 0.12345, 2e-5, 1234567.0)] == ["0", "0.123", "2.0e-05", "1.2e+06"]


def test_levels_use_the_whole_range_of_colours():
    assert [shade(level, 4) for level in range(4)] == [0, 2, 5, 7]
    assert shade(0, 1) == 0
    assert [shade(level, 8) for level in range(8)] == list(range(8))
