"""Quantiles that never cross, hold what they promise, and learn only from what is over."""

import io
from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smartgrid_ai.errors import DataError
from smartgrid_ai.forecast.adaptive import (
    NEXT_DAY,
    NEXT_WEEK,
    AdaptiveConformal,
    Forecasts,
    adaptive_tables,
    pace_of,
)
from smartgrid_ai.forecast.calibration import (
    GROUPS,
    QUANTILE_NAMES,
    Conformal,
    HourlySpread,
    group_of,
    standardised,
)
from smartgrid_ai.readings import hour_number

NAMES = list(QUANTILE_NAMES)
START = 420_000  # an hour number that is a midnight
FEW = settings(max_examples=25, deadline=None)


@given(
    misses=st.lists(st.floats(-1e6, 1e6), min_size=20, max_size=300),
    forecast=st.floats(0, 1e9),
    spread=st.floats(1e-6, 1e6),
)
def test_quantiles_never_cross_and_confidence_is_a_probability(misses, forecast, spread):
    conformal = Conformal.fit(np.array(misses), np.zeros(len(misses)), np.ones(len(misses)))
    table = conformal.table(np.array([forecast]), np.array([spread]), lowest=0.0)
    assert (np.diff(table[NAMES].to_numpy()) >= 0).all()
    assert 0 <= table["confidence"][0] <= 1
    assert table.to_numpy().min() >= 0


@FEW
@given(
    seed=st.integers(0, 10**6),
    groups=st.integers(1, 3 * GROUPS),
    lowest=st.sampled_from([0.0, -np.inf]),
)
def test_grouped_two_sided_quantiles_never_cross(seed, groups, lowest):
    rng = np.random.default_rng(seed)
    count = 200
    location, below, above = (
        rng.normal(10, 20, count),
        rng.exponential(3, count),
        rng.exponential(9, count),
    )
    below[::7], above[::5] = 0.0, 0.0
    actual = location + rng.standard_t(2, count) * 5
    actual[::11] = np.nan
    conformal = Conformal.fit(actual, location, below, above, rng.integers(0, groups, count))
    asked = rng.integers(-1, 4 * GROUPS, count)
    table = conformal.table(location, below, lowest, above=above, group=asked)
    assert np.isfinite(table.to_numpy()).all()
    assert (np.diff(table[NAMES].to_numpy()) >= 0).all()
    assert table["confidence"].between(0, 1).all()
    assert (table["prediction"] == np.maximum(location, lowest)).all()


def test_coverage_holds_on_new_hours():
    rng = np.random.default_rng(1)
    spread = rng.uniform(1, 5, 8000)
    actual = 50 + spread * rng.standard_t(3, 8000)
    conformal = Conformal.fit(actual[:4000], np.full(4000, 50.0), spread[:4000])
    table = conformal.table(np.full(4000, 50.0), spread[4000:])
    for low, high, share in (("q0.1", "q0.9", 0.8), ("q0.025", "q0.975", 0.95)):
        inside = (actual[4000:] >= table[low]) & (actual[4000:] <= table[high])
        assert inside.mean() == pytest.approx(share, abs=0.02)


def test_equal_sides_are_one_spread():
    rng = np.random.default_rng(2)
    location, spread = rng.uniform(50, 90, 300), rng.uniform(1, 5, 300)
    actual = location + spread * rng.normal(size=300)
    one, two = (Conformal.fit(actual, location, spread, above) for above in (None, spread))
    pd.testing.assert_frame_equal(
        one.table(location, spread), two.table(location, spread, above=spread)
    )


def test_each_side_is_measured_by_its_own_spread():
    actual, location = np.array([7.0, 14.0, 10.0, np.nan]), np.full(4, 10.0)
    misses = standardised(actual, location, np.full(4, 3.0), np.full(4, 2.0))
    np.testing.assert_allclose(misses, [-1, 2, 0, np.nan])


def test_a_group_with_few_hours_leans_on_its_band_and_an_empty_one_is_its_band():
    rng = np.random.default_rng(3)
    hour = np.r_[np.repeat(np.arange(12), 200), [18]]
    miss = rng.normal(size=len(hour))
    miss[-1] = 50.0
    ones = np.ones(len(hour))
    conformal = Conformal.fit(miss, 0 * ones, ones, ones, group_of(ones, hour))
    pooled = Conformal.fit(miss, 0 * ones, ones)
    level = NAMES.index("q0.9") + 1
    of = {h: conformal.factors(np.array([h]), 1)[0, level] for h in (18, 22, GROUPS + 5)}
    assert of[22] == pytest.approx(pooled.factors(None, 1)[0, level], rel=0.02)
    assert of[22] < of[18] < 0.1 * 50
    assert of[GROUPS + 5] == pooled.factors(None, 1)[0, level]


