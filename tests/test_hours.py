"""Hours side by side: a meter among many is the meter alone, and no hour knows a later one."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loads import readings

from smartgrid_ai.hours import filled_load, make_hours, trailing_size
from smartgrid_ai.readings import Place

PLACE = Place("Europe/Berlin", "DE")
COLUMNS = ("load", "filled", "size", "calendar", "weather", "civil_hour")


def gappy(hours: int, meters: int, gaps: float, seed: int) -> pd.DataFrame:
    "Meters that begin at different hours, with gaps in load and weather, and the sun."
    table, rng = readings(hours, meters, gaps, seed=seed), np.random.default_rng(seed)
    table["irradiance"] = 500 * np.maximum(0, np.sin(np.arange(len(table)) / 24 * 2 * np.pi))
    for name in ("temperature", "irradiance"):
        table.loc[rng.random(len(table)) < gaps, name] = np.nan
    late = {name: number for number, name in enumerate(table["meter_id"].unique())}
    position = table.groupby("meter_id").cumcount()
    return table[position >= table["meter_id"].map(late)].reset_index(drop=True)


@settings(max_examples=20)
@given(
    hours=st.integers(6, 500),
    meters=st.integers(1, 5),
    gaps=st.sampled_from([0.0, 0.2, 0.9]),
    seed=st.integers(0, 1000),
)
def test_a_meter_among_many_is_the_meter_alone(hours, meters, gaps, seed):
    table = gappy(hours, meters, gaps, seed)
    together = make_hours(table, PLACE)
    for number, (name, own) in enumerate(table.groupby("meter_id")):
        alone = make_hours(own.reset_index(drop=True), PLACE)
        rows = slice(together.bounds[number], together.bounds[number + 1])
        assert together.meters[number] == name and len(alone) == rows.stop - rows.start
        if alone.weather_names == together.weather_names:
            for column in COLUMNS:
                seen = getattr(together, column)[rows]
                assert np.array_equal(seen, getattr(alone, column), equal_nan=True), column


@settings(max_examples=20)
@given(cut=st.integers(2, 400), gaps=st.sampled_from([0.0, 0.3]), seed=st.integers(0, 1000))
def test_no_hour_knows_a_later_one(cut, gaps, seed):
    table = gappy(400, 2, gaps, seed)
    moment = table["timestamp"].min() + pd.Timedelta(hours=cut)
    before = table[table["timestamp"] < moment].reset_index(drop=True)
    whole, known = make_hours(table, PLACE), make_hours(before, PLACE)
    for number in range(len(known.meters)):
        own = slice(known.bounds[number], known.bounds[number + 1])
        rows = slice(whole.bounds[number], whole.bounds[number] + own.stop - own.start)
        for column in ("load", "filled", "size"):
            seen = getattr(whole, column)[rows]
            assert np.array_equal(seen, getattr(known, column)[own], equal_nan=True), column


@pytest.mark.parametrize("meters", [1, 3])
def test_size_is_the_mean_of_the_week_before_by_hand(meters):
    load = np.tile(np.r_[np.full(200, 10.0), np.full(200, 30.0)], meters)
    whose = np.repeat(np.arange(meters), 400)
    size = trailing_size(filled_load(load, whose), whose).reshape(meters, 400)
    assert np.isnan(size[:, 0]).all() and (size[:, 1:201] == 10).all()
    np.testing.assert_allclose(size[:, 242], (126 * 10 + 42 * 30) / 168)
    np.testing.assert_allclose(size[:, 399], 30)
