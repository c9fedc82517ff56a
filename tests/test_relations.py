"Sensors beside each other, and machines that stand in the weather."

import numpy as np
import pandas as pd
import pytest
from scipy.signal import lfilter

from smartgrid_ai.anomaly.assets import AssetDetector, asset_scores, weather_channels, weather_note
from smartgrid_ai.anomaly.assets_files import load_assets, save_assets
from smartgrid_ai.anomaly.assets_stream import AssetStream
from smartgrid_ai.anomaly.detect import detect
from smartgrid_ai.anomaly.monitor import AssetMonitor
from smartgrid_ai.anomaly.relations import LEAST_ROWS, Relations
from smartgrid_ai.anomaly.series import read_series
from smartgrid_ai.cli import main
from smartgrid_ai.errors import DataError


def transformer(seed: int = 1, days: int = 200, warmer: float = 0.0) -> pd.DataFrame:
    "Hourly, from January to July; its cooling fails slowly from the last third on, by so many °C in the end."
    random, hours = np.random.default_rng(seed), np.arange(24 * days)
    noise = lambda keep, size: lfilter([1], [1, -keep], random.normal(0, size, len(hours)))  # noqa: E731
    daily = np.sin((hours % 24 - 9) * np.pi / 12)
    load = 0.5 + 0.25 * daily - 0.1 * (hours // 24 % 7 >= 5) + noise(0.8, 0.02)
    ambient = 12 + 12 * np.sin((hours / 24 - 110) * 2 * np.pi / 365) + 5 * daily + noise(0.95, 0.5)
    oil = lfilter([0.25], [1, -0.75], ambient + 45 * load**2, zi=[30.0])[0]
    oil += warmer * np.clip((hours / hours[-1] - 0.7) / 0.3, 0, 1)
    columns = {
        "timestamp": pd.date_range("2024-01-01", periods=len(hours), freq="h"),
        "oil_temperature": oil.round(1),
        "winding_temperature": (oil + 15 * load**1.6 + random.normal(0, 0.5, len(hours))).round(1),
        "ambient": ambient.round(1),
        "current": (400 * load + random.normal(0, 3, len(hours))).round(),
    }
    return pd.DataFrame(columns)


def pump(seed: int = 1, rows: int = 8000, lost: float = 0.0) -> pd.DataFrame:
    "Read every minute; its speed changes every hour and a half. From row 5000 on it loses flow, by that share in the end."
    random = np.random.default_rng(seed)
    speed = np.repeat(random.choice([0.0, 0.6, 0.8, 1.0], rows // 90 + 1), 90)[:rows]
    kept = 1 - lost * np.clip((np.arange(rows) - 5000) / (rows - 5000), 0, 1)
    columns = {
        "timestamp": pd.date_range("2024-03-01", periods=rows, freq="min"),
        "flow_rate": 100 * speed * kept + random.normal(0, 1, rows),
        "pressure": 6 * speed**2 + random.normal(0, 0.05, rows),
        "current": 10 * speed**3 + 2 * (speed > 0) + random.normal(0, 0.1, rows),
    }
    return pd.DataFrame(columns)


def alarms(table: pd.DataFrame) -> np.ndarray:
    return detect(table, ("default",))["alarm"].to_numpy().copy()


@pytest.mark.parametrize("seed", [1, 2])
def test_a_spring_is_no_fault_of_a_transformer_that_knows_the_weather(seed):
    table = transformer(seed)
    assert alarms(table).mean() < 0.01
    nameless = table.rename(columns={"ambient": "t4"})
    assert alarms(nameless).mean() > 0.1  # it is the name that makes the difference


@pytest.mark.parametrize("seed", [1, 2])
def test_cooling_that_fails_in_spring_is_told_and_the_weather_is_not_blamed(seed):
    found = detect(transformer(seed, warmer=25), ("default",))
    late = found.tail(400)
    assert late["alarm"].mean() > 0.8 and not late["channel"].eq("ambient").any()
    assert any(note.startswith("ambient: weather, by the name") for note in found.attrs["notes"])


def test_weather_that_sticks_is_an_alarm():
    table = transformer()
    table.loc[3600:3700, "ambient"] = table.loc[3600, "ambient"]
    found = detect(table, ("default",)).set_index("timestamp").loc[table["timestamp"][3660:3700]]
    assert found["alarm"].all() and found["channel"].eq("ambient").mean() > 0.9
    assert found["because"].str.contains("ambient has repeated").mean() > 0.9


@pytest.mark.parametrize("seed", [1, 2])
def test_a_leak_that_no_level_shows_is_seen_beside_the_other_sensors(seed):
    sound, leaking = (alarms(pump(seed, lost=lost)) for lost in (0.0, 0.2))
    assert sound.mean() < 0.01 and leaking[-1500:].mean() > 0.8


def test_weather_is_known_by_its_name_and_a_station_is_watched():
    assert weather_channels(["ambient_temp", "T_amb", "oilTemp", "windSpeed"]).tolist() == [True, True, False, True]  # fmt: skip
    assert not weather_channels(["bamboo", "winding", "lamp"]).any()
    assert not weather_channels(["ambient", "wind_speed"]).any()
    assert weather_note(["ambient", "wind_speed"]) == weather_note(["flow"]) == ""


@pytest.mark.parametrize("told", ["t4", "*4", "nothing*,t4"])
def test_weather_that_is_not_called_so_can_be_told(told, tmp_path):
    path = tmp_path / "t1.csv"
    transformer().rename(columns={"ambient": "t4"}).to_csv(path, index=False)
    if "nothing" in told:
        with pytest.raises(
            DataError, match=r"no column is like 'nothing\*'; there are: timestamp, oil"
        ):
            read_series(path, {"weather": told})
        return
    frame = read_series(path, {"weather": told})
    found = detect(frame, ("default",))
    assert found["alarm"].mean() < 0.01
    assert found.attrs["notes"][0].startswith("weather_t4: weather")


def test_too_few_whole_rows_say_nothing():
    values = pump(rows=3000).drop(columns="timestamp").to_numpy().copy()
    states, judged = np.full(3000, "", dtype=object), np.full(3, True)
    assert Relations().fit(values[:LEAST_ROWS], states[:LEAST_ROWS], judged).known
    values[1:, 0] = np.nan
    assert not Relations().fit(values, states, judged).known
    assert not Relations().fit(values[:, :1], states, judged[:1]).known
    monitor = AssetMonitor().fit(values)
    assert np.isfinite(monitor.advance(monitor.fresh(), values).surprise).all()


def test_a_sensor_that_dies_does_not_break_the_relations_of_the_others():
    table = pump()
    values = table.drop(columns="timestamp").to_numpy().copy()
    monitor = AssetMonitor().fit(values[:3000])
    values[4000:, 1] = np.nan
    judged = monitor.advance(monitor.fresh(), values[3000:])
    assert judged.alarm.mean() < 0.01


@pytest.mark.parametrize("make", [pump, transformer])
def test_one_reading_at_a_time_after_a_night_on_disk_is_as_all_at_once(make, tmp_path):
    table = make()[:2600]
    sensors = tuple(name for name in table if name != "timestamp")
    table.loc[2100:2110, sensors[0]] = np.nan
    detector = AssetDetector(sensors).fit(table[:2000])
    assert detector.monitors["asset"].relations.known
    later = table[2000:2300].reset_index(drop=True)
    batch = detector.score(later)
    save_assets(detector, tmp_path)
    stream, scores = AssetStream(load_assets(tmp_path)), []
    for row, reading in enumerate(later[list(sensors)].to_dict("records")):
        if row == 150:
            stream.save(tmp_path / "memory.safetensors")
            stream = AssetStream(load_assets(tmp_path)).resume(tmp_path / "memory.safetensors")
        scores.append(stream.update("asset", reading)["score"])
    np.testing.assert_allclose(scores, batch["score"], atol=1e-6)


def test_no_score_knows_what_comes_later():
    table = pump(lost=0.2)
    spoilt = table.copy()
    spoilt.loc[6000:, ["flow_rate", "pressure", "current"]] = 1e6
    one, other = (detect(each, ("default",))["score"].to_numpy() for each in (table, spoilt))
    np.testing.assert_array_equal(one[: 6000 - 2400], other[: 6000 - 2400])


def test_shares_are_whole_and_weather_has_none():
    table = transformer(warmer=15)
    names = [name for name in table if name != "timestamp"]
    from smartgrid_ai.anomaly.series import signals

    judged = asset_scores(signals(table)[0])
    shares = judged[[f"share_{name}" for name in names]]
    assert np.allclose(shares.sum(axis=1), 1) and (shares.to_numpy() >= 0).all()
    assert (judged["share_ambient"] == 0).all()


def test_the_watch_says_once_what_is_weather_and_judges_as_detect_does(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    table = transformer(warmer=25).assign(asset_id="t1")
    for name, rows in (("early", slice(0, 1440)), ("late", slice(1440, 4800))):
        table.iloc[rows].rename(columns={"ambient": "t4"}).to_csv(f"{name}.csv", index=False)
    assert main(["watch", "early.csv", "--memory", "m.safetensors", "--column", "weather=t4"]) == 0
    assert capsys.readouterr().err.count("note: weather_t4: weather, by the name") == 1
    assert main(["watch", "late.csv", "--memory", "m.safetensors", "--out", "alarms.csv"]) == 0
    assert "weather" not in capsys.readouterr().err
    ours, theirs = pd.read_csv("alarms.csv"), detect(table, ("default",))
    np.testing.assert_allclose(ours["score"], theirs["score"], atol=1e-6)
    assert (ours["alarm"] == theirs["alarm"]).all()
