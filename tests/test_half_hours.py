"""Clocks that are half an hour or a quarter off those of UTC: the same wall clock, the same answers."""

import numpy as np
import pandas as pd
import pytest
from loads import readings
from serving import shop

from smartgrid_ai.alarm_files import alarm_artefacts, read_labels, read_scores
from smartgrid_ai.anomaly.stream import LoadScorer
from smartgrid_ai.cli import main
from smartgrid_ai.data.sources import read_readings
from smartgrid_ai.features import FEATURE_NAMES, make_features
from smartgrid_ai.readings import HOUR, Place, hour_number, hourly_grid
from smartgrid_ai.registry import Registry
from smartgrid_ai.serve.history import judged_history
from smartgrid_ai.serve.outlook import Outlook
from smartgrid_ai.serve.predictor import Predictor
from smartgrid_ai.workflow import Source

HALVES = ("Asia/Kolkata", "America/St_Johns", "Asia/Kathmandu")
TWINS = {
    "Asia/Kolkata": "Etc/GMT-6",
    "Asia/Kathmandu": "Etc/GMT-6",
}  # begins its hours in the same hours of UTC


def wall_file(path, step="h", hours=24 * 80, meters=2):
    "A file of stamps by the wall clock, without a word on the zone."
    table = readings(hours, meters=meters, temperature=False, start="2023-01-02")
    table["timestamp"] = table["timestamp"].dt.tz_localize(None)
    if step != "h":
        parts = [table.assign(timestamp=table["timestamp"] + pd.Timedelta(m, "min")) for m in (0, 15, 30, 45)]  # fmt: skip
        table = pd.concat(parts).sort_values(["meter_id", "timestamp"], ignore_index=True)
    table.to_csv(path, index=False)
    return table


def local(path, zone):
    return read_readings(path, unit="W", clock="local", timezone=zone)


@pytest.mark.parametrize("step", ["h", "15min"])
@pytest.mark.parametrize("zone", HALVES)
def test_hours_are_those_of_the_wall_clock(tmp_path, zone, step):
    wall_file(tmp_path / "wall.csv", step, hours=24 * 40)
    read = local(tmp_path / "wall.csv", zone)
    wall = read["timestamp"].dt.tz_convert(zone)
    assert (wall.dt.minute == 0).all() and (read["timestamp"].dt.minute != 0).all()
    features = make_features(read, Place(zone))
    np.testing.assert_array_equal(features["hour"], wall.dt.hour)
    np.testing.assert_array_equal(features["day_of_week"], wall.dt.day_of_week)


@pytest.mark.parametrize("zone", TWINS)
def test_features_are_those_of_the_same_wall_clock_at_whole_hours(tmp_path, zone):
    wall_file(tmp_path / "wall.csv")
    one, other = (
        make_features(local(tmp_path / "wall.csv", each), Place(each))
        for each in (zone, TWINS[zone])
    )
    columns = list(FEATURE_NAMES)
    pd.testing.assert_frame_equal(one[columns], other[columns])


def test_the_grid_goes_on_where_the_hours_begin():
    table = readings(50)
    table["timestamp"] += 0.5 * HOUR
    grid = hourly_grid(table.drop(index=[7, 8]))
    assert (grid["timestamp"] == table["timestamp"]).all()
    assert grid["consumption"].isna().sum() == 2
    np.testing.assert_array_equal(np.diff(hour_number(grid["timestamp"])), 1)


def test_whole_hours_of_utc_are_taken_as_they_are(tmp_path):
    table = readings(100)
    table.to_csv(tmp_path / "utc.csv", index=False)
    read = read_readings(tmp_path / "utc.csv", unit="W", timezone="Asia/Kolkata")
    assert (read["timestamp"] == table["timestamp"]).all()


