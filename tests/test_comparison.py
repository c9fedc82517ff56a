"""Cuts, skill, peaks and the test of Diebold and Mariano: against slow computations, and in known cases."""

import backtest_data
import numpy as np
import pandas as pd
import pytest
from backtest_data import EVENING, MELBOURNE
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from smartgrid_ai.evaluate import circumstances, leaderboard
from smartgrid_ai.evaluate.comparison import (
    DIMENSIONS,
    common_rows,
    coverage_table,
    daily_peaks,
    grouped_metrics,
    peak_metrics,
    score_rows,
    skill,
    tidy_forecasts,
)
from smartgrid_ai.evaluate.files import read_forecasts
from smartgrid_ai.evaluate.metrics import forecast_metrics
from smartgrid_ai.evaluate.significance import compare_models, diebold_mariano
from smartgrid_ai.readings import DataError, Place

FIGURES = ["wape", "mae", "rmse", "pinball", "cover80", "cover95", "level", "hours", "missing"]


@pytest.fixture(scope="module")
def table():
    return backtest_data.forecasts()


@pytest.fixture(scope="module")
def scored(table):
    return score_rows(table, MELBOURNE)


@pytest.fixture(scope="module")
def day_ahead(scored):
    return scored[scored["task"] == "d1"]


@pytest.mark.parametrize("by", ["horizon", "hour", "day_type", "season", "meter_id"])
def test_each_cut_is_what_forecast_metrics_says_of_it(day_ahead, by):
    quick = grouped_metrics(day_ahead, MELBOURNE, by)
    for _, row in quick.sample(3, random_state=0).iterrows():
        part = day_ahead[(day_ahead["model"] == row["model"]) & (day_ahead[by] == row[by])]
        raw = part.drop(columns=["mae", "mape", "pinball", "cover80", "cover95"])
        slow = forecast_metrics(raw.astype({"model": "str", "meter_id": "str"})).iloc[0]
        np.testing.assert_allclose(
            row[FIGURES].to_numpy(dtype=float), slow[FIGURES].to_numpy(dtype=float), rtol=1e-9
        )


def test_the_mape_of_all_hours_is_that_of_forecast_metrics(table):
    part = table[table["task"] == "d1"]
    quick = grouped_metrics(part, MELBOURNE).set_index("model")["mape"]
    slow = forecast_metrics(part).set_index("model")["mape"]
    np.testing.assert_allclose(quick, slow.reindex(quick.index), rtol=1e-9)


def test_hours_of_a_cut_add_up_and_their_errors_average_to_the_whole(scored):
    whole = grouped_metrics(scored, MELBOURNE).set_index(["task", "model"])
    for by in DIMENSIONS:
        cut = grouped_metrics(scored, MELBOURNE, by)
        cut["sum"] = cut["mae"] * cut["hours"]
        total = cut.groupby(["task", "model"])[["hours", "sum"]].sum().reindex(whole.index)
        assert (total["hours"] == whole["hours"]).all()
        np.testing.assert_allclose(total["sum"] / total["hours"], whole["mae"], rtol=1e-9)


def test_old_tables_of_the_next_hour_get_task_and_issue(table):
    old = table[table["task"] == "h1"].drop(columns=["task", "issued"])
    tidy = tidy_forecasts(old)
    assert (tidy["task"] == "h1").all() and (tidy["issued"] == tidy["timestamp"]).all()
    with pytest.raises(DataError, match="need the column 'task'"):
        tidy_forecasts(table.drop(columns="task"))


def test_twice_is_refused_but_tasks_do_not_disturb_each_other(table):
    first_hours = table[table["horizon"] == 1]
    assert first_hours.duplicated(["model", "meter_id", "timestamp"]).any()
    tidy_forecasts(first_hours)
    with pytest.raises(DataError, match="more than once"):
        tidy_forecasts(pd.concat([table, table.tail(1)]))
    with pytest.raises(DataError, match="lack the column 'actual'"):
        tidy_forecasts(table.drop(columns="actual"))
    with pytest.raises(DataError, match="not one row"):
        tidy_forecasts(table.head(0))


def test_what_was_not_forecast_is_counted_and_not_compared(table):
    gone = table["prediction"].where((table["model"] != "moe") | (table.index % 10 > 0))
    scored = score_rows(table.assign(prediction=gone), MELBOURNE)
    metrics = grouped_metrics(scored, MELBOURNE).set_index(["task", "model"])
    assert metrics["missing"].sum() == gone.isna().sum()
    common = grouped_metrics(common_rows(scored), MELBOURNE)
    assert common.groupby("task")["hours"].nunique().eq(1).all() and common["missing"].sum() == 0


