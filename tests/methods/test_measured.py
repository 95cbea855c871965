"""What netaug-train tells beforehand of plain training for the same time."""

import pytest

from nasaug.methods import measured

ROWS = [
    {"data": "d", "macs": 100_000, "epochs": 10, "images": 45_000, "times": 4.0, "points": -2.0, "page": "a"},
    {"data": "d", "macs": 100_000, "epochs": 300, "images": 45_000, "times": 4.0, "points": 1.25, "page": "b"},
    {"data": "d", "macs": 5_000_000, "epochs": 10, "images": 45_000, "times": 4.0, "points": 0.1, "page": "c"},
    {"data": "d", "macs": 100_000, "epochs": 10, "images": 45_000, "times": 1.2, "points": -0.75, "page": "d"},
    {"data": "d", "macs": 100_000, "epochs": 10, "images": 1_000, "times": 4.0, "points": -3.0, "page": "e"},
]


@pytest.fixture
def five(monkeypatch):
    monkeypatch.setattr(measured, "rows", lambda: ROWS)


@pytest.mark.parametrize(
    "macs, epochs, images, times, page, told",
    [
        (
            200_000, 20, 60_000, 3.5, "a",
            "more: in the nearest measurement (d, 100k MACs, 10 epochs of 45,000 images, NetAug for 4 times the "
            "compute, both from fresh weights) it ended 2.0 points of validation accuracy above NetAug",
        ),
        (50_000, 1000, 60_000, 3.5, "b", "less: in the nearest measurement (d, 100k MACs, 300 epochs of"),
        (20_000_000, 30, 60_000, 3.5, "c", "about as much: in"),
        (100_000, 10, 60_000, 1.1, "d", "NetAug for 1.2 times the compute"),
        (100_000, 10, 2_000, 3.5, "e", "10 epochs of 1,000 images"),
    ],
)  # fmt: skip
def test_the_forecast_is_that_of_the_nearest_measurement(five, macs, epochs, images, times, page, told):
    assert measured.nearest(macs, epochs, images, times)["page"] == page
    assert told in measured.forecast(macs, epochs, images, times)


def test_what_was_measured_can_be_looked_up():
    for row in measured.rows():
        assert measured.nearest(row["macs"], row["epochs"], row["images"], row["times"]) == row
