"""What a detector is told about a reading, and the past it is compared with."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smartgrid_ai.anomaly.rows import LIMIT, READING_NAMES, reading_rows, tame

DAY, WEEK = 24, 168


def some_load(hours: int = 1600, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    rhythm = 500 + 200 * np.sin(np.arange(hours) * 2 * np.pi / DAY)
    return rhythm * random.lognormal(sigma=0.05, size=hours)


def test_habits_are_medians_of_the_same_hour():
    load = some_load()
    past = tame(load)
    remembered = past["tamed"].to_numpy()
    for t in (WEEK, WEEK + 5, 900, 1599):
        days = [remembered[t - DAY * k] for k in range(1, 8)]
        weeks = [remembered[t - WEEK * k] for k in range(1, 5) if t >= WEEK * k]
        assert past["by_day"][t] == np.median(days)
        assert past["by_week"][t] == np.median(weeks)


def test_distance_is_to_the_nearer_habit_in_usual_distances():
    load = some_load()
    past = tame(load)
    away = np.c_[load - past["by_day"], load - past["by_week"]]
    nearer = away[np.arange(len(load)), np.abs(np.nan_to_num(away)).argmin(axis=1)]
    t = 1584  # a multiple of 24: the usual distance is learned anew
    usual = 1.4826 * np.nanmedian(np.abs(nearer[t - 672 : t]))
    usual += 0.02 * np.median(past["tamed"][t - 672 : t])
    assert past["distance"][t] == pytest.approx(nearer[t] / usual)


@given(st.integers(300, 1100), st.sampled_from([np.nan, 0.0, -3e3, 1e9]), st.integers(1, 60))
@settings(max_examples=25, deadline=None)
def test_no_row_looks_ahead(hour, value, length):
    load = some_load(1200)
    changed = load.copy()
    changed[hour : hour + length] = value
    first, second = reading_rows(load), reading_rows(changed)
    np.testing.assert_array_equal(first[:hour], second[:hour])
    assert not np.array_equal(first[hour], second[hour], equal_nan=True)


@given(st.floats(1e-6, 1e9))
@settings(max_examples=20, deadline=None)
def test_unit_does_not_matter(factor):
    load = some_load(700)
    np.testing.assert_allclose(
        reading_rows(load * factor), reading_rows(load), rtol=1e-6, atol=1e-9
    )


def test_remembered_past_moves_at_most_four_usual_distances():
    load = some_load()
    spiky = load.copy()
    spiky[800:1500:97] *= 40
    past = tame(spiky)
    changed = np.flatnonzero(past["tamed"] != spiky)
    assert set(range(800, 1500, 97)) <= set(changed)
    assert (np.abs(past["distance"][changed]) > LIMIT).all()
    assert past["tamed"].max() < 1.6 * load.max()


def test_a_spike_leaves_the_rows_after_it_as_they_were():
    load = some_load()
    spike = load.copy()
    spike[1000] = 50 * load[1000]
    column = READING_NAMES.index("distance")
    first, second = reading_rows(load), reading_rows(spike)
    assert second[1000, column] > 20 * LIMIT
    assert np.abs(second[1001:, column] - first[1001:, column]).max() < 2.0


def test_a_lasting_change_becomes_a_habit():
    load = some_load(2400)
    load[1000:] *= 3
    distance = tame(load)["distance"]
    assert distance[1000 : 1000 + DAY].min() > LIMIT
    assert np.abs(distance[1000 + 4 * WEEK :]).median() < 1.5


@pytest.mark.parametrize("load", [np.zeros(900), np.full(900, 5.0), np.full(900, np.nan)])
def test_flat_and_empty_loads_have_no_distance(load):
    rows = reading_rows(load)
    assert rows.shape == (900, 9) and not np.isinf(rows).any()
    known = rows[:, READING_NAMES.index("distance")]
    assert not (np.abs(known[np.isfinite(known)]) > 0).any()


def test_gaps_stay_gaps_and_do_not_spread():
    load = some_load()
    load[900:930] = np.nan
    rows = reading_rows(load)
    assert np.isnan(rows[900:930, 0]).all()
    assert np.isfinite(rows[960:, READING_NAMES.index("distance")]).all()


@pytest.mark.parametrize("hours", [0, 1, 100, 168, 169])
def test_short_loads_have_rows_without_habits(hours):
    rows = reading_rows(some_load(hours))
    assert rows.shape == (hours, 9)
    assert np.isnan(rows[:, READING_NAMES.index("distance")]).all()


def test_the_load_is_left_alone():
    load = some_load(600)
    load[400] = 1e6
    before = load.copy()
    reading_rows(load)
    np.testing.assert_array_equal(load, before)
