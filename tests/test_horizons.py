"""Days and weeks ahead: saved as fitted, blind to the future, at ease with new meters, gaps and clock changes."""

import numpy as np
import pandas as pd
import pytest
from loads import readings

from smartgrid_ai.errors import DataError, ModelError
from smartgrid_ai.evaluate.backtest import backtest, refit_splits
from smartgrid_ai.evaluate.schedule import scheduled
from smartgrid_ai.forecast.forecaster import Forecaster, fit_path, load_forecaster
from smartgrid_ai.forecast.paths import new_path
from smartgrid_ai.forecast.wanted import next_days
from smartgrid_ai.readings import Place
from smartgrid_ai.windows import chronological_split

PLACE = Place("Europe/Berlin", "DE", "BE")
QUICK = {"epochs": 1, "batches": 5, "trees": 3, "experts": ("dense",)}
HORIZONS = (1, 24, 168)
AHEAD = (24, 168)
NUMBERS = ["prediction", "q0.025", "q0.1", "q0.5", "q0.9", "q0.975", "confidence"]
HOUR, DAY = pd.Timedelta(hours=1), pd.Timedelta(days=1)


@pytest.fixture(scope="module")
def load():
    return readings(2600, meters=2, gaps=0.01)


@pytest.fixture(scope="module")
def split(load):
    return chronological_split(load, PLACE)


@pytest.fixture(scope="module")
def fitted(load, split, few_rows):
    "A mixture of one expert and a forest baseline for each horizon."
    return {
        (family, horizon): Forecaster(family, PLACE, horizon=horizon, **QUICK).fit(load, split)
        for horizon in HORIZONS
        for family in ("moe", "baseline")
    }


def finite(forecast):
    return np.isfinite(forecast[NUMBERS].to_numpy()).all()


@pytest.mark.parametrize("family", ["moe", "baseline"])
@pytest.mark.parametrize("horizon", AHEAD)
def test_each_meter_gets_all_hours_after_its_last_load(load, fitted, family, horizon):
    forecast = fitted[family, horizon].predict(load)
    first = load["timestamp"].max() + HOUR
    assert (forecast["issued"] == first).all() and finite(forecast)
    for _, part in forecast.groupby("meter_id"):
        assert list(part["horizon"]) == list(range(1, horizon + 1))
        assert list(part["timestamp"]) == [first + HOUR * k for k in range(horizon)]
    assert (np.diff(forecast.filter(like="q0.").to_numpy(), axis=1) >= 0).all()
    assert forecast["confidence"].between(0, 1).all()


@pytest.mark.parametrize("family", ["moe", "baseline"])
@pytest.mark.parametrize("horizon", HORIZONS)
def test_saved_and_loaded_it_says_the_same(load, fitted, family, horizon, tmp_path):
    fitted[family, horizon].save(tmp_path)
    again = load_forecaster(tmp_path)
    pd.testing.assert_frame_equal(again.predict(load), fitted[family, horizon].predict(load))
    assert again.horizon == horizon and again.models == fitted[family, horizon].models
    assert again.parameters == fitted[family, horizon].parameters


@pytest.mark.parametrize("family", ["moe", "baseline"])
@pytest.mark.parametrize("horizon", AHEAD)
def test_a_forecast_from_a_start_knows_no_later_load(load, fitted, family, horizon):
    start = pd.Timestamp("2024-05-20 07:00", tz="UTC")
    later = load["timestamp"] >= start
    spoilt = load.assign(consumption=load["consumption"].mask(later, 1e7))
    end = start + HOUR * horizon
    spoilt.loc[spoilt["timestamp"] >= end, "temperature"] = -80.0
    plain, blind = (fitted[family, horizon].predict(t, start=start) for t in (load, spoilt))
    pd.testing.assert_frame_equal(plain, blind)
    assert (plain["issued"] == start).all() and len(plain) == 2 * horizon
    cut = load.assign(consumption=load["consumption"].mask(later))
    pd.testing.assert_frame_equal(fitted[family, horizon].predict(cut, start=start), plain)