def test_unobserved_hours_are_not_scored(table):
    with pytest.raises(DataError, match="nothing to score"):
        score_rows(table.assign(actual=np.nan), MELBOURNE)
    half = score_rows(table.assign(actual=table["actual"].where(table.index % 2 == 0)), MELBOURNE)
    assert len(half) == len(table) / 2


def test_days_are_named_by_the_place(table):
    hours = pd.date_range("2024-12-24", periods=24 * 10, freq="h", tz="UTC")
    rows = pd.DataFrame({"timestamp": hours, "model": "moe", "meter_id": "a", "horizon": 1})
    rows = rows.assign(prediction=1.0, actual=1.0)
    here = score_rows(rows, MELBOURNE).drop_duplicates("day").set_index("day")
    assert here["day_type"]["2024-12-25"] == "holiday" and here["season"].eq("summer").all()
    assert (
        here["day_type"]["2024-12-28"] == "weekend" and here["day_type"]["2024-12-30"] == "workday"
    )
    there = score_rows(rows, Place("Europe/Oslo"))
    assert set(there["day_type"]) == {"workday", "weekend"} and there["season"].eq("winter").all()


def test_temperature_bands_are_of_five_degrees_and_the_unknown_has_none(table):
    cold = np.where(table["actual"] > 2500, np.nan, -0.1)
    scored = score_rows(table.assign(temperature=cold), MELBOURNE)
    assert list(scored["temperature_band"].cat.categories) == ["-5 to 0"]
    metrics = grouped_metrics(scored, MELBOURNE, "temperature_band")
    assert metrics["hours"].sum() == (table["actual"] <= 2500).sum()
    with pytest.raises(DataError, match="cannot cut forecasts by 'temperature_band'"):
        grouped_metrics(table.drop(columns="temperature"), MELBOURNE, "temperature_band")


def test_skill_is_measured_against_the_same_cut(scored):
    metrics = grouped_metrics(scored, MELBOURNE, ("season", "hour"))
    metrics["skill"] = skill(metrics)
    assert (metrics.loc[metrics["model"] == "seasonal_naive", "skill"] == 0).all()
    keys = ["task", "season", "hour"]
    row = metrics[metrics["model"] == "moe"].iloc[30]
    own = metrics[(metrics[keys] == row[keys]).all(axis=1)].set_index("model")["mae"]
    assert row["skill"] == pytest.approx(1 - own["moe"] / own["seasonal_naive"])
    with pytest.raises(DataError, match="no forecasts of 'lightgbm'"):
        skill(metrics, "lightgbm")


def test_coverage_finds_the_hours_in_which_an_interval_is_wrong(day_ahead):
    held = coverage_table(day_ahead, MELBOURNE, "hour")
    base = held[held["model"] == "baseline"]
    assert (base["cover80"] - 80).abs().max() < 9 and (base["cover95"] - 95).abs().max() < 6
    far = day_ahead.assign(cover80=np.where(day_ahead["hour"] == 3, 100.0, day_ahead["cover80"]))
    text = " ".join(circumstances.coverage_findings(far[far["model"] == "moe"], MELBOURNE))
    assert "the hour from 03:00 (100.0 %)" in text
    with pytest.raises(DataError, match="no quantiles"):
        bare = [name for name in day_ahead if not name.startswith(("q0.", "cover"))]
        coverage_table(day_ahead[bare], MELBOURNE)


def peak_table(guess, load):
    hours = pd.date_range("2024-06-30 14:00", periods=len(load), freq="h", tz="UTC")
    table = pd.DataFrame({"timestamp": hours, "actual": load, "prediction": guess, "model": "moe"})
    return table.assign(meter_id="a", horizon=1)


def test_a_peak_that_is_late_and_low_is_said_to_be():
    load = np.tile(np.r_[np.arange(12.0), np.arange(12.0)[::-1]], 5) + 10
    load[18::24] = 40
    peaks = daily_peaks(peak_table(0.9 * np.roll(load, 2), load), MELBOURNE)
    assert len(peaks) == 5 and (peaks["timing"] == 2).all()
    np.testing.assert_allclose(peaks["error"], -10)
    summary = peak_metrics(peaks).iloc[0]
    assert summary[["size", "bias", "timing", "hit"]].tolist() == pytest.approx([10, -10, 2, 0])


def test_days_that_are_not_whole_have_no_peak_but_short_days_of_spring_do():
    load = np.arange(24.0 * 4)
    assert len(daily_peaks(peak_table(load, load)[:-2], MELBOURNE)) == 3
    spring = pd.date_range("2024-10-05 14:00", periods=23, freq="h", tz="UTC")
    table = peak_table(load[:23], load[:23]).assign(timestamp=spring)
    assert daily_peaks(table, MELBOURNE)["timing"].tolist() == [0]


