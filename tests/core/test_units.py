import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasaug.core.errors import BadInput
from nasaug.core.units import counted, format_duration, format_quantity, parse_quantity


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("25M", "macs", 25_000_000),
        ("1.5G", "macs", 1_500_000_000),
        ("1.5b", "params", 1_500_000_000),
        ("300k", "params", 300_000),
        ("300K", "params", 300_000),
        ("2.35e7", "macs", 23_500_000),
        (" 25 M ", "macs", 25_000_000),
        (".5M", "macs", 500_000),
        (1_000_000, "macs", 1_000_000),
        (2.5e6, "macs", 2_500_000),
        ("0.1M", "macs", 100_000),  # exact, although 0.1 has no exact binary form
        ("262144", "bytes", 262_144),
        ("512B", "bytes", 512),
        ("320KB", "bytes", 320 * 1024),
        ("320KiB", "bytes", 320 * 1024),
        ("320k", "bytes", 320 * 1024),
        ("1MB", "bytes", 1024**2),
        ("3ms", "milliseconds", 3.0),
        ("3", "milliseconds", 3.0),
        ("0.5s", "milliseconds", 500.0),
        ("800us", "milliseconds", 0.8),
        ("90s", "seconds", 90.0),
        ("10m", "seconds", 600.0),
        ("2h", "seconds", 7200.0),
    ],
)
def test_quantities_as_people_write_them(text, kind, value):
    parsed = parse_quantity(text, kind)
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize("kind", ["macs", "params", "bytes", "milliseconds", "seconds"])
@pytest.mark.parametrize("text", ["25Q", "0", "0M", "-3", "", "M", "nan", "inf", "1,5", "1e999", "3 4", True])
def test_what_is_no_quantity_is_refused_with_the_rule_in_one_line(text, kind):
    with pytest.raises(BadInput) as refused:
        parse_quantity(text, kind)
    message = str(refused.value)
    assert repr(str(text)) in message and "above 0" in message and "like" in message
    assert "\n" not in message


def test_less_than_one_is_no_count():
    with pytest.raises(BadInput):
        parse_quantity("0.4", "macs")


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (23_512_345, "macs", "23.5M"),
        (999_999, "macs", "1M"),
        (999, "params", "999"),
        (7.2e15, "macs", "7200T"),
        (312 * 1024, "bytes", "312 KB"),
        (1023 * 1024, "bytes", "1023 KB"),
        (100, "bytes", "100 B"),
        (3.21, "milliseconds", "3.21 ms"),
        (0.8, "milliseconds", "800 us"),
        (2500, "milliseconds", "2.5 s"),
        (250, "seconds", "4 m 10 s"),
    ],
)
def test_printed_to_three_figures(value, kind, text):
    assert format_quantity(value, kind) == text


@given(st.integers(1, 10**14), st.sampled_from(["macs", "params", "bytes", "milliseconds"]))
def test_what_is_printed_reads_back_within_its_three_figures(value, kind):
    assert parse_quantity(format_quantity(value, kind), kind) == pytest.approx(value, rel=0.0051)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.84, "0.8 s"), (9.96, "10 s"), (59.7, "1 m"), (250, "4 m 10 s"), (3600, "1 h"), (7530, "2 h 5 m"),
     (266_500, "3 d 2 h")],
)  # fmt: skip
def test_durations_in_at_most_two_units(seconds, text):
    assert format_duration(seconds) == text


def test_things_are_counted_in_words():
    told = [counted(number, "step") for number in (1, 1.0, 0.0, 2.5, 10009)]
    assert told == ["1 step", "1 step", "0 steps", "2.5 steps", "10009 steps"]