@pytest.mark.parametrize("horizon", HORIZONS)
def test_weather_behind_the_last_load_is_taken_as_forecast(load, fitted, horizon):
    last = pd.Timestamp("2024-05-20 07:00", tz="UTC")
    known = load.assign(consumption=load["consumption"].mask(load["timestamp"] > last))
    hot = known.assign(temperature=known["temperature"].mask(known["timestamp"] > last, 35.0))
    bare = known[known["timestamp"] <= last].reset_index(drop=True)
    mild, warm, unknown = (fitted["moe", horizon].predict(t) for t in (known, hot, bare))
    assert (mild["issued"] == last + HOUR).all() and len(mild) == len(warm) == 2 * horizon
    pd.testing.assert_frame_equal(
        mild[["meter_id", "timestamp"]], unknown[["meter_id", "timestamp"]]
    )
    assert finite(unknown)
    for other in (warm, unknown):
        assert not np.allclose(mild["prediction"], other["prediction"], rtol=1e-4)


@pytest.mark.parametrize("family", ["moe", "baseline"])
@pytest.mark.parametrize("horizon", AHEAD)
def test_forecasts_follow_the_unit(load, fitted, family, horizon):
    stranger = load.assign(meter_id="new " + load["meter_id"])
    kilo = stranger.assign(consumption=stranger["consumption"] / 1000)
    plain, small = (fitted[family, horizon].predict(table) for table in (stranger, kilo))
    change = (small["prediction"] * 1000 / plain["prediction"] - 1).abs()
    # a rounding in the last bit may take a row to the other side of a tree's threshold
    assert change.quantile(0.8) < 1e-4 and change.max() < 0.05


@pytest.mark.parametrize(
    ("horizon", "ask", "error", "message"),
    [
        (24, lambda f, t: f.predict(t, end=t["timestamp"].max()), DataError, "takes no end"),
        (24, lambda f, t: f.predict(t, model="tree"), ModelError, "no model 'tree'.*dense, moe"),
        (168, lambda f, t: f.predict_rows(np.zeros((1, 31))), ModelError, "needs readings"),
        (24, lambda f, t: f.features(t), ModelError, "table of features"),
        (
            24,
            lambda f, t: f.predict(t, start=t["timestamp"].max() + 3 * DAY),
            DataError,
            "no hour to forecast.*readings allow",
        ),
        (24, lambda f, t: f.predict(t.iloc[:0]), DataError, "."),
    ],
)
def test_impossible_requests_are_explained(load, fitted, horizon, ask, error, message):
    with pytest.raises(error, match=message):
        ask(fitted["moe", horizon], load)


@pytest.mark.parametrize("horizon", [0, 12, 48, -1])
def test_other_horizons_are_refused(load, split, horizon):
    with pytest.raises(ModelError, match=f"horizon {horizon} h: choose 1 .*24 .*168"):
        Forecaster("moe", PLACE, horizon=horizon)
    with pytest.raises(ModelError, match="choose 1"):
        backtest(load, split, PLACE, ("persistence",), horizon=(1, horizon))


def test_bare_rows_are_no_matter_for_forests_of_days_nor_for_trees_alone(load, split, fitted):
    with pytest.raises(ModelError, match="give it readings"):
        fitted["baseline", 24].predict_rows(np.ones((1, 31)))
    trees = Forecaster("moe", PLACE, **QUICK | {"experts": ("tree",)}).fit(load, split)
    assert trees.models == ("tree", "moe") and finite(trees.predict(load))
    with pytest.raises(ModelError, match="give it readings"):
        trees.predict_rows(np.ones((1, 31)))


@pytest.mark.parametrize("family", ["moe", "baseline"])
@pytest.mark.parametrize("horizon", HORIZONS)
@pytest.mark.parametrize("days", [0, 1, 3, 7])
def test_a_new_meter_gets_sensible_forecasts(load, fitted, family, horizon, days):
    "Beside a known one; in the size of its own loads as soon as there are any."
    hours = 10 * 24
    new = readings(hours, level=3000.0, seed=7, start="2024-05-25").assign(meter_id="new")
    new["consumption"] = new["consumption"].where(new.index < 24 * days)
    forecast = fitted[family, horizon].predict(pd.concat([load, new], ignore_index=True))
    own = forecast[forecast["meter_id"] == "new"]
    assert len(own) == horizon and len(forecast) == 3 * horizon and finite(forecast)
    assert (own["issued"] == new["timestamp"].iloc[0] + DAY * days).all()
    level = 3000.0 if days else 750.0  # the usual size of the meters known
    assert own["prediction"].between(0.2 * level, 3 * level).all()
    known = fitted[family, horizon].predict(load)
    beside = forecast[forecast["meter_id"] != "new"].reset_index(drop=True)
    np.testing.assert_allclose(beside["prediction"], known["prediction"], rtol=1e-5)