def test_hours_of_unlike_spread_hold_their_promise_only_in_groups():
    rng = np.random.default_rng(4)
    hour = np.tile(np.arange(24), 400)
    size = 2 + 4 * np.exp(-(((hour - 18) / 3) ** 2))
    actual = 100 + size * rng.standard_t(5, len(hour))
    location, spread, group = np.full(len(hour), 100.0), np.full(len(hour), 2.0), group_of(1, hour)
    past = slice(0, 24 * 75)
    conformal = Conformal.fit(actual[past], location[past], spread[past], spread[past], group[past])
    shares = []
    for asked in (None, group):
        table = conformal.table(location, spread, group=asked)
        inside = ((actual >= table["q0.1"]) & (actual <= table["q0.9"]))[past.stop :]
        shares.append(inside.groupby(hour[past.stop :]).mean())
    away = [(share - 0.8).abs() for share in shares]
    assert shares[0].min() < 0.6 and away[0].mean() > 0.08
    assert shares[1].between(0.7, 0.9).all() and away[1].mean() < 0.6 * away[0].mean()


def test_beyond_the_sample_the_extreme_stands_in():
    misses = np.arange(-10.0, 11.0)
    conformal = Conformal.fit(misses, np.zeros(21), np.ones(21))
    table = conformal.table(np.zeros(1), np.ones(1))
    assert table["q0.025"][0] == -10 and table["q0.975"][0] == 10


def test_a_sure_forecast_is_confident_and_a_vague_one_is_not():
    misses = np.random.default_rng(0).normal(size=1000)
    conformal = Conformal.fit(misses, np.zeros(1000), np.ones(1000))
    sure, vague = conformal.probability_near(np.array([1000.0, 1000.0]), np.array([1.0, 1000.0]))
    assert sure > 0.99 and vague < 0.15


def test_too_few_hours_are_an_error():
    with pytest.raises(DataError, match="only 3 observed hours to calibrate on"):
        Conformal.fit(np.array([1.0, 2.0, 3.0, np.nan]), np.zeros(4), np.ones(4))


def test_an_hour_never_seen_gets_the_overall_spread():
    spread = HourlySpread.fit(np.array([1.0, 1.0, 2.0]), np.array([1.0, 3.0, np.nan]), np.ones(3))
    assert spread.spread(np.array([5.0]), np.array([10.0])) == pytest.approx(20.0)


def issues(seed=0, meters=1, days=40, horizon=24, every=24, step_day=None, catch_up=None, gaps=0.0):
    "Forecasts of a daily profile, `horizon` hours every `every` hours; `catch_up` days after a step of 30 % they know it."
    rng = np.random.default_rng(seed)
    hours = np.arange(24 * days)
    profile = 100 + 40 * np.sin((hours % 24 - 9) / 24 * 2 * np.pi)
    noise = 0.04 * (1 + 0.8 * (hours % 24 > 16)) * rng.standard_t(5, (meters, len(hours)))
    load = profile * np.exp(noise)
    known = profile.copy()
    if step_day is not None:
        load[:, 24 * step_day :] *= 1.3
        if catch_up is not None:
            known[24 * (step_day + catch_up) :] *= 1.3
    load[rng.random(load.shape) < gaps] = np.nan
    issued = np.arange(0, len(hours) - horizon + 1, every)
    target = (issued[:, None] + np.arange(horizon)).ravel()
    meter = np.tile(np.arange(meters)[:, None], (1, len(target))).ravel()
    issued, target = np.tile(np.repeat(issued, horizon), meters), np.tile(target, meters)
    location, spread = known[target], 0.05 * profile[target]
    group = group_of(target - issued + 1, target % 24)
    return Forecasts(
        meter,
        START + issued,
        START + target,
        group,
        location,
        spread,
        1.5 * spread,
        load[meter, target],
    )


def fitted(**how):
    part = issues(seed=99, days=60, **how)
    return Conformal.fit(part.actual, part.location, part.below, part.above, part.group)


CONFORMAL = fitted()


def inside(table, forecasts, low="q0.1", high="q0.9"):
    return ((forecasts.actual >= table[low]) & (forecasts.actual <= table[high])).to_numpy()


def pinball(table, forecasts):
    levels = np.array([float(name[1:]) for name in NAMES])
    miss = forecasts.actual[:, None] - table[NAMES].to_numpy()
    return np.maximum(levels * miss, (levels - 1) * miss).mean()


