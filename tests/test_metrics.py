"""Properties of the metrics, and agreement with the protocol's own scoring script."""

import importlib.util

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from smartgrid_ai.evaluate.metrics import (
    common_hours,
    coverage,
    forecast_metrics,
    mae,
    mape,
    mase,
    pinball,
    rmse,
    wape,
)
from smartgrid_ai.readings import DataError

watts = st.floats(1.0, 5000.0)
pairs = st.integers(1, 60).flatmap(
    lambda n: st.tuples(arrays(float, n, elements=watts), arrays(float, n, elements=watts))
)
quick = settings(max_examples=60, deadline=None)


@quick
@given(pairs, st.floats(0.01, 1000))
def test_relative_errors_do_not_depend_on_the_unit(pair, factor):
    actual, prediction = pair
    for metric in (mape, wape):
        np.testing.assert_allclose(
            metric(actual, prediction), metric(factor * actual, factor * prediction), rtol=1e-6
        )
    np.testing.assert_allclose(
        factor * mae(actual, prediction), mae(factor * actual, factor * prediction)
    )


@quick
@given(pairs)
def test_a_perfect_forecast_has_no_error_and_the_root_mean_square_is_the_larger(pair):
    actual, prediction = pair
    assert mae(actual, actual) == rmse(actual, actual) == wape(actual, actual) == 0
    assert rmse(actual, prediction) >= mae(actual, prediction) * (1 - 1e-12)


@quick
@given(pairs, st.data())
def test_hours_without_an_observation_change_nothing(pair, data):
    actual, prediction = pair
    where = data.draw(st.integers(0, len(actual)))
    holed, other = np.insert(actual, where, np.nan), np.insert(prediction, where, data.draw(watts))
    for metric in (mae, rmse, wape, mape):
        assert metric(holed, other) == pytest.approx(metric(actual, prediction))


@quick
@given(pairs)
def test_the_pinball_loss_at_the_median_is_half_the_absolute_error(pair):
    actual, prediction = pair
    assert pinball(actual, prediction, 0.5) == pytest.approx(mae(actual, prediction) / 2)


@quick
@given(pairs, st.floats(0, 1000), st.floats(0, 1000))
def test_a_wider_interval_never_covers_less(pair, narrow, extra):
    actual, middle = pair
    wide = narrow + extra
    assert coverage(actual, middle - wide, middle + wide) >= coverage(
        actual, middle - narrow, middle + narrow
    )


def test_a_forecast_that_is_missing_is_not_left_out_in_silence():
    assert np.isnan(mae([1.0, 2.0], [1.0, np.nan]))
    assert np.isnan(coverage([1.0, 2.0], [0.0, np.nan], [3.0, 3.0]))


def test_nothing_observed_and_unequal_lengths_are_errors():
    with pytest.raises(DataError, match="nothing to score"):
        mae([np.nan], [1.0])
    with pytest.raises(DataError, match="equal length"):
        rmse([1.0, 2.0], [1.0])
    with pytest.raises(DataError, match="2 levels"):
        pinball([1.0, 2.0], [1.0, 2.0], [0.1, 0.9])


def test_an_hour_near_zero_is_not_divided_by():
    assert mape([1000.0, 1000.0, 1.0], [1000.0, 1000.0, 500.0]) == 0
    assert mape([1000.0, 40.0], [1000.0, 80.0], level=1000) == 0
    assert np.isnan(mape([0.0, 0.0], [1.0, 1.0]))


def test_a_history_that_never_changes_gives_no_scale():
    assert np.isnan(mase([1.0], [2.0], np.ones(400)))
    assert np.isnan(mase([1.0], [2.0], np.arange(100.0)))