@pytest.mark.parametrize("horizon", HORIZONS)
def test_a_meter_that_is_all_there_is_may_be_new(fitted, horizon):
    for hours in (1, 2, 30, 200):
        new = readings(hours, level=90.0, seed=5).assign(meter_id="new")
        answer = fitted["moe", horizon].predict(new)
        assert len(answer) == horizon and finite(answer)
        assert answer["prediction"].between(0, 400).all()


@pytest.mark.parametrize("horizon", HORIZONS)
def test_a_meter_that_never_fed_in_gets_no_negative_forecast(fitted, horizon):
    still = readings(400).assign(consumption=0.0)
    for family in ("moe", "baseline"):
        answer = fitted[family, horizon].predict(still)
        assert (answer[NUMBERS] >= 0).all().all() and finite(answer)


@pytest.mark.parametrize("horizon", AHEAD)
def test_meters_of_different_span_are_forecast_each_from_its_own_end(load, fitted, horizon):
    "And nothing of one meter leaks into another."
    spans = {"meter-0": 2600, "meter-1": 2000}
    parts = [load[load["meter_id"] == name].head(count) for name, count in spans.items()]
    both = pd.concat(parts, ignore_index=True)
    forecast = fitted["moe", horizon].predict(both)
    for part in parts:
        alone = fitted["moe", horizon].predict(part.reset_index(drop=True))
        own = forecast[forecast["meter_id"] == part["meter_id"].iloc[0]].reset_index(drop=True)
        assert (own["issued"] == part["timestamp"].max() + HOUR).all()
        pd.testing.assert_frame_equal(own, alone, rtol=1e-4)


def test_meters_of_different_span_are_backtested(load):
    parts = [
        load[load["meter_id"] == "meter-0"],
        load[load["meter_id"] == "meter-1"].iloc[900:2400],
    ]
    both = pd.concat(parts, ignore_index=True)
    split = chronological_split(both, PLACE)
    result = backtest(
        both, split, PLACE, ("seasonal_naive", "dense"), horizon=24, epochs=1, batches=3
    )
    ends = result.forecasts.groupby("meter_id")["timestamp"].max()
    assert (
        ends["meter-1"] < ends["meter-0"]
        and result.forecasts.groupby("model").size().nunique() == 1
    )
    assert np.isfinite(result.forecasts[NUMBERS].to_numpy()).all()


@pytest.mark.parametrize("horizon", HORIZONS)
def test_long_gaps_leave_no_hole_in_the_forecast(load, fitted, horizon):
    holes = load.copy()
    recent = holes["timestamp"] > holes["timestamp"].max() - 10 * DAY
    holes.loc[recent & (holes.index % 7 != 0), "consumption"] = np.nan
    for family in ("moe", "baseline"):
        answer = fitted[family, horizon].predict(holes)
        assert finite(answer) and len(answer) == 2 * horizon
        assert answer["prediction"].between(50, 4000).all()


@pytest.mark.parametrize("horizon", AHEAD)
def test_rows_missing_from_the_table_are_gaps(load, fitted, horizon):
    thin = load[load.index % 5 != 0].reset_index(drop=True)
    blank = load.assign(consumption=load["consumption"].where(load.index % 5 != 0))
    blank["temperature"] = blank["temperature"].where(load.index % 5 != 0)
    start = pd.Timestamp("2024-06-01", tz="UTC")
    plain, other = (fitted["moe", horizon].predict(table, start=start) for table in (thin, blank))
    pd.testing.assert_frame_equal(plain, other)


# What a backtest issues, and when


