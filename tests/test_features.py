"""The 31 features: definitions against an independent hand, and no look into the future."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loads import readings

from smartgrid_ai.features import COVARIATE_NAMES, FEATURE_NAMES, WARM_UP, make_features
from smartgrid_ai.readings import DataError, Place

PLACES = [
    Place(),
    Place("Europe/London", "GB", "ENG"),
    Place("Australia/Melbourne", "AU", "VIC"),
    Place("Asia/Kathmandu"),
]


def by_hand(load: np.ndarray, t: int) -> dict[str, float]:
    "Definitions of spec, one row at a time, by plain numpy over a whole history without gaps."
    day, week = load[t - 24 : t], load[t - 168 : t]
    slope = np.polyfit(np.arange(168), week, 1)[0]
    centred = week - week.mean()
    return {
        "rolling_mean_24": day.mean(), "rolling_mean_168": week.mean(),
        "rolling_std_24": day.std(ddof=1), "rolling_std_168": week.std(ddof=1),
        "rolling_min_24": day.min(), "rolling_min_168": week.min(),
        "rolling_max_24": day.max(), "rolling_max_168": week.max(),
        "diff_1": load[t - 1] - load[t - 2], "diff_24": load[t - 1] - load[t - 25],
        "diff_168": load[t - 1] - load[t - 169], "diff_1_prev_day": load[t - 24] - load[t - 25],
        **{f"lag_{k}": load[t - k] for k in (1, 7, 24, 48, 168, 365)},
        "trend": slope, "volatility": day.std(ddof=1) / day.mean(),
        "rate_of_change": np.clip((load[t - 1] - load[t - 25]) / abs(load[t - 25]), -10, 10),
        "cyclicity_index": (centred[24:] * centred[:-24]).sum() / (centred**2).sum(),
    }  # fmt: skip


def test_load_features_follow_their_definitions():
    table = readings(500)
    features, load = make_features(table), table["consumption"].to_numpy()
    for t in (365, 400, 499):
        for name, value in by_hand(load, t).items():
            assert features[name].iloc[t] == pytest.approx(value, rel=1e-9, abs=1e-9), name


def test_order_is_frozen():
    expected = (
        "hour day_of_week month quarter is_weekend is_holiday season day_of_year rolling_mean_24 rolling_mean_168 "
        "rolling_std_24 rolling_std_168 rolling_min_24 rolling_min_168 rolling_max_24 rolling_max_168 diff_1 diff_24 "
        "diff_168 diff_1_prev_day lag_1 lag_7 lag_24 lag_48 lag_168 lag_365 prev_day_mean trend volatility "
        "rate_of_change cyclicity_index"
    )
    assert " ".join(FEATURE_NAMES) == expected


@given(
    seed=st.integers(0, 2**32 - 1),
    spoilt=st.integers(1, 599),
    gaps=st.sampled_from([0.0, 0.05, 0.5]),
    meters=st.integers(1, 3),
    place=st.sampled_from(PLACES),
    poison=st.sampled_from([np.nan, 0.0, 1e12, -5.0]),
    weather=st.sampled_from(["observed", "none"]),
)
@settings(max_examples=60, deadline=None)
def test_nothing_from_the_hour_or_later_changes_a_bit(
    seed, spoilt, gaps, meters, place, poison, weather
):
    clean = readings(600, meters, gaps, start="2024-03-10", seed=seed)
    clean["voltage"] = 230.0 + np.arange(len(clean)) % 7
    dirty = clean.copy()
    late = np.tile(np.arange(600) >= spoilt, meters)
    later = np.tile(np.arange(600) > spoilt, meters)
    dirty.loc[late, ["consumption", "voltage"]] = poison
    dirty.loc[late if weather == "none" else later, "temperature"] = poison
    before, after = (
        make_features(table, place, weather).drop(columns="target") for table in (clean, dirty)
    )
    kept = np.tile(np.arange(600) <= spoilt, meters)
    pd.testing.assert_frame_equal(before[kept], after[kept], check_exact=True)


@given(seed=st.integers(0, 1000), cut=st.integers(400, 599))
@settings(max_examples=20, deadline=None)
def test_a_row_is_the_same_alone_and_in_a_batch(seed, cut):
    table = readings(600, gaps=0.05, seed=seed)
    batch = make_features(table).drop(columns="target")
    alone = make_features(table.iloc[:cut], ahead=1).drop(columns="target")
    weather = [
        name
        for name in alone
        if name in COVARIATE_NAMES and name.startswith(("temperature", "h", "cooling"))
    ]
    same = [name for name in alone if name not in weather]
    pd.testing.assert_series_equal(alone[same].iloc[cut], batch[same].iloc[cut], check_names=False)


def test_deleted_future_rows_change_nothing():
    table = readings(600)
    table.loc[500:, "consumption"] = np.nan
    whole = make_features(table).iloc[:501]
    cut = make_features(table.iloc[:501])
    pd.testing.assert_frame_equal(whole, cut)


def test_warm_up_rows_are_flagged_and_counted():
    features = make_features(readings(500))
    assert features["warm_up"].sum() == WARM_UP
    assert features["missing"].iloc[0] == 23
    assert (features["missing"].iloc[WARM_UP:] == 0).all()


def test_a_window_needs_half_of_its_hours():
    table = readings(400)
    table.loc[300:312, "consumption"] = np.nan
    features = make_features(table)
    assert np.isfinite(features["rolling_mean_24"].iloc[312])
    assert np.isnan(features["rolling_mean_24"].iloc[313])
    assert np.isfinite(features["rolling_mean_168"].iloc[313])


def test_zero_and_constant_loads_have_the_stated_values():
    table = readings(500)
    table["consumption"] = 0.0
    last = make_features(table).iloc[-1]
    assert (last[["volatility", "rate_of_change", "cyclicity_index", "trend"]] == 0).all()
    table["consumption"] = 0.1
    last = make_features(table).iloc[-1]
    assert last["rolling_std_168"] == 0 and last["cyclicity_index"] == 0


def test_previous_day_is_the_civil_one_on_both_daylight_saving_nights():
    place = Place("Australia/Melbourne")
    for night in ("2014-04-06", "2014-10-05"):
        table = readings(400, start=str(pd.Timestamp(night) - pd.Timedelta(days=10))[:10])
        features = make_features(table, place)
        civil = table["timestamp"].dt.tz_convert(place.timezone).dt.date
        day = pd.Timestamp(night).date()
        after = np.flatnonzero(civil == day + pd.Timedelta(days=1))
        mean = table["consumption"][civil == day].mean()
        np.testing.assert_allclose(features["prev_day_mean"].iloc[after], mean)


def test_seasons_and_holidays_follow_the_place():
    table = readings(24 * 3, start="2014-12-24")
    north, south = (make_features(table, place) for place in (PLACES[1], PLACES[2]))
    assert set(north["season"]) == {0} and set(south["season"]) == {2}
    london = north.set_index("timestamp")["is_holiday"]
    assert london["2014-12-25 12:00"] == 1 and london["2014-12-24 12:00"] == 0
    assert north.set_index("timestamp")["holiday_tomorrow"]["2014-12-24 12:00"] == 1


def test_a_short_series_is_legal():
    features = make_features(readings(3), ahead=1)
    assert len(features) == 4 and features["lag_1"].notna().sum() == 3


def test_weather_mode_is_checked():
    with pytest.raises(DataError, match="unknown weather mode 'guess'"):
        make_features(readings(30), weather="guess")


def test_without_weather_no_weather_column_remains():
    names = make_features(readings(30), weather="none").columns
    assert not [name for name in names if name.startswith(("temperature", "heating", "cooling"))]
