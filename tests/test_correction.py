"Misses of earlier forecasts: which they are, what counts of them, and when they are believed."

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smartgrid_ai.data.simulate import SIMULATED_PLACE, simulate
from smartgrid_ai.forecast.correction import (
    FITTED,
    LARGEST,
    LEAST_DAYS,
    PARTS,
    corrections,
    fit_correction,
    habits,
    miss_parts,
)
from smartgrid_ai.forecast.wanted import Wanted, both, earlier_forecasts, next_days, next_hours
from smartgrid_ai.hours import make_hours


@pytest.fixture(scope="module")
def hours():
    return make_hours(simulate("small", seed=0), SIMULATED_PLACE)


@st.composite
def asked(draw):
    "Wanted forecasts at any hours of any meters, in any order, some of them twice."
    count = draw(st.integers(1, 12))
    rows = np.array(draw(st.lists(st.integers(0, 4000), min_size=count, max_size=count)))
    if draw(st.booleans()):
        return next_hours(rows)
    return Wanted(rows, np.array([draw(st.integers(1, 7)) for _ in rows]), 24)


@settings(max_examples=300, deadline=None)
@given(wanted=asked())
def test_earlier_forecasts_belong_to_the_meter_and_have_all_passed(hours, wanted):
    earlier = earlier_forecasts(hours, wanted)
    target, every = np.r_[earlier.forecasts.target, -1], slice(None)
    limit, first = wanted.origin[:, None], hours.first[wanted.origin][:, None]
    for rows in (earlier.lately(every), earlier.latest(every)):
        past = target[rows]
        assert ((past < limit) & ((past >= first) | (rows < 0))).all()
    rows = earlier.same_hour(every)
    past, limit = target[rows], wanted.issued[:, None]
    assert ((past < limit) & ((past >= np.repeat(first, wanted.ahead, 0)) | (rows < 0))).all()
    apart = (wanted.target - (wanted.day.repeat(wanted.ahead) - 1) * 24)[:, None] - past
    assert (apart[rows >= 0] % 24 == 0).all()
    assert np.isfinite(hours.size[earlier.forecasts.origin]).all(), "issued without any load"


@settings(max_examples=200, deadline=None)
@given(first=asked(), second=asked())
def test_both_lists_are_found_in_their_union(first, second):
    if first.ahead != second.ahead:
        second = Wanted(second.origin, second.day, first.ahead)
    united, *rows = both(first, second)
    assert len(set(zip(united.origin, united.day))) == len(united.origin)
    for part, row in zip((first, second), rows):
        assert (united.target[row] == part.target).all()
        assert (united.issued[row] == part.issued).all()


def test_what_is_not_known_counts_as_no_miss_and_a_wild_miss_for_little(hours):
    wanted = next_days(hours.first[:1] + np.array([0, 24, 48, 24 * 20]))
    earlier = earlier_forecasts(hours, wanted)
    misses = np.full((len(earlier.forecasts), 2), np.nan)
    misses[:, 1] = 1e9
    parts = miss_parts(misses, earlier, np.ones(96))
    assert not parts[:, 0].any() and not parts[:48].any()
    assert (parts[72:, 1] == LARGEST).all() and (parts[48:72, 1] == [3, 3, 0, 3, 0]).all()


@pytest.mark.parametrize("horizon", [1, 24])
def test_the_first_days_of_a_meter_are_no_habit(hours, horizon):
    "All misses are alike; what is believed of them grows with the days that show them."
    age = np.array([1, 2, 4, 8, 15]) * 24
    origin = hours.first[0] + age
    wanted = next_hours(origin) if horizon == 1 else next_days(origin)
    earlier = earlier_forecasts(hours, wanted)
    parts = miss_parts(np.ones((len(earlier.forecasts), 1)), earlier, np.ones(len(wanted)))
    believed = parts[:: wanted.ahead, 0, 3]
    assert (
        believed[0] == 0 and (np.diff(believed) > 0.05).all() and believed[-1] == pytest.approx(1)
    )


def test_coefficients_that_the_other_weeks_do_not_confirm_are_dropped():
    rng = np.random.default_rng(0)
    parts, half = (
        rng.standard_normal((600, 1, len(PARTS))).astype(np.float32),
        np.arange(600) % 2 == 0,
    )
    opposite = np.where(half, 0.5, -0.5) * parts[:, 0, 0]
    found = fit_correction(parts, np.zeros((600, 1)), opposite, np.ones(600, int), half, 1)
    assert not found[..., :FITTED].any() and (found[..., FITTED:] == 1).all()