def issued(frame, part, horizon, hour=0):
    "Forecasts that count: issued, target, and hours ahead."
    wanted, counted = scheduled(frame, part, horizon, hour)
    assert len(wanted) == len(counted)
    stamps = frame.hours.timestamp.to_numpy()
    table = pd.DataFrame(
        {
            "meter": frame.hours.meter[wanted.target],
            "issued": pd.DatetimeIndex(stamps[wanted.issued], tz="UTC"),
            "target": pd.DatetimeIndex(stamps[wanted.target], tz="UTC"),
            "horizon": wanted.horizon,
        }
    )
    return table[counted]


class Hours:
    "As much of a frame as a schedule looks at."

    def __init__(self, table, place=PLACE):
        from smartgrid_ai.hours import make_hours

        self.hours = make_hours(table, place)


@pytest.mark.parametrize("start", ["2024-03-25", "2024-10-21"])
@pytest.mark.parametrize("hour", [0, 2, 3, 12])
def test_a_day_is_issued_once_at_its_civil_hour_also_when_clocks_change(start, hour):
    table = readings(14 * 24, meters=2, start=start)
    frame = Hours(table)
    local = frame.hours.timestamp.dt.tz_convert(PLACE.timezone)
    part = ((local >= f"{start}T00:00") & (local < local.max() - DAY)).to_numpy()
    made = issued(frame, part, 24, hour)
    assert not made.duplicated(["meter", "target"]).any()
    assert made["horizon"].between(1, 24).all()
    civil = made["issued"].dt.tz_convert(PLACE.timezone)
    for _, days in civil.groupby(made["meter"]):
        dates = pd.DatetimeIndex(days.unique())
        assert (np.diff(dates.normalize().tz_localize(None)) == DAY).all()
        off = dates[dates.hour != hour]
        assert len(off) <= 1 and (hour == 2 or len(off) == 0)  # the hour that clocks skip
    covered = made.groupby("meter").size() / made.groupby("meter")["target"].agg(
        lambda t: (t.max() - t.min()) / HOUR + 1
    )
    assert (covered > 0.99).all()  # of the day with 25 hours, one has no forecast


@pytest.mark.parametrize("meters", [1, 3])
def test_weeks_are_issued_weekly_and_cover_every_hour_once(meters):
    table = readings(1500, meters=meters)
    frame = Hours(table)
    part = (frame.hours.timestamp >= "2024-03-20").to_numpy()
    made = issued(frame, part, 168)
    assert not made.duplicated(["meter", "target"]).any()
    for _, own in made.groupby("meter"):
        stamps = own["issued"].drop_duplicates().dt.tz_convert(PLACE.timezone)
        assert (stamps.dt.hour == 0).all()
        assert (stamps.dt.tz_localize(None).diff().dropna() == 7 * DAY).all()
    assert made.groupby("meter").size().nunique() == 1
    assert part[np.flatnonzero(part)[:1]].all() and made["target"].min() >= pd.Timestamp(
        "2024-03-20", tz="UTC"
    )


def test_every_hour_is_a_forecast_of_its_own_one_hour_ahead():
    frame = Hours(readings(100, meters=2))
    part = np.arange(200) % 100 > 50
    made = issued(frame, part, 1)
    assert len(made) == part.sum() and (made["issued"] == made["target"]).all()
    assert (made["horizon"] == 1).all()


def test_horizons_side_by_side_are_what_they_are_alone(load, split):
    names = ("persistence", "seasonal_naive", "dense")
    both = backtest(load, split, PLACE, names, horizon=(1, 24), epochs=1, batches=3)
    assert list(both.metrics["task"].unique()) == ["h1", "d1"]
    assert set(both.forecasters) == {"moe", "moe_24"}
    assert {f.horizon for f in both.forecasters.values()} == {1, 24}
    day = backtest(load, split, PLACE, names, horizon=24, epochs=1, batches=3)
    own = both.forecasts[both.forecasts["task"] == "d1"].reset_index(drop=True)
    pd.testing.assert_frame_equal(own[list(day.forecasts)], day.forecasts, check_like=True)
    hours = (own["timestamp"] - own["issued"]) / HOUR + 1
    assert (hours == own["horizon"]).all() and own["horizon"].max() == 24
    assert not own.duplicated(["model", "meter_id", "timestamp"]).any()
    for forecaster in both.forecasters.values():
        assert set(forecaster.metrics) == {"dense"} or "dense" in forecaster.metrics


