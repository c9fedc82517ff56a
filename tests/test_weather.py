"""Sun, clouds and wind: found in files, learned from, and nothing of the hours to come but a forecast of them."""

import numpy as np
import pandas as pd
import pytest
from loads import readings

from smartgrid_ai.data.sources import read_readings
from smartgrid_ai.data.validate import validate
from smartgrid_ai.evaluate.backtest import weather_in_words
from smartgrid_ai.features import make_features
from smartgrid_ai.forecast.doubts import forecast_doubts
from smartgrid_ai.forecast.forecaster import Forecaster
from smartgrid_ai.hours import make_hours, weather_matrix
from smartgrid_ai.readings import WEATHER_COLUMNS, Place
from smartgrid_ai.structure import StructureModel
from smartgrid_ai.windows import chronological_split

DAYS = 120


def roofs(days: int = DAYS, seed: int = 0) -> pd.DataFrame:
    "A load whose roofs generate under changing clouds."
    random, table = np.random.default_rng(seed), readings(24 * days, start="2024-03-01", seed=seed)
    height = np.maximum(np.sin(2 * np.pi * (np.arange(24 * days) - 6) / 24), 0)
    clear = np.repeat(random.uniform(0.1, 1.0, days), 24) * random.uniform(0.8, 1.0, 24 * days)
    sun = 900 * height * clear
    return table.assign(irradiance=sun, consumption=table["consumption"] - 0.4 * sun)


def test_columns_of_a_weather_service_are_found(tmp_path):
    file = tmp_path / "load.csv"
    file.write_text(
        "time,load_kw,temperature_2m (°C),relative_humidity (%),shortwave_radiation (W/m²),cloud_cover (%),wind_speed_10m (km/h)\n"
        + "".join(f"2024-03-01T{hour:02d}:00Z,5,1.5,80,{10 * hour},40,12\n" for hour in range(24))
    )
    table = read_readings(file)
    assert [name for name in WEATHER_COLUMNS if name in table] == list(WEATHER_COLUMNS)
    assert table["irradiance"].iloc[7] == 70 and (table["consumption"] == 5000).all()


def test_a_column_of_the_sun_is_no_load(tmp_path):
    file = tmp_path / "load.csv"
    file.write_text("time,AEP_MW,sun_w_m2\n2024-03-01T00:00Z,5,0\n2024-03-01T01:00Z,6,0\n")
    assert list(read_readings(file)["consumption"]) == [5e6, 6e6]


def test_what_the_sun_generates_is_no_weather(tmp_path):
    file = tmp_path / "load.csv"
    file.write_text("time,load_mw,radiation_mw\n2024-03-01T00:00Z,5,1\n2024-03-01T01:00Z,6,2\n")
    table = read_readings(file)
    assert "irradiance" not in table and list(table["consumption"]) == [5e6, 6e6]


def test_impossible_weather_is_named():
    table = roofs(7).assign(cloud_cover=50.0, wind_speed=3.0)
    table.loc[3, "irradiance"], table.loc[4, "cloud_cover"] = 9000.0, 101.0
    table.loc[5, "wind_speed"] = -1.0
    found = validate(table).findings
    wrong = found[found["rule"] == "range"]
    assert sorted(wrong["column"]) == ["cloud_cover", "irradiance", "wind_speed"]


def test_a_gap_of_the_sun_has_its_morning():
    table = roofs(3)
    table.loc[24:, "irradiance"] = np.nan
    sun = weather_matrix(table, ("irradiance",))[:, 0]
    np.testing.assert_array_equal(sun[24:48], sun[:24])
    np.testing.assert_array_equal(sun[48:], sun[:24])
    assert sun[12] > 0 == sun[0]


def test_the_rows_know_the_step_of_the_sun():
    table = roofs(20)
    features = make_features(table)
    steps = table["irradiance"].diff().rename("irradiance_change_1")
    pd.testing.assert_series_equal(features["irradiance_change_1"], steps)
    withheld = make_features(table, weather="none")
    assert not [name for name in withheld if name.startswith(WEATHER_COLUMNS)]


def test_the_structure_explains_what_the_roofs_take():
    missed = {}
    for told in ("with", "without"):
        table = roofs() if told == "with" else roofs().drop(columns="irradiance")
        hours, model = make_hours(table), StructureModel()
        model.fit(hours, np.arange(len(hours)) < 24 * 90)
        expected = (1 + model.apply(hours)) * model.state["level"][0]
        missed[told] = np.abs(hours.load - expected)[24 * 90 :].mean()
    assert missed["with"] < 0.6 * missed["without"]  # most of what is left is noise


@pytest.fixture(scope="module", params=[1, 24])
def fitted(request):
    "A forecaster that has seen the sun."
    table = roofs()
    split = chronological_split(table, Place())
    forecaster = Forecaster("moe", horizon=request.param, experts=("dense",), epochs=4, batches=20)
    return forecaster.fit(table, split)


def test_forecasts_follow_the_sun_that_is_forecast(fitted):
    noon = pd.Timestamp("2024-06-28T12:00Z")
    issued = noon if fitted.horizon == 1 else noon.normalize()
    table = roofs()
    given = table[table["timestamp"] < issued + pd.Timedelta(hours=fitted.horizon)].copy()
    ahead, said = given["timestamp"] >= issued, {}
    given["consumption"] = given["consumption"].mask(ahead)
    for share in (0.2, 1.0):
        told = given.assign(irradiance=given["irradiance"].mask(ahead, share * 900.0))
        said[share] = fitted.predict(told).set_index("timestamp")["prediction"][noon]
    assert said[0.2] - said[1.0] > 0.5 * 0.4 * (1.0 - 0.2) * 900


def test_the_sun_that_nobody_forecast_is_named(fitted):
    table = roofs()
    doubts = forecast_doubts(fitted, table, fitted.predict(table))
    assert any("without the temperature and irradiance of their hour" in said for said in doubts)


def test_a_simulated_error_says_what_it_spares():
    both, alone = make_hours(roofs(7)), make_hours(readings(168))
    assert weather_in_words(both, "observed", 1.5).endswith("all but the temperature as observed")
    assert weather_in_words(alone, "observed", 1.5).endswith("in the test part")