def test_issues_that_overlap_answer_each_for_itself():
    load = np.random.default_rng(0).uniform(1, 2, 72)
    first = peak_table(load, load).assign(task="w1", horizon=np.arange(72) + 1)
    later = first[24:].assign(horizon=np.arange(48) + 1, prediction=0.5)
    peaks = daily_peaks(pd.concat([first, later]), MELBOURNE)
    assert len(peaks) == 5 and (peaks["error"] == 0).sum() == 3


def slow_test(errors_a, errors_b, lag):
    "The same by other means: the matrix of weighted autocovariances, and the textbook's correction."
    loss = np.abs(errors_a) - np.abs(errors_b)
    count = len(loss)
    gap = np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
    weight = np.clip(1 - gap / (lag + 1), 0, None)
    centred = loss - loss.mean()
    variance = centred @ weight @ centred / count**2
    steps = lag + 1
    shrink = np.sqrt((count + 1 - 2 * steps + steps * (steps - 1) / count) / count)
    statistic = shrink * loss.mean() / np.sqrt(variance)
    return statistic, 2 * stats.t(count - 1).cdf(-abs(statistic))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(60, 300),
    horizon=st.sampled_from([1, 3, 24]),
    spacing=st.sampled_from([1, 6, 24]),
    scale=st.floats(0.2, 5),
)
def test_the_test_agrees_with_a_slow_one_and_is_antisymmetric(seed, count, horizon, spacing, scale):
    random = np.random.default_rng(seed)
    first, second = random.normal(size=(2, count)).cumsum(axis=1) * 0.1 + random.normal(
        size=(2, count)
    )
    second = scale * second
    found = diebold_mariano(first, second, horizon, spacing)
    other = diebold_mariano(second, first, horizon, spacing)
    assert found.lag >= -(-horizon // spacing) - 1
    statistic, p = slow_test(first, second, found.lag)
    assert found.statistic == pytest.approx(statistic) and found.p == pytest.approx(p, abs=1e-12)
    assert (other.statistic, other.difference) == pytest.approx(
        (-found.statistic, -found.difference)
    )
    assert other.p == pytest.approx(found.p) and 0 <= found.p <= 1


@pytest.mark.parametrize("horizon", [1, 4])
def test_p_is_nearly_uniform_when_both_are_equal(horizon):
    random, found = np.random.default_rng(1), []
    for _ in range(1500):
        shocks = random.normal(size=(2, 365 + horizon))
        errors = sum(shocks[:, step : step + 365] for step in range(horizon))
        found.append(diebold_mariano(*errors, horizon=horizon).p)
    for share in (0.05, 0.2, 0.5, 0.8):
        assert np.mean(np.array(found) < share) == pytest.approx(share, abs=0.04)


def test_a_clear_winner_is_found_and_named_by_the_sign():
    errors = np.random.default_rng(2).normal(size=(2, 365))
    found = diebold_mariano(errors[0], 2 * errors[1])
    assert found.p < 1e-10 and found.statistic < 0 and found.difference < 0


def test_ties_certainties_and_too_little_are_said_plainly():
    errors = np.random.default_rng(3).normal(size=100)
    tie = diebold_mariano(errors, -errors)
    assert (tie.statistic, tie.p, tie.difference) == (0.0, 1.0, 0.0)
    sure = diebold_mariano(np.ones(100), np.full(100, 2.0))
    assert (sure.statistic, sure.p) == (-np.inf, 0.0)
    assert np.isnan(diebold_mariano(errors[:5], 2 * errors[:5]).p)
    assert np.isnan(diebold_mariano(errors, 2 * errors, horizon=90).p)
    assert np.isnan(diebold_mariano(np.full(9, np.nan), np.ones(9)).p)
    with pytest.raises(DataError, match="one shape"):
        diebold_mariano(errors, errors[1:])


def test_many_meters_of_one_weather_are_one_witness():
    random = np.random.default_rng(4)
    weather = random.normal(size=(2, 200, 1))
    first, second = np.repeat(weather, 50, axis=2)
    once = diebold_mariano(*weather[..., 0])
    many = diebold_mariano(first, second)
    assert many.p == pytest.approx(once.p) and many.count == 200
    first[0, 0] = np.nan
    assert diebold_mariano(first, second).p == pytest.approx(once.p)


def test_issues_are_the_observations_of_a_table(table):
    for task, count in (("d1", 60), ("h1", 61)):
        found = compare_models(table[table["task"] == task], "moe", "seasonal_naive")
        assert found.count == count and found.p < 0.001 and found.difference < 0
    with pytest.raises(DataError, match="one task at a time"):
        compare_models(table, "moe", "baseline")
    with pytest.raises(DataError, match="share no observed hour"):
        compare_models(table[table["task"] == "d1"], "moe", "lightgbm")


def test_overlapping_issues_lengthen_the_lag():
    parts = []
    for start in range(0, 24 * 100, 6):
        hours = pd.date_range("2024-01-01", periods=24, freq="h", tz="UTC") + pd.Timedelta(
            hours=start
        )
        parts.append(pd.DataFrame({"timestamp": hours, "horizon": range(1, 25)}))
    frame = pd.concat(parts).assign(task="d1", meter_id="a", actual=0.0)
    random = np.random.default_rng(0)
    table = pd.concat(
        frame.assign(model=model, prediction=random.normal(size=len(frame))) for model in "ab"
    )
    found = compare_models(table, "a", "b")
    assert found.count == 400 and found.lag >= 3


def test_standings_name_subject_rival_and_best_other(day_ahead):
    held = leaderboard.standing(day_ahead, MELBOURNE)
    assert (held.subject, held.rival, held.reference) == ("moe", "baseline", "seasonal_naive")
    assert held.table["wape"].is_monotonic_increasing and set(held.tests) == {
        "baseline",
        "seasonal_naive",
    }
    alone = day_ahead[day_ahead["model"] == "moe"]
    with pytest.raises(DataError, match="no baseline"):
        leaderboard.standing(alone, MELBOURNE)


def renamed(table, names):
    return tidy_forecasts(table.assign(model=table["model"].astype("str").replace(names)))


def test_a_loss_is_called_a_loss_and_a_tie_a_tie(table):
    part = table[
        (table["task"] == "d1")
        & ~table["timestamp"].dt.tz_convert(MELBOURNE.timezone).dt.hour.isin(EVENING)
    ]
    won = leaderboard.standing_sentence(
        leaderboard.standing(score_rows(part, MELBOURNE), MELBOURNE)
    )
    assert "% less** the best baseline" not in won and "% less than** the best baseline" in won
    swapped = score_rows(renamed(part, {"moe": "baseline", "baseline": "moe"}), MELBOURNE)
    held = leaderboard.standing(swapped, MELBOURNE)
    assert "does not beat the baseline" in leaderboard.standing_sentence(held)
    assert leaderboard.backtest_verdict([held]).tones["day ahead, WAPE"] == "bad"
    same = part.assign(prediction=np.where(part["model"] == "moe", np.nan, part["prediction"]))
    twin = part[part["model"] == "baseline"].assign(model="moe")
    same = pd.concat([same[same["model"] != "moe"], twin])
    tie = leaderboard.standing(score_rows(same, MELBOURNE), MELBOURNE)
    text = leaderboard.standing_sentence(tie)
    assert "level with the best baseline" in text and "cannot be told apart" in text


def test_losing_places_are_the_planted_ones(day_ahead):
    places = circumstances.losing_places(day_ahead, MELBOURNE, "moe", "baseline").set_index("cut")
    assert places.loc["hour", "lost"] == len(EVENING) and places.loc["hour", "worst"] in EVENING
    text = " ".join(circumstances.losing_findings(places.reset_index(), "moe", "baseline"))
    assert "**4 of 24 hours of the day**" in text


def test_the_worst_week_is_the_planted_one(day_ahead):
    own = day_ahead[day_ahead["model"] == "moe"]
    bad = own["day"].between("2024-07-15", "2024-07-21") & (own["meter_id"] == "m1")
    own = own.assign(mae=own["mae"].where(~bad, 10 * own["mae"]))
    (best, _), (worst, rows) = circumstances.telling_weeks(own)
    assert (best, worst) == ("best week", "worst week") and len(rows) == 168
    assert set(rows["meter_id"]) == {"m1"} and rows["day"].min() == pd.Timestamp("2024-07-15")


def test_files_in_other_units_clocks_and_formats_are_the_same_table(table, tmp_path):
    part = table[table["meter_id"] == "m0"].drop(columns=["gate_gru", "gate_tree"])
    known = read_forecasts(_written(part, tmp_path / "w.parquet"))
    power = ["prediction", "actual", *backtest_data.WIDTHS]
    kilo = part.assign(**{name: part[name] / 1000 for name in power})
    local = kilo.assign(
        timestamp=kilo["timestamp"].dt.tz_convert(MELBOURNE.timezone).dt.tz_localize(None)
    ).drop(columns="issued")
    again = read_forecasts(_written(local, tmp_path / "k.csv"), "kW", MELBOURNE, "local")
    pd.testing.assert_frame_equal(again[list(known)], known, check_dtype=False)
    with pytest.raises(DataError, match="no forecasts at"):
        read_forecasts(tmp_path / "none.parquet")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="cannot be read as a table"):
        read_forecasts(tmp_path / "torn.parquet")


def _written(table, path):
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path)
    return path
