"""The canonical table and its gate."""

import numpy as np
import pandas as pd
import pytest
from loads import readings

from smartgrid_ai.readings import DataError, Place, check_readings, hourly_grid, watts_per


def test_energy_needs_the_step():
    assert watts_per("kWh", 0.5) == 2000
    assert watts_per("kW", 0.5) == 1000


def test_unknown_unit_lists_the_known_ones():
    with pytest.raises(DataError, match=r"unknown unit 'kwh'.*kWh"):
        watts_per("kwh")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("Mars/Olympus",), "unknown time zone 'Mars/Olympus'"),
        (("Europe/Paris", "XX"), "no holiday calendar for XX"),
        (("Australia/Melbourne", "AU", "XYZ"), "no holiday calendar for AU XYZ"),
        (("Europe/Paris", None, "IDF"), "needs a country"),
    ],
)
def test_a_wrong_place_says_what_is_wrong(arguments, message):
    with pytest.raises(DataError, match=message):
        Place(*arguments)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.drop(columns="consumption"), "lack the column 'consumption'"),
        (lambda t: t.iloc[:0], "empty"),
        (lambda t: t.assign(timestamp=t["timestamp"].dt.tz_localize(None)), "time-zone-aware"),
        (lambda t: t.assign(consumption=t["consumption"].astype(str)), "'consumption' holds"),
        (lambda t: t.iloc[::-1], "strictly rising order"),
        (lambda t: pd.concat([t, t]), "strictly rising order"),
        (lambda t: t.assign(meter_id=["a", "b"] * (len(t) // 2)), "not together"),
    ],
)
def test_check_names_what_is_wrong(spoil, message):
    with pytest.raises(DataError, match=message):
        check_readings(spoil(readings(10)))


def test_grid_inserts_hours_but_no_values():
    whole = readings(100, meters=2)
    holes = whole.drop(index=[5, 6, 150]).reset_index(drop=True)
    grid = hourly_grid(holes)
    assert len(grid) == 200
    assert np.flatnonzero(grid["consumption"].isna()).tolist() == [5, 6, 150]
    assert (grid["timestamp"] == whole["timestamp"]).all()
    assert grid["timestamp"].dtype == whole["timestamp"].dtype
    pd.testing.assert_frame_equal(grid.dropna().reset_index(drop=True), holes)