def test_days_have_coefficients_of_their_own_and_unknown_days_none():
    rng = np.random.default_rng(1)
    parts, day = (
        rng.standard_normal((900, 1, len(PARTS))).astype(np.float32),
        np.arange(900) % 2 + 1,
    )
    target = parts[:, 0, 0] * np.where(day == 1, 0.8, 0.2)
    half = np.arange(900) // 100 % 2 == 0
    found = fit_correction(parts, np.zeros((900, 1)), target, day, half, 3)
    assert found[:2, 0, 0] == pytest.approx([0.8, 0.2], abs=0.02) and not found[2, 0, :FITTED].any()
    parts[..., FITTED:] = 0
    left = target - corrections(found, parts, day)[:, 0]
    assert np.abs(left).mean() < 0.1 * np.abs(target).mean()


# Habits


@st.composite
def fortnights(draw):
    "Misses of up to three experts at some hours, some of them unknown."
    shape = (draw(st.integers(1, 4)), 14, draw(st.integers(1, 3)))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    misses = rng.standard_normal(shape) + draw(st.floats(-5, 5))
    return np.where(rng.random(shape) < draw(st.floats(0, 1)), misses, np.nan)


@settings(max_examples=300, deadline=None)
@given(same=fortnights(), factor=st.floats(0.01, 100))
def test_a_habit_is_never_more_than_the_mean_and_follows_unit_and_sign(same, factor):
    found = habits(same)
    weight = 0.5 ** (np.arange(14) / 7)[:, None] * np.isfinite(same)
    mean = (weight * np.nan_to_num(same)).sum(1) / np.maximum(weight.sum(1), 1e-9)
    assert (found * mean >= 0).all() and (np.abs(found) <= np.abs(mean) + 1e-12).all()
    assert not found[np.isfinite(same).sum(1) < LEAST_DAYS].any()
    np.testing.assert_allclose(habits(-factor * same), -factor * found, atol=1e-9 * factor)


def test_one_bad_day_is_no_habit_and_a_fortnight_of_them_is():
    outage, lasting = np.zeros((1, 14, 1)), np.full((1, 14, 1), 7.0)
    outage[0, 0] = 50
    assert habits(outage) == 0 and habits(lasting) == pytest.approx(7)


def test_unknown_days_neither_count_nor_dilute_a_habit():
    rng = np.random.default_rng(2)
    some = 5 + rng.standard_normal((1, 14, 1))
    some[0, 10:] = np.nan
    assert habits(some) == pytest.approx(habits(some[:, :10]))


def test_days_ahead_a_habit_is_corrected_that_no_validation_week_has_shown(hours):
    "Coefficients of a time without misses leave the whole habit, those that correct it already only the rest."
    rng = np.random.default_rng(3)
    quiet = np.zeros((960, 1, len(PARTS)), np.float32)
    day, half = np.ones(960, int), np.arange(960) // 168 % 2 == 0
    nothing = fit_correction(quiet, np.zeros((960, 1)), rng.standard_normal(960), day, half, 1)
    wanted = next_days(hours.first[:1] + np.array([24 * 40]))
    earlier = earlier_forecasts(hours, wanted)
    misses = np.full((len(earlier.forecasts), 1), 0.8)
    parts = miss_parts(misses, earlier, np.ones(24))
    assert corrections(nothing, parts, day[:24]) == pytest.approx(0.8, abs=1e-5)
    learnt = rng.standard_normal((960, 1, len(PARTS))).astype(np.float32)
    some = fit_correction(learnt, np.zeros((960, 1)), 0.6 * learnt[:, 0, 1], day, half, 1)
    assert corrections(some, parts, day[:24]) == pytest.approx(0.8, abs=0.02)


def test_an_hour_ahead_there_are_no_habits(hours):
    wanted = next_hours(hours.first[:1] + 24 * 40)
    earlier = earlier_forecasts(hours, wanted)
    parts = miss_parts(np.ones((len(earlier.forecasts), 1)), earlier, np.ones(1))
    assert parts[0, 0].tolist() == [1, 1, 1, 1, 0]