def tidy(seed=0, meters=3, hours=400):
    "Readings of several meters with gaps, and forecasts with quantiles for their second half."
    random = np.random.default_rng(seed)
    time = pd.date_range("2024-01-01", periods=2 * hours, freq="h", tz="UTC").as_unit("us")
    readings = []
    for meter in range(meters):
        load = 300 * (1 + meter) * random.lognormal(0, 0.8, len(time))
        load[random.random(len(time)) < 0.03] = np.nan
        readings.append(
            pd.DataFrame({"meter_id": f"m{meter}", "timestamp": time, "consumption": load})
        )
    readings = pd.concat(readings, ignore_index=True)
    test = readings[readings.timestamp >= time[hours]].rename(columns={"consumption": "actual"})
    tables = []
    for model, spread in (("sharp", 0.1), ("blunt", 0.6)):
        middle = test.actual.fillna(500) * random.lognormal(0, spread, len(test))
        bands = {
            f"q{q}": middle * np.exp(spread * z)
            for q, z in ((0.025, -1.96), (0.1, -1.28), (0.5, 0), (0.9, 1.28), (0.975, 1.96))
        }
        tables.append(test.assign(model=model, horizon=1, prediction=middle, **bands))
    return readings[readings.timestamp < time[hours]], pd.concat(tables, ignore_index=True)


def test_the_table_agrees_with_the_scoring_script(shared_data):
    script = shared_data.parent / "score" / "score_load.py"
    if not script.exists():
        pytest.skip(f"{script.name} is not beside the shared data")
    spec = importlib.util.spec_from_file_location("score_load", script)
    score_load = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(score_load)
    training, forecasts = tidy()
    ours = forecast_metrics(forecasts, training).set_index("model")
    level = training.groupby("meter_id").consumption.mean()
    step = (training.consumption - training.groupby("meter_id").consumption.shift(168)).abs()
    scale = step.groupby(training.meter_id).mean()
    for model, rows in forecasts.dropna(subset=["actual"]).groupby("model"):
        theirs, row = score_load.metrics(rows, level, scale), ours.loc[model]
        same = {
            "MAPE": "mape",
            "WAPE": "wape",
            "MASE": "mase",
            "cover80": "cover80",
            "cover95": "cover95",
            "crossed%": "crossed",
            "hours": "hours",
        }
        for name, column in same.items():
            assert row[column] == pytest.approx(theirs[name], rel=1e-9), name
        assert 100 * row.rmse / row.level == pytest.approx(theirs["RMSE%"], rel=1e-9)
        assert 100 * row.pinball / row.level == pytest.approx(theirs["pinball%"], rel=1e-9)


def test_the_table_is_sorted_counts_what_is_missing_and_refuses_doubles():
    training, forecasts = tidy()
    forecasts.loc[forecasts.index[:7], "prediction"] = np.nan
    observed = forecasts.actual.notna()
    table = forecast_metrics(forecasts, training)
    assert table["wape"].is_monotonic_increasing
    assert table.set_index("model")["missing"]["sharp"] == observed[:7].sum()
    assert table["missing"].sum() + table["hours"].sum() == observed.sum()
    with pytest.raises(DataError, match="more than once"):
        forecast_metrics(pd.concat([forecasts, forecasts.iloc[[9]]]))
    with pytest.raises(DataError, match="'actual'"):
        forecast_metrics(forecasts.drop(columns="actual"))


def test_one_row_per_group_when_asked():
    training, forecasts = tidy()
    table = forecast_metrics(forecasts, training, by=["model", "meter_id"])
    assert len(table) == 2 * 3
    mean = table.groupby("model")["mase"].mean()
    np.testing.assert_allclose(
        mean, forecast_metrics(forecasts, training).set_index("model")["mase"][mean.index]
    )


def test_models_are_compared_on_the_hours_that_all_of_them_forecast():
    _, forecasts = tidy()
    forecasts.loc[forecasts.index[:5], "prediction"] = np.nan
    kept = common_hours(forecasts)
    assert kept.groupby("model").size().nunique() == 1
    assert kept["prediction"].notna().all() and kept["actual"].notna().all()