def test_models_forecast_the_same_days_and_know_what_they_may(load, split):
    "Spoiling loads from an issue on changes nothing that was issued before."
    names = ("persistence", "seasonal_naive", "baseline")
    plain = backtest(load, split, PLACE, names, horizon=24, trees=3).forecasts
    assert plain.groupby("model").size().nunique() == 1
    moment = plain["issued"].sort_values().iloc[len(plain) // 2]
    spoilt = load.assign(consumption=load["consumption"].mask(load["timestamp"] >= moment, 9e6))
    other = backtest(spoilt, split, PLACE, names, horizon=24, trees=3).forecasts
    known = (plain["issued"] <= moment).to_numpy()
    columns = ["model", "meter_id", "issued", "timestamp", *NUMBERS]
    pd.testing.assert_frame_equal(plain.loc[known, columns], other.loc[known, columns])
    assert not np.allclose(plain.loc[~known, "prediction"], other.loc[~known, "prediction"])


# Fitting again in the course of the test part


@pytest.mark.parametrize(("refit", "months"), [("monthly", 1), ("quarterly", 3)])
def test_refits_cover_the_test_part_without_overlap(refit, months):
    table = readings(24 * 400)
    split = chronological_split(table, PLACE, test_start="2024-07-10")
    parts = refit_splits(split, refit)
    assert parts[0].test_start == split.test_start and parts[-1].test_end == split.test_end
    for before, after in zip(parts, parts[1:]):
        assert before.test_end == after.test_start
        assert after.test_start == before.test_start + pd.DateOffset(months=months)
    length = split.test_start - split.val_start
    for part in parts:
        assert part.train_start == split.train_start
        assert part.test_start - part.val_start == length and part.val_start > part.train_start
        assert part.test_start < part.test_end


def test_never_refitting_leaves_the_split_alone_and_other_words_are_refused(split):
    assert refit_splits(split, "never") == [split]
    with pytest.raises(
        ModelError, match=r"unknown refit policy 'daily'.*never, quarterly, monthly"
    ):
        refit_splits(split, "daily")


def test_a_backtest_with_refits_has_each_hour_once(load):
    split = chronological_split(load, PLACE, test_start="2024-05-10")
    result = backtest(load, split, PLACE, ("seasonal_naive", "baseline"), trees=3, refit="monthly")
    own = result.forecasts
    assert not own.duplicated(["model", "meter_id", "timestamp"]).any()
    assert own["timestamp"].min() == split.test_start
    assert own["timestamp"].max() == load["timestamp"].max()
    assert result.forecasters["baseline"].data["split"]["test_start"] > str(split.test_start)


@pytest.mark.parametrize("horizon", AHEAD)
def test_a_path_forecasts_the_same_from_any_cut_of_the_past(load, fitted, horizon):
    "More history than the longest memory changes nothing but the level."
    path = fitted["moe", horizon].path
    frame = path.frame(load)
    assert isinstance(new_path(horizon, PLACE), type(path))
    rows = np.array([2000, 4600])
    wanted = next_days(rows, horizon // 24)
    made = fitted["moe", horizon].forecast(frame, wanted)["moe"]
    again = fitted["moe", horizon].predict(load, start=frame.hours.timestamp.iloc[2000])
    np.testing.assert_allclose(made["prediction"], again["prediction"], rtol=1e-5)


@pytest.mark.parametrize("horizon", HORIZONS)
def test_networks_hear_a_calm_meter_beside_a_wild_one(load, split, horizon):
    wild, rng = load.copy(), np.random.default_rng(0)
    second = wild["meter_id"] == "meter-1"
    wild["consumption"] *= np.where(second, rng.lognormal(0, 0.5, len(wild)), 1.0)
    frame = fit_path(new_path(horizon, PLACE), wild, split)
    parts = [split.part(frame.hours.timestamp, name) for name in ("train", "validation")]
    data = frame.data(*parts, 3, 0)
    for batches in (data.train_dataloader(), data.val_dataloader()):
        weights = np.unique(np.concatenate([np.unique(weight) for *_, weight in batches]))
        assert weights[0] == 0 and weights[1] < 0.7 and weights[-1] > 1.3
