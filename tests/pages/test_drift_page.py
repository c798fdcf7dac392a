"""The page about drift: true, small whatever the table, and without anything that a browser would run."""

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

import afterfit
from afterfit.drift.binning import learn_number
from afterfit.drift.profiles import Counts
from afterfit.drift.reference import Reference, compare
from afterfit.pages.charts import BARS, HIGH, heat_map, picture
from afterfit.pages.drift import (
    MOST_CARDS,
    MOST_QUIET_CARDS,
    DriftComparison,
    metric_names,
    one_line,
    render,
    safe_text,
)

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'; </style></svg><script>alert(2)</script>",
    "{{ 7 * 7 }}{% raw %}",
    "line\nbreak\r\ttab",
    "nul\x00byte",
    "🛫" * 50,
    "\u202eright to left\u2028",
    "\ud800 alone",
    "x" * 10_000,
    "&lt;b&gt; &amp; &#60;",
    "]]>--><!--",
]


class Parsed(HTMLParser):
    """What a browser would see: tags, attributes and texts."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.texts, self.inside = [], [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]
        if tag not in {"meta", "br"}:
            self.inside.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]

    def handle_endtag(self, tag):
        assert self.inside.pop() == tag, "tags are closed in their order"

    def handle_data(self, data):
        if self.inside and self.inside[-1] != "style":
            self.texts.append(data)


def page_of(reference, windows, current="a table"):
    """Compare frames with a reference frame; the page as text and as a browser would see it."""
    return page_of_profile(Reference(afterfit.profile(reference)), windows, current)


def page_of_profile(profiles, windows, current="a table"):
    named = windows if isinstance(windows, dict) else {current: windows}
    measured = {name: Reference(profiles.features.measure(frame)) for name, frame in named.items()}
    reports = tuple((name, compare(profiles, one, 0.01)) for name, one in measured.items())
    first, *others = measured.values()
    found = DriftComparison(current, "another table", profiles, reports, sum(others, first), ("a note",))
    page = render(found)
    page.encode("utf-8")
    return page, Parsed(page), found


def assert_harmless(page, parsed):
    """Nothing that runs, nothing that is loaded, and no tag that the template does not have."""
    allowed = {
        "html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3", "p", "div", "span", "table", "tr",
        "th", "td", "svg", "rect", "line", "polyline", "text", "i", "b", "br", "ul", "li",
    }  # fmt: skip
    assert set(parsed.tags) <= allowed
    assert not [
        a for a in parsed.attributes if a[1].startswith("on") or a[1] in {"src", "href", "xlink:href", "action"}
    ]
    assert "url(" not in page
    assert "@import" not in page
    assert ("meta", "content", "default-src 'none'; style-src 'unsafe-inline'") in parsed.attributes
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e\u2028\ud800-\udfff]", page)


def flights(rows, seed, warmer=0.0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "temp": rng.normal(40 + warmer, 10, rows),
            "dest": rng.choice(["ATL", "ORD", "BOS"], rows, p=[0.5, 0.3, 0.2]),
            "delay": rng.exponential(10, rows),
            "flown": rng.random(rows) < 0.98,
            "booked": pd.Timestamp("2024-01-01"),
        }
    )


REFERENCE = flights(4_000, 0)
PROFILES = Reference(afterfit.profile(REFERENCE))


def test_a_page_says_first_what_changed_most_and_draws_it_first():
    _, parsed, found = page_of_profile(PROFILES, flights(2_000, 1, warmer=9))
    text = " ".join(parsed.texts)
    assert found.changed == ("temp",)
    assert "Alarm: 1 of 5 columns changed" in text
    assert "mean up by 0.9 standard deviations" in text
    assert text.index("temp ") < text.index("dest ") < text.index("delay ")


def test_a_page_without_an_alarm_says_so_and_draws_every_column_all_the_same():
    page, parsed, found = page_of_profile(PROFILES, flights(2_000, 2))
    assert not found.alarm
    assert "No alarm" in parsed.texts
    assert parsed.tags.count("h3") == 5
    assert parsed.tags.count("polyline") == 2, "one outline a number"
    assert 'class="card alarm"' not in page


def test_several_windows_give_a_heat_map_with_a_cell_for_each_alarm_and_words_for_each_window():
    months = {f"2024-0{i + 1}": flights(1_500, 10 + i, warmer=3.0 * i) for i in range(4)}
    page, parsed, found = page_of_profile(PROFILES, months, "the year")
    alarms = [name for name, report in found.windows if report.columns["temp"].alarm]
    assert alarms[-1] == "2024-04"
    assert page.count('fill="#b3370a"') == sum(
        column.alarm for _, report in found.windows for column in report.columns.values()
    )
    text = " ".join(parsed.texts)
    assert f"{len(alarms)} of 4 windows alarm" in text
    assert all(name in text for name in months)
    assert "most in 2024-04" in text


def test_new_names_stand_on_the_page_with_their_rows():
    now = flights(2_000, 3)
    now.loc[:99, "dest"] = "LEX"
    _, parsed, _ = page_of_profile(PROFILES, now)
    text = " ".join(parsed.texts)
    assert "never seen before: LEX (100)" in text
    assert "never seen" in parsed.texts


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("known", [True, False])
def test_a_hostile_category_is_shown_as_text_and_nothing_of_it_runs(name, known):
    names = ["a", "b", name]
    rng = np.random.default_rng(0)
    now = pd.DataFrame({"city": pd.Series(rng.choice(names, 1_000), dtype=object)})
    page, parsed, found = page_of(REFERENCE[["dest"]].set_axis(["city"], axis=1) if not known else now, now)
    assert_harmless(page, parsed)
    assert found.alarm is not known
    assert len(page) < 20_000
    assert "49" not in parsed.texts


@pytest.mark.parametrize("name", [name for name in HOSTILE if name != "\ud800 alone"], ids=str.__len__)
def test_a_hostile_column_table_and_window_name_is_shown_as_text(name):
    reference = REFERENCE[["temp", "dest"]].set_axis([name, "dest"], axis=1)
    changed = flights(1_000, 4, warmer=30)[["temp", "dest"]].set_axis([name, "dest"], axis=1).assign(**{f"{name} 2": 1})
    page, parsed, found = page_of(reference, {name: changed, f"{name} again": changed}, name)
    assert found.changed == (name,)
    assert_harmless(page, parsed)
    assert len(page) < 40_000


@pytest.mark.slow
def test_two_thousand_columns_give_a_small_page_with_the_changed_ones_on_it():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(200, 2_000)), columns=[f"x{i}" for i in range(2_000)])
    now = frame.sample(frac=1, random_state=1)
    now[["x7", "x1999"]] += 3
    page, parsed, found = page_of_profile(Reference(afterfit.profile(frame, relations=False)), now)
    assert set(found.changed) == {"x7", "x1999"}
    assert len(page) < 200_000
    assert parsed.tags.count("h3") == MOST_QUIET_CARDS
    assert "1,976 more columns are not drawn" in " ".join(parsed.texts)


def test_very_many_changed_columns_and_windows_leave_the_page_bounded():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(100, 150)), columns=[f"x{i}" for i in range(150)])
    profiles = Reference(afterfit.profile(frame, relations=False))
    page, parsed, _ = page_of_profile(profiles, {f"w{i}": frame + 5 for i in range(20)})
    assert len(page) < 750_000
    assert parsed.tags.count("h3") == MOST_CARDS
    assert "more columns with an alarm, not drawn" in " ".join(parsed.texts)


@pytest.mark.parametrize(
    "values", [[1e308, 1.0] * 50, [np.nan] * 100, [np.inf, 1.0] * 50, [7.0] * 100, [0.0, 1e-300] * 50]
)
def test_numbers_at_the_edge_of_floats_give_a_page(values):
    frame = pd.DataFrame({"x": values, "y": np.arange(100.0)})
    page, parsed, _ = page_of(frame, {"one": frame, "other": frame.assign(x=frame["y"])})
    assert_harmless(page, parsed)
    drawn = [value for tag, name, value in parsed.attributes if tag in {"rect", "svg"} and name in {"height", "width"}]
    assert drawn
    assert all(np.isfinite(float(value)) for value in drawn)


def test_an_empty_window_gives_a_page_that_says_so():
    _, parsed, found = page_of_profile(PROFILES, REFERENCE.iloc[:0])
    assert not found.alarm
    assert "The window has no rows: nothing can be compared." in parsed.texts


def test_a_page_is_the_same_each_time():
    assert page_of_profile(PROFILES, flights(500, 5))[0] == page_of_profile(PROFILES, flights(500, 5))[0]


def counted(bins, values):
    cells = bins.cells(np.asarray(values, dtype=float))
    return Counts(np.bincount(bins.level_of_cell[cells], minlength=bins.size).astype(np.int64))


def test_a_numbers_picture_shows_all_rows_inside_and_outside_of_its_range():
    values = np.random.default_rng(0).normal(size=20_000)
    bins = learn_number(values)
    drawn = picture(bins, counted(bins, values), counted(bins, values + 3))
    assert len(drawn.bars) == BARS
    assert [bar.x for bar in drawn.outside][-1] > drawn.bars[-1].x + drawn.bars[-1].wide
    assert drawn.high.startswith("above ")
    assert max(bar.before for bar in drawn.bars) <= HIGH
    middle = sum(bar.x * bar.before for bar in drawn.bars) / sum(bar.before for bar in drawn.bars)
    later = sum(bar.x * bar.now for bar in drawn.bars) / sum(bar.now for bar in drawn.bars)
    assert later > middle + 50


def test_a_wide_heat_map_shows_fewer_columns_and_every_window():
    found = {(c, w): (5.0, "words") for c in range(100) for w in range(900)}
    drawn = heat_map([f"c{i}" for i in range(100)], [f"w{i}" for i in range(900)], found, most=8_000)
    assert len(drawn.cells) <= 8_000
    assert len(drawn.names) == 8
    assert drawn.left_out == 92
    assert max(cell.x for cell in drawn.cells) < drawn.wide


def test_metric_names_are_plain_bounded_and_each_its_own():
    columns = ["temp", "temp!", "temp?", "ä" * 300, "x" * 300, "x" * 299, "<b>", ""]
    named = metric_names(columns)
    assert named["temp"] == "temp"
    assert len(set(named.values())) == len(columns)
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]{1,60}", name) for name in named.values())


def test_what_is_shown_has_its_control_characters_visible_and_is_cut():
    assert safe_text("a\x00b\nc") == "a␀b␊c"
    assert safe_text("x" * 100, 10) == "x" * 9 + "…"
    assert safe_text("\u202ecba") == "\ufffdcba"


def test_a_window_in_short_names_its_largest_changes_first_and_counts_the_rest():
    now = flights(2_000, 6, warmer=25).assign(dest="LEX", flown=False, delay=500.0)
    words = one_line(compare(PROFILES, Reference(PROFILES.features.measure(now)), 0.01))
    assert words.startswith("ALARM  ")
    assert words.endswith("; 1 more")