def changed(forecasts, **columns):
    return replace(forecasts, **columns)


@FEW
@given(
    seed=st.integers(0, 10**6),
    wildness=st.sampled_from([0.0, 1.0, 1e6]),
    lowest=st.sampled_from([0.0, -np.inf]),
    zero_spread=st.booleans(),
)
def test_adapted_quantiles_never_cross_whatever_the_meter_reads(
    seed, wildness, lowest, zero_spread
):
    rng = np.random.default_rng(seed)
    part = issues(seed, meters=2, days=12, gaps=0.1)
    part.actual = part.actual + wildness * rng.standard_t(1, len(part))
    part.actual[rng.random(len(part)) < 0.05] = np.inf
    if zero_spread:
        part.below, part.above = (
            np.zeros(len(part)),
            np.where(rng.random(len(part)) < 0.5, 0, part.above),
        )
    table, state = adaptive_tables(CONFORMAL, part, lowest=lowest)
    assert np.isfinite(table.to_numpy()).all()
    assert (np.diff(table[NAMES].to_numpy()) >= 0).all()
    assert table["confidence"].between(0, 1).all()
    assert table[NAMES].to_numpy().min() >= lowest
    assert all(np.isfinite(getattr(state, name)).all() for name in ("size", "hourly", "offset"))


@FEW
@given(
    seed=st.integers(0, 10**6),
    day=st.integers(1, 19),
    poison=st.sampled_from([np.nan, 1e9, -1e9, np.inf]),
    shape=st.sampled_from([(1, 1), (24, 24), (24, 6), (168, 168)]),
)
def test_what_happens_after_the_issue_never_changes_what_is_published(seed, day, poison, shape):
    horizon, every = shape
    part = issues(seed, meters=2, days=21, horizon=horizon, every=every, gaps=0.05)
    table, _ = adaptive_tables(CONFORMAL, part, pace_of(horizon))
    now = START + 24 * day
    poisoned = changed(part, actual=np.where(part.target >= now, poison, part.actual))
    other, _ = adaptive_tables(CONFORMAL, poisoned, pace_of(horizon))
    past = part.issued <= now
    assert past.any()
    pd.testing.assert_frame_equal(table[past], other[past], check_exact=True)


def test_the_last_hour_before_the_issue_does_count():
    part = issues(days=3, horizon=1, every=1)
    table, _ = adaptive_tables(CONFORMAL, part)
    other, _ = adaptive_tables(
        CONFORMAL, changed(part, actual=np.where(part.target == START + 30, 1e4, part.actual))
    )
    same = (table[NAMES] == other[NAMES]).all(axis=1).to_numpy()
    assert same[:31].all() and not same[31]


@FEW
@given(
    seed=st.integers(0, 10**6),
    cut=st.integers(1, 19),
    shape=st.sampled_from([(1, 1), (24, 24), (24, 6), (168, 24)]),
)
def test_saved_and_resumed_equals_one_go(seed, cut, shape):
    horizon, every = shape
    part = issues(seed, meters=3, days=28, horizon=horizon, every=every, gaps=0.05)
    whole, last = adaptive_tables(CONFORMAL, part)
    now = START + 24 * cut
    early = part.issued < now
    first = part.take(early)
    live = AdaptiveConformal(CONFORMAL, 3)
    known = changed(first, actual=np.where(first.target < first.issued.max(), first.actual, np.nan))
    tables = [live.publish(known)]
    disk = io.BytesIO()
    np.savez(disk, **live.arrays())
    disk.seek(0)
    resumed = AdaptiveConformal.from_arrays(CONFORMAL, dict(np.load(disk)))
    resumed.observe(first.meter, first.target, first.actual)
    tables.append(resumed.publish(part.take(~early)))
    both = (
        pd.concat(tables)
        .set_axis(np.r_[np.flatnonzero(early), np.flatnonzero(~early)])
        .sort_index()
    )
    pd.testing.assert_frame_equal(both, whole, check_exact=True)
    for name, array in last.arrays().items():
        order, other = sorted_rows(last), sorted_rows(resumed)
        waits = name.startswith("pending.") or name == "published"
        kept = resumed.arrays()[name]
        np.testing.assert_array_equal(
            kept[other] if waits else kept, array[order] if waits else array
        )


def sorted_rows(state):
    return np.lexsort([state.pending.target, state.pending.issued, state.pending.meter])


