"""Charts: scales, ticks, and labels that cover nothing."""

import re

import pytest

from edge_agent.measure.report.charts import WIDTH, Axis, Chart, around, round_numbers


def chart(**more: object) -> Chart:
    return Chart("c", "A chart", "What it shows", Axis("x", 0, 100), Axis("y", 0, 10), **more)


def places(svg: str, kind: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(rf'class="dot {kind}" cx="([\d.-]+)" cy="([\d.-]+)"', svg)]


def test_values_are_where_the_axes_say() -> None:
    drawn = chart()
    for value in (0, 50, 100):
        drawn.dot(value, value / 10, "system")
    (x0, y0), (x1, y1), (x2, y2) = places(drawn.svg(), "system")
    assert x0 < x1 < x2 <= WIDTH and y0 > y1 > y2
    assert x1 == pytest.approx((x0 + x2) / 2, abs=0.1) and y1 == pytest.approx((y0 + y2) / 2, abs=0.1)


def test_points_that_are_not_numbers_are_left_out() -> None:
    drawn, nan = chart(), float("nan")
    drawn.dot(nan, 1, "system", words="lost")
    drawn.line([(nan, 1), (2, nan)], "system")
    drawn.line([(0, 1), (50, nan), (100, 2)], "edge")
    drawn.interval(1, nan, 2, "system")
    drawn.bar(1, 1, nan, "system")
    svg = drawn.svg()
    assert "nan" not in svg and "lost" not in svg
    assert svg.count('class="line') == 1


def test_long_line_is_thinned_and_keeps_its_ends() -> None:
    drawn = chart()
    drawn.line([(n / 1000, n / 10_000) for n in range(100_001)], "system")
    path = re.search(r'class="line system" d="M([^"]+)"', drawn.svg())
    assert path is not None
    points = path[1].split("L")
    assert len(points) <= 240 and points[0].startswith("54 ") and points[-1].startswith(f"{WIDTH - 14} ")


def test_words_do_not_cover_each_other() -> None:
    drawn = chart()
    for n in range(12):
        drawn.dot(50 + n / 10, 5, "system", words=f"word {n}", big=n == 11)
    boxes = []
    for x, y, anchor, text in re.findall(r'<text class="word[^"]*" x="([\d.]+)" y="([\d.]+)" text-anchor="(\w+)">([^<]+)<', drawn.svg()):
        left = float(x) - (len(text) * 6 if anchor == "end" else 0)
        boxes.append((left, float(y) - 10, left + len(text) * 6, float(y)))
    assert len(boxes) >= 2 and "word 11" in drawn.svg()
    for n, one in enumerate(boxes):
        assert not any(one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3] for other in boxes[n + 1 :])


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (79.2, 95, [80, 85, 90, 95]), (0, 0.0004, [0, 0.0001, 0.0002, 0.0003, 0.0004]), (5, 5, [5])],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert round_numbers(low, high) == pytest.approx(expected)


def test_axis_has_room_around_its_values_and_stays_in_its_limits() -> None:
    assert around([50.0, 60.0], 4, 0, 100) == pytest.approx((49.2, 60.8))
    assert around([100.0], 10, 0, 100) == (95, 100)
    assert around([float("nan")], 10, 0, 100) == (0, 100)
