"""What netaug-train tells beforehand of plain training for the same time."""

import pytest

from nasaug.methods import measured

ROWS = [
    {"data": "d", "macs": 100_000, "epochs": 10, "points": -2.0, "page": "a"},
    {"data": "d", "macs": 100_000, "epochs": 300, "points": 1.25, "page": "b"},
    {"data": "d", "macs": 5_000_000, "epochs": 10, "points": 0.1, "page": "c"},
]


@pytest.fixture
def three(monkeypatch):
    monkeypatch.setattr(measured, "rows", lambda: ROWS)


@pytest.mark.parametrize(
    "macs, epochs, page, told",
    [
        (200_000, 20, "a", "more: in the nearest measurement (d, 100k MACs, 10 epochs) it ended 2.0 points above"),
        (50_000, 1000, "b", "less: in the nearest measurement (d, 100k MACs, 300 epochs) it ended 1.2 points below"),
        (20_000_000, 30, "c", "about as much: in"),
    ],
)
def test_the_forecast_is_that_of_the_nearest_net_and_length(three, macs, epochs, page, told):
    assert measured.nearest(macs, epochs)["page"] == page
    assert told in measured.forecast(macs, epochs)