def test_the_order_of_rows_does_not_matter_and_meters_do_not_touch_each_other():
    part = issues(5, meters=4, days=20, gaps=0.05)
    table, _ = adaptive_tables(CONFORMAL, part)
    shuffled = np.random.default_rng(0).permutation(len(part))
    mixed, _ = adaptive_tables(CONFORMAL, part.take(shuffled))
    pd.testing.assert_frame_equal(
        mixed, table.iloc[shuffled].reset_index(drop=True), check_exact=True
    )
    alone = part.take(part.meter == 2)
    single, _ = adaptive_tables(CONFORMAL, changed(alone, meter=0 * alone.meter))
    expected = table[part.meter == 2].reset_index(drop=True)
    pd.testing.assert_frame_equal(single, expected, check_exact=True)


def test_missing_hours_teach_nothing():
    part = issues(6, days=20)
    silent = changed(part, actual=np.full(len(part), np.nan))
    table, state = adaptive_tables(CONFORMAL, silent)
    fixed = CONFORMAL.table(part.location, part.below, above=part.above, group=part.group)
    pd.testing.assert_frame_equal(table[["prediction", *NAMES]], fixed[["prediction", *NAMES]])
    assert (state.size == 1).all() and (state.offset == 0).all()


def test_a_load_that_is_late_still_teaches_but_not_after_a_week():
    part = issues(15, days=30)
    for waited, learnt in ((3, True), (9, False)):
        live = AdaptiveConformal(CONFORMAL, 1)
        now = part.issued < START + 24 * (10 + waited)
        unread = (part.target >= START + 240) & (part.target < START + 264)
        live.publish(changed(part, actual=np.where(unread, np.nan, part.actual)).take(now))
        assert (live.pending.target < START + 264).any() == learnt
        live.observe(part.meter[unread], part.target[unread], np.full(24, 1e4))
        offset = live.offset.copy()
        live.publish(part.take(part.issued == part.issued[now][-1] + 24))
        assert (live.offset[0, :, 5] > offset[0, :, 5] + 0.05).all() == learnt


def test_before_anything_is_judged_confidence_is_nearly_that_of_the_fixed_table():
    part = issues(6, days=1)
    table, _ = adaptive_tables(CONFORMAL, part)
    fixed = CONFORMAL.table(part.location, part.below, above=part.above, group=part.group)
    np.testing.assert_allclose(table["confidence"], fixed["confidence"], atol=0.05)


@pytest.mark.parametrize("factor", [1000.0, 1024.0])
def test_the_unit_does_not_matter(factor):
    part = issues(7, meters=2, days=40, gaps=0.02)
    watts = ("location", "below", "above", "actual")
    bigger = changed(part, **{name: factor * getattr(part, name) for name in watts})
    table, big = (adaptive_tables(CONFORMAL, rows, lowest=0.0)[0] for rows in (part, bigger))
    np.testing.assert_allclose(big[NAMES], factor * table[NAMES], rtol=1e-9)
    np.testing.assert_allclose(big["confidence"], table["confidence"], atol=1e-9)


def test_hourly_issues_of_a_day_ahead_forecast_learn_as_fast_as_daily_ones():
    daily, hourly = (issues(8, days=60, every=every, step_day=30) for every in (24, 1))
    sizes = [adaptive_tables(CONFORMAL, part)[1].size[0] for part in (daily, hourly)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.15)


@pytest.mark.parametrize("horizon", [1, 24])
@pytest.mark.parametrize("catch_up", [1, 7, None])
@pytest.mark.parametrize("step_day", [60, 63])
def test_a_week_after_a_step_of_thirty_percent_the_interval_holds_again(
    horizon, catch_up, step_day
):
    how = {
        "days": 120,
        "horizon": horizon,
        "every": horizon,
        "step_day": step_day,
        "catch_up": catch_up,
    }
    part = issues(10, **how)
    conformal = fitted(horizon=horizon, every=horizon)
    table, _ = adaptive_tables(conformal, part, pace_of(horizon))
    fixed = conformal.table(part.location, part.below, above=part.above, group=part.group)
    day = (part.target - START) // 24 - step_day
    back = (day >= 7) & (day < 14)
    assert inside(table, part)[back].mean() >= 0.76
    if catch_up is None:
        assert inside(fixed, part)[back].mean() < 0.1


def test_intervals_come_down_again_after_the_forecast_has_caught_up():
    part = issues(11, days=150, step_day=60, catch_up=7)
    table, _ = adaptive_tables(CONFORMAL, part)
    day, width = (part.target - START) // 24, table["q0.9"] - table["q0.1"]
    before, after = (width[(day >= a) & (day < b)].mean() for a, b in ((40, 60), (95, 115)))
    assert after < 1.5 * 1.3 * before