def same_answers(tmp_path, *command):
    "What a command writes for the file in India, and for the same wall clock at whole hours."
    tables = []
    for zone in ("Asia/Kolkata", TWINS["Asia/Kolkata"]):
        said = ("--unit", "W", "--clock", "local", "--timezone", zone)
        out = tmp_path / f"{zone.replace('/', '-')}.parquet"
        assert main([*map(str, command), str(out), *said]) == 0
        table = pd.read_parquet(out)
        if table["timestamp"].dt.tz is not None:
            table["timestamp"] = table["timestamp"].dt.tz_convert(zone).dt.tz_localize(None)
        tables.append(table)
    return tables


def test_a_backtest_answers_by_the_clock_of_the_file(tmp_path):
    table = wall_file(tmp_path / "wall.csv")
    few = ("--models", "seasonal_naive,baseline,dense", "--epochs", 1, "--batches", 2, "--trees", 3)
    one, other = same_answers(
        tmp_path, "backtest", tmp_path / "wall.csv", "--horizon", 24, *few,
        "--test-start", "2023-03-10", "--forecasts",
    )  # fmt: skip
    pd.testing.assert_frame_equal(one, other)
    known = one.merge(table, on=["meter_id", "timestamp"])
    assert len(known) == len(one)
    np.testing.assert_allclose(known["actual"], known["consumption"])


def test_alarms_and_labels_are_of_the_rows_of_the_file(tmp_path):
    path, wall = tmp_path / "wall.csv", wall_file(tmp_path / "wall.csv")
    spoilt = wall["consumption"].where(wall.index % 1500 != 0, wall["consumption"] * 4)
    wall.assign(consumption=spoilt).to_csv(path, index=False)
    one, other = same_answers(tmp_path, "detect", path, "--models", "default", "--out")
    pd.testing.assert_frame_equal(one, other)
    source = Source(str(path), unit="W", clock="local", timezone="Asia/Kolkata")
    scored = tmp_path / "Asia-Kolkata.parquet"
    assert len(alarm_artefacts(str(scored), source).scores) == len(one)
    stamps = one.loc[one["alarm"], "timestamp"] + pd.Timedelta("45min")
    labels = pd.DataFrame({"series": one["series"], "timestamp": stamps, "label": 1}).dropna()
    labels.to_csv(tmp_path / "labels.csv", index=False)
    told, _ = read_labels(str(tmp_path / "labels.csv"), read_scores(str(scored), source), source)
    np.testing.assert_array_equal(told == 1, one["alarm"])


@pytest.mark.parametrize("minutes", [15, 60])
def test_the_service_forecasts_hours_of_the_wall_clock(served, minutes):
    load = shop()["consumption"].to_numpy()[-24 * 30 :]
    steps = 60 // minutes
    times = np.datetime64("2024-03-01T18:30", "us") + np.arange(steps * len(load)) * np.timedelta64(minutes, "m")  # fmt: skip
    answer = Outlook(Predictor(Registry(served.root))).forecast(
        (times, {"consumption": np.repeat(load, steps)}), 24, place={"timezone": "Asia/Kolkata"}
    )
    assert [row["timestamp"][11:] for row in answer["forecast"]][:2] == ["00:00:00+05:30", "01:00:00+05:30"]  # fmt: skip
    assert len(answer["forecast"]) == 24


def test_a_stream_counts_every_moment_to_its_hour_of_the_wall_clock(tmp_path):
    wall_file(tmp_path / "wall.csv", hours=24 * 40, meters=1)
    read = local(tmp_path / "wall.csv", "Asia/Kolkata")
    known, later = read.iloc[:-48], read.iloc[-48:]
    scorer = LoadScorer(Place("Asia/Kolkata")).fit(known)
    hours = [
        scorer.score("meter-0", stamp + pd.Timedelta("45min"), load)["hour"]
        for stamp, load in zip(later["timestamp"], later["consumption"])
    ]
    np.testing.assert_array_equal(hours, hour_number(later["timestamp"]))


def test_every_second_hour_is_still_judged():
    times = np.datetime64("2024-03-01T18:30", "us") + np.arange(100) * np.timedelta64(2, "h")
    history = judged_history((times, {"consumption": np.full(100, 500.0)}), Place("Asia/Kolkata"))
    assert len(history) == 100 and (history["timestamp"].dt.minute == 30).all()
