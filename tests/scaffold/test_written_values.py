"""How a raw table writes its numbers and dates: told from whole columns, or asked."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afterfit.contract.columns import read_formatted
from afterfit.contract.contract import learn
from afterfit.contract.number_formats import POSSIBLE, NumberFormat
from afterfit.data.loading import load, read
from afterfit.data.reading import TableReading
from afterfit.data.targets import encode_target
from afterfit.errors import SettingsError
from afterfit.scaffold.drafting import draft
from afterfit.scaffold.written_values import dates_counted, numbers_written
from afterfit.use_case import Source, load_use_case
from made_numbers import written

ROWS = 60


def recognised(texts, **options):
    return numbers_written(dict.fromkeys(texts, 10), **options)


formats = st.builds(
    NumberFormat,
    st.sampled_from(POSSIBLE),
    st.sampled_from(["", "%", "€", "$", "USD", "R$", "kr", "CHF"]),
    st.booleans(),
    st.just(value=True) | st.booleans(),
    st.sampled_from(["-", "\u2212", "()", "6-"]),
)
amounts = st.integers(-(10**9), 10**9).flatmap(
    lambda whole: st.integers(0, 4).map(lambda places: Decimal(whole).scaleb(-places))
)


@settings(max_examples=150, deadline=None)
@given(formats, st.lists(amounts, min_size=2, max_size=20, unique=True))
def test_numbers_in_any_format_are_recognised_and_read_back_exactly_or_asked_about(form, numbers):
    texts = [written(number, form) for number in numbers]
    seen = recognised(texts)
    expected = [float(number) for number in numbers]
    if seen is None:  # plain numbers, which need no format, or names such as USD123
        plain = pd.to_numeric(pd.Series(texts), errors="coerce")
        named = form.unit.isalpha() and len({len(text) for text in texts}) == 1
        assert plain.tolist() == expected or named
        return
    readings = [read_formatted(pd.Series(texts), sample).values.tolist() for sample in seen.formats]
    if seen.is_sure:
        assert readings == [expected]
    else:
        assert expected in readings


SHAPES = [
    r"[a-z]{1,8}( [a-z]{1,8}){0,3}",
    r"[ABX]{2,3}-?[0-9]{1,5}",
    r"[0-9]{1,2}\.[0-9]{1,2}\.[0-9]{1,2}",
    r"\+[0-9]{2} [0-9]{3} [0-9]{7}",
    r"0[0-9]{4}",
    r"1?[0-9]{1,2}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,2}",
    r"20[0-9]{2}-0[1-9]-[12][0-9]",
    r"[12][0-9]\.0[1-9]\.20[0-9]{2}",
    r"[1-9][0-9]?-[1-9][0-9]",
    r"[0-9]{1,2}:[0-9]{2}",
    r"(1\.10|1\.9|2\.0|10\.1)",
]


@pytest.mark.parametrize("shape", SHAPES)
def test_ordinary_texts_names_dates_and_versions_are_no_numbers_in_a_format(shape):
    @settings(max_examples=20, deadline=None)
    @given(st.lists(st.from_regex(shape, fullmatch=True), min_size=1, max_size=20))
    def check(texts):
        assert recognised(texts) is None

    check()


@pytest.mark.parametrize(
    "texts",
    [
        ["1.10", "1.9", "2.0"],
        ["1.10.1", "1.9", "2.0"],
        ["192.168.100.200", "192.168.101.210"],
        ["A1", "B2", "C3"],
        ["CAD123", "CAD456"],
        ["01234", "98765"],
        ["+49 170 123", "+49 171 345"],
        ["12.30.1", "1.2.3"],
        ["1-2", "3-4"],
        ["1,2,3", "1,2"],
        ["2024-01-01", "2024-02-01"],
        ["49", "50"],
        ["x", "y"],
        ["1/2", "3/4"],
        ["5'11", "6'02"],
    ],
)
def test_these_columns_are_left_as_they_are(texts):
    assert recognised(texts) is None


@pytest.mark.parametrize(
    ("texts", "form"),
    [
        (["17", "12,5"], "1234,5"),
        (["1.299,99", "5"], "1.234,5"),
        (["1,338,000", "476"], "1,234.5"),
        (["1 234", "12"], "1 234.5"),
        (["1\u202f234,50", "12"], "1 234,5"),
        (["1'234.50", "12"], "1'234.5"),
        (["12,34,567", "12"], "12,34,567.8"),
        (["49%", "3.5 %"], "49%"),
        (["€ 44", "€ 38"], "€ 49"),
        (["44 EUR", "1.000,00 EUR"], "1.234,5 EUR"),
        (["(34)", "7"], "(49)"),
        (["6-", "17"], "49-"),
        (["\u22126", "17"], "\u221249"),
        (["($1,234.50)", "$3.00"], "($1,234.5)"),
    ],
)
def test_the_whole_column_decides_the_format(texts, form):
    seen = recognised(texts)
    assert (seen.formats, seen.is_sure) == ((form,), True)


@pytest.mark.parametrize(
    "texts",
    [
        ["1,234", "2,500"],
        ["1,338", "476"],
        ["€ 1.234", "€ 2.500"],
        ["$ 5", "€ 6"],
        ["1,234.5", "1.234,5"],
        ["123 456 789", "732 829 320"],
        ["49%", "0.5"],
        ["2-", "3"],
        ["(3)", "4-"],
    ],
)
def test_what_can_be_read_or_meant_in_two_ways_is_asked(texts):
    assert recognised(texts).is_sure is False


def test_one_value_among_many_plain_ones_decides():
    plain = [str(value) for value in range(900)]
    assert recognised([*plain, "1,338,000"]).formats == ("1,234.5",)
    assert recognised([*plain, "1,338"]).is_sure is False
    assert recognised([*plain, "12.5"]) is None


def test_a_few_short_texts_among_numbers_stand_for_missing():
    seen = numbers_written({"12,5": 40, "1.234,5": 40, "n.a.": 2, "-": 3, "NA": 3})
    assert (seen.formats, seen.marks) == (("1.234,5",), ("-", "n.a."))
    assert numbers_written({"12,5": 40, "no": 30}) is None


@pytest.mark.parametrize(
    ("name", "values", "form", "sure"),
    [
        ("order_date", range(45000, 45050), "excel", True),
        ("reading", range(45000, 45050), "excel", False),
        ("ship.date", np.arange(45000, 45050) + 0.5, "excel", True),
        ("day", range(20240101, 20240120), "%Y%m%d", True),
        ("period", [20240101, 20240201], "%Y%m%d", False),
        ("createdAt", range(1_700_000_000, 1_700_000_050), "epoch s", True),
        ("n", range(1_700_000_000, 1_700_000_050), "epoch s", False),
        ("n", range(1_700_000_000_000, 1_700_000_000_050), "epoch ms", True),
        ("ts", [1_700_000_000_000_000, 1_700_000_000_000_001], "epoch us", True),
    ],
)
def test_dates_that_are_numbers_are_told_by_their_values_and_names(name, values, form, sure):
    seen = dates_counted(pd.Series(values), name)
    assert (seen.formats, seen.is_sure) == ((form,), sure)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("salary", [21_000, 150_000]),
        ("zip", range(10_000, 99_000, 7)),
        ("date", [1, 2, 3]),
        ("ean", [4_006_381_333_931, 5_901_234_123_457]),
        ("day", [20241301, 20240230]),
        ("date", ["2024-01-01"]),
        ("flag", [True, False]),
    ],
)
def test_other_numbers_are_no_dates(name, values):
    assert dates_counted(pd.Series(values), name) is None


@pytest.fixture
def shop(tmp_path):
    """A European export, its file, and the values that it writes."""
    rng = np.random.default_rng(5)
    price = rng.integers(1, 9_000_000, ROWS) / 100
    cents = [f"{value:,.2f}".replace(",", "_").replace(".", ",").replace("_", ".") for value in price]
    table = pd.DataFrame(
        {
            "day": 45_000 + np.arange(ROWS),
            "share": [f"{value} %" for value in rng.integers(0, 50, ROWS)],
            "stock": [f"1,{value}" for value in rng.integers(100, 999, ROWS)],
            "price": cents,
        }
    )
    table.to_csv(tmp_path / "shop.csv", sep=";", index=False)
    return tmp_path, price, table


def drafted(folder, **options):
    source = Source(path="shop.csv")
    texts = read(source, folder, reading=TableReading({}))
    made = draft(read(source, folder), name="shop", path="shop.csv", texts=texts, **options)
    (folder / "shop.yaml").write_text(made.text, "utf-8")
    return made, load_use_case(folder / "shop.yaml")


def test_init_keeps_formats_in_the_settings_file_and_training_reads_by_them(shop):
    folder, price, table = shop
    _, use_case = drafted(folder, target="price", time="day")
    assert use_case.columns.formats == {"day": "excel", "share": "49 %", "price": "1.234,5"}
    assert use_case.task == "regression"
    window = load(use_case)
    assert window.frame["day"].iloc[0] == pd.Timestamp("2023-03-15")
    assert encode_target(use_case, window.frame["price"]).tolist() == price.tolist()
    assert window.frame["share"].tolist() == [int(text.split()[0]) for text in table["share"]]


def test_a_column_that_is_asked_about_is_left_out_until_one_of_its_lines_is_written(shop):
    folder, _, table = shop
    made, use_case = drafted(folder, target="price")
    assert use_case.columns.ignore == ("stock",)
    assert "two ways" in next(note.reason for note in made.notes if note.column == "stock")
    line = next(line for line in made.text.splitlines() if line.startswith('    # stock: "1,234.5"'))
    chosen = made.text.replace(line, line.replace("# ", "", 1))
    (folder / "shop.yaml").write_text(chosen, "utf-8")
    with pytest.raises(SettingsError, match=r"columns\.ignore leaves it out"):
        load_use_case(folder / "shop.yaml")
    left_out = next(line for line in made.text.splitlines() if line.startswith("    - stock"))
    (folder / "shop.yaml").write_text(chosen.replace("  ignore:", "  #").replace(left_out, ""), "utf-8")
    frame = load(load_use_case(folder / "shop.yaml")).frame
    assert frame["stock"].tolist() == [int(text.replace(",", "")) for text in table["stock"]]


def test_a_target_that_can_be_read_in_two_ways_stops_training_until_its_format_is_written(shop):
    folder, _, _ = shop
    _, use_case = drafted(folder, target="stock", time="day")
    assert use_case.task == "regression"
    assert use_case.columns.formats == {"day": "excel", "share": "49 %", "price": "1.234,5"}
    with pytest.raises(Exception, match="must be a number"):
        encode_target(use_case, load(use_case).frame["stock"])


@settings(max_examples=15, deadline=None)
@given(formats, st.lists(amounts, min_size=3, max_size=6, unique=True))
def test_a_written_row_is_read_alike_from_a_file_and_from_a_request(tmp_path_factory, form, numbers):
    folder = tmp_path_factory.mktemp("rows")
    texts = [written(number, form) for number in numbers]
    pd.DataFrame({"x": texts, "y": 1}).to_csv(folder / "rows.csv", sep=";", index=False)
    raw = read(Source(path="rows.csv"), folder, reading=TableReading({}))
    contract = learn(raw[["x"]], formats={"x": form.sample})
    typed = TableReading({"x": contract.columns[0]}).typed(raw)
    rows = [contract.check_row({"x": text}) for text in texts]
    expected = [float(number) for number in numbers]
    assert [row.values[0] for row in rows] == typed["x"].tolist() == expected
    assert contract.check_frame(raw).values["x"].tolist() == expected
    assert contract.check_columns({"x": texts}, len(texts)).values["x"].tolist() == expected