@pytest.mark.parametrize("horizon", [1, 24, 168])
def test_in_quiet_times_coverage_holds_and_nothing_is_paid_for_it(horizon):
    conformal = fitted(horizon=horizon, every=horizon)
    part = issues(12, meters=3, days=364, horizon=horizon, every=horizon)
    table, _ = adaptive_tables(conformal, part, pace_of(horizon))
    fixed = conformal.table(part.location, part.below, above=part.above, group=part.group)
    assert inside(table, part).mean() == pytest.approx(0.8, abs=0.02)
    assert inside(table, part, "q0.025", "q0.975").mean() == pytest.approx(0.95, abs=0.02)
    assert pd.Series(inside(table, part)).groupby(part.target % 24).mean().between(0.75, 0.85).all()
    assert pinball(table, part) < 1.01 * pinball(fixed, part)
    widths = [(t["q0.9"] - t["q0.1"]).mean() for t in (table, fixed)]
    assert widths[0] < 1.05 * widths[1]


def test_a_wrong_calibration_is_mended():
    part = issues(13, days=200)
    sides = {"below": 3 * part.below, "above": part.above / 3}
    table, _ = adaptive_tables(CONFORMAL, changed(part, **sides))
    late = part.target >= START + 24 * 30
    for name in ("q0.1", "q0.25", "q0.75", "q0.9"):
        under = (part.actual < table[name])[late].mean()
        assert under == pytest.approx(float(name[1:]), abs=0.04)


def test_mistakes_of_the_caller_are_named():
    part = issues(days=3)
    with pytest.raises(DataError, match="after its target"):
        changed(part, target=part.issued - 1)
    adaptive = AdaptiveConformal(CONFORMAL, 1)
    with pytest.raises(DataError, match="numbered 0 to 0"):
        adaptive.publish(changed(part, meter=part.meter + 1))
    adaptive.publish(part)
    with pytest.raises(DataError, match="issued before"):
        adaptive.publish(part.take(part.issued == START))


def test_nothing_to_publish_is_an_empty_table():
    table, state = adaptive_tables(CONFORMAL, issues(days=2).take(np.zeros(48, bool)))
    assert len(table) == 0 and list(table)[1:-1] == NAMES
    assert len(AdaptiveConformal(CONFORMAL, 2).publish(state.pending)) == 0


def test_the_caller_keeps_its_arrays():
    part = issues(14, days=5)
    before = {f.name: getattr(part, f.name).copy() for f in fields(part)}
    adaptive_tables(CONFORMAL, part, NEXT_WEEK, lowest=120.0)
    for name, array in before.items():
        np.testing.assert_array_equal(getattr(part, name), array)


@pytest.mark.real_data
def test_a_year_of_victoria_from_one_spring_of_calibration(shared_data):
    frame = pd.read_parquet(shared_data / "load" / "vic_elec.parquet")
    frame = frame[frame["timestamp"] < "2014-01-01"]
    time = pd.DatetimeIndex(frame["timestamp"], tz="UTC")
    load, hour = (
        pd.Series(frame["consumption"].to_numpy(float)),
        time.tz_convert("Australia/Melbourne").hour,
    )
    step = [load.shift(lag) - load.shift(lag + 1) for lag in (23, 167)]
    location = (load.shift(1) + sum(s.shift(1) for s in step) / 2).to_numpy()
    spread, hours = 0.01 * load.shift(1).rolling(168).mean().to_numpy(), hour_number(time)
    rows = Forecasts(
        0 * hours, hours, hours, group_of(1, hour), location, spread, spread, load.to_numpy()
    )
    spring = rows.take(np.asarray((time >= "2012-09-01") & (time < "2012-11-15")))
    year = rows.take(np.asarray(time >= "2012-11-15"))
    conformal = Conformal.fit(
        spring.actual, spring.location, spring.below, spring.above, spring.group
    )
    table, _ = adaptive_tables(conformal, year, NEXT_DAY, lowest=0.0)
    fixed = conformal.table(year.location, year.below, above=year.above, group=year.group)
    held = [
        pd.Series(inside(t, year))
        .groupby(np.asarray(hour)[np.asarray(time >= "2012-11-15")])
        .mean()
        for t in (table, fixed)
    ]
    assert held[0].mean() == pytest.approx(0.8, abs=0.01)
    assert held[0].between(0.75, 0.85).all() and not held[1].between(0.75, 0.85).all()
    assert pinball(table, year) < 0.97 * pinball(fixed, year)
