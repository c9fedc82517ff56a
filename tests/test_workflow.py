"""Between reading and publishing: bundles that say what they are, units, clocks, the floor, and rows that see no future."""

from types import SimpleNamespace

import loads
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smartgrid_ai.artefacts import read_forecast_artefacts, write_forecast_artefacts
from smartgrid_ai.data.simulate import SIMULATED_PLACE, simulate
from smartgrid_ai.evaluate.backtest import backtest
from smartgrid_ai.evaluate.metrics import wape
from smartgrid_ai.features import FEATURE_NAMES, make_features
from smartgrid_ai.forecast.forecaster import load_forecaster
from smartgrid_ai.readings import DataError, Place, watts_per
from smartgrid_ai.registry import Registry
from smartgrid_ai.windows import chronological_split
from smartgrid_ai.workflow import (
    Source,
    forecast_artefacts,
    in_clock,
    in_unit,
    judged_rows,
    known_floor,
    publish_forecasters,
)

UNITS = ("W", "kW", "MW", "GW", "Wh", "kWh", "MWh", "GWh")
HOUR = pd.Timedelta(hours=1)


@pytest.fixture(scope="module")
def readings():
    table = simulate("small")
    early = table["timestamp"] < table["timestamp"].min() + pd.Timedelta(days=100)
    return table[early & table["meter_id"].isin(["household-1", "shop-1"])].reset_index(drop=True)


@pytest.fixture(scope="module")
def result(readings):
    split = chronological_split(readings, SIMULATED_PLACE)
    return backtest(readings, split, SIMULATED_PLACE, ("persistence", "baseline"), trees=3)


# Publishing


def test_each_publication_is_a_new_active_version_that_forecasts_the_same(
    result, readings, tmp_path
):
    registry = Registry(tmp_path)
    first = publish_forecasters(result, readings, registry)["baseline"]
    second = publish_forecasters(result, readings, registry)["baseline"]
    assert (first.version, second.version) == ("1.0.0", "1.1.0")
    assert registry.names() == ["baseline"] and registry.active("baseline") == "1.1.0"
    loaded = load_forecaster(registry.resolve("baseline").path)
    fitted = result.forecasters["baseline"]
    pd.testing.assert_frame_equal(loaded.predict(readings), fitted.predict(readings))


def test_a_manifest_tells_data_metrics_and_an_example_that_works(result, readings, tmp_path):
    manifest = publish_forecasters(result, readings, Registry(tmp_path))["baseline"].manifest
    used = readings["timestamp"] < result.split.test_start
    assert manifest["features"] == list(FEATURE_NAMES)
    assert manifest["data"]["rows"] == used.sum() and manifest["data"]["meters"] == 2
    assert manifest["metrics"]["baseline"]["wape"] > 0
    parameters = manifest["parameters"]
    assert parameters["weather"] == "observed (perfect forecast)" and parameters["horizon"] == 1
    example = np.array([parameters["example_features"]])
    answer = result.forecasters["baseline"].predict_rows(example)
    assert np.isfinite(answer["prediction"]).all()


def test_without_a_complete_row_there_is_no_example_but_a_bundle(result, readings, tmp_path):
    short = readings.groupby("meter_id", sort=False).head(300).reset_index(drop=True)
    manifest = publish_forecasters(result, short, Registry(tmp_path))["baseline"].manifest
    assert "example_features" not in manifest["parameters"]


# The known floor


def test_no_model_is_better_than_the_floor_on_sound_hours(result, readings):
    known = known_floor(readings, result)
    assert set(known["models"]) == {"persistence", "baseline"}
    assert 0 < known["wape"] < min(known["models"].values())


def test_hours_with_a_fault_do_not_count_for_the_floor(result, readings):
    broken = result.forecasts.merge(readings[["meter_id", "timestamp", "fault"]])
    wild = broken["prediction"].where(broken["fault"] == "", 1e9)
    worse = SimpleNamespace(split=result.split, forecasts=result.forecasts.assign(prediction=wild))
    assert (wild == 1e9).any()
    assert known_floor(readings, worse)["models"] == known_floor(readings, result)["models"]


def test_the_floor_measures_what_the_metrics_measure(result, readings):
    sound = readings.assign(fault="")
    models = known_floor(sound, result)["models"]
    for name, rows in result.forecasts.groupby("model"):
        assert models[name] == pytest.approx(wape(rows["actual"], rows["prediction"]))


@pytest.mark.parametrize("column", ["expected", "fault"])
def test_real_data_have_no_known_floor(result, readings, column):
    assert known_floor(readings.drop(columns=column), result) is None


def test_a_floor_is_one_of_the_next_hour(result, readings):
    days = result.forecasts.assign(task="d1", prediction=0.0)
    both = SimpleNamespace(split=result.split, forecasts=pd.concat([result.forecasts, days]))
    assert known_floor(readings, both) == known_floor(readings, result)
    assert known_floor(readings, SimpleNamespace(split=result.split, forecasts=days)) is None


# Several horizons


@pytest.fixture(scope="module")
def both(readings):
    split = chronological_split(readings, SIMULATED_PLACE)
    names = ("persistence", "baseline", "dense")
    small = {"trees": 3, "epochs": 1, "batches": 3}
    return backtest(readings, split, SIMULATED_PLACE, names, horizon=(1, 24), **small)


def test_each_horizon_has_bundles_of_its_own(both, readings, tmp_path):
    registry = Registry(tmp_path)
    bundles = publish_forecasters(both, readings, registry)
    assert registry.names() == sorted(bundles) == ["baseline", "baseline_24", "moe", "moe_24"]
    for name, bundle in bundles.items():
        parameters = bundle.manifest["parameters"]
        assert parameters["horizon"] == (24 if name.endswith("_24") else 1)
        assert ("example_features" in parameters) == (parameters["horizon"] == 1)
        expected = both.forecasters[name].predict(readings)
        pd.testing.assert_frame_equal(load_forecaster(bundle.path).predict(readings), expected)
        assert len(expected) == 2 * parameters["horizon"]
        own = "baseline" if name.startswith("baseline") else "dense"
        assert bundle.manifest["metrics"][own]["wape"] > 0


def test_the_training_page_is_about_the_nearest_task(both, readings, tmp_path):
    shown = forecast_artefacts(both, readings, Source(), {"seed": 0})
    assert set(shown.forecasts["task"]) == set(shown.metrics["task"]) == {"h1"}
    assert set(shown.floor["models"]) == {"persistence", "baseline", "dense"}
    assert len(shown.importance) > 31
    kept = read_forecast_artefacts(**write_forecast_artefacts(shown, tmp_path))
    assert len(kept.forecasts) == len(shown.forecasts)


# Units and clocks


def forecasts(stamps):
    columns = {"prediction": 1500.0, "q0.1": 1000.0, "q0.975": 2500.0, "actual": np.nan}
    columns |= {"confidence": 0.5, "gate_gru": 1.0, "horizon": 24, "model": "moe"}
    columns |= {"issued": stamps - 23 * HOUR}
    return pd.DataFrame({"meter_id": "a", "timestamp": stamps} | columns)


@settings(max_examples=30)
@given(unit=st.sampled_from(UNITS), level=st.floats(-1e12, 1e12))
def test_a_unit_scales_loads_and_nothing_else(unit, level):
    table = forecasts(pd.date_range("2024-01-01", periods=2, freq="h", tz="UTC"))
    table["prediction"] = level
    shown = in_unit(table, unit)
    for name in ("prediction", "q0.1", "q0.975"):
        np.testing.assert_allclose(
            shown[name] * watts_per(unit), table[name], rtol=1e-14, atol=1e-200
        )
    same = ["meter_id", "timestamp", "actual", "confidence", "gate_gru", "horizon", "model"]
    pd.testing.assert_frame_equal(shown[same], table[same])
    assert list(shown) == list(table) and (table["prediction"] == level).all()


def test_no_unit_means_watts_and_an_unknown_one_is_a_mistake():
    table = forecasts(pd.date_range("2024-01-01", periods=2, freq="h", tz="UTC"))
    pd.testing.assert_frame_equal(in_unit(table, None), table)
    with pytest.raises(DataError, match="BTU"):
        in_unit(table, "BTU")


def test_files_in_utc_get_their_forecasts_in_utc():
    table = forecasts(pd.date_range("2024-01-01", periods=3, freq="h", tz="UTC"))
    source = Source("a.csv", clock="utc", timezone="Asia/Tokyo")
    pd.testing.assert_frame_equal(in_clock(table, source), table)


@given(
    hour=st.integers(0, 20_000),
    zone=st.sampled_from(["Europe/Berlin", "Australia/Melbourne", "Asia/Kolkata"]),
)
@settings(max_examples=30)
def test_files_by_the_wall_clock_get_wall_clock_stamps(hour, zone):
    stamps = pd.date_range("2023-01-01", periods=3, freq="h", tz="UTC") + hour * HOUR
    table = in_clock(forecasts(stamps), Source("a.csv", clock="local", timezone=zone))
    wall = [stamp.astimezone(Place(zone).zone).replace(tzinfo=None) for stamp in stamps]
    assert table["timestamp"].dt.tz is None
    issued = [s.astimezone(Place(zone).zone).replace(tzinfo=None) for s in stamps - 23 * HOUR]
    assert list(table["issued"].dt.to_pydatetime()) == issued
    assert list(table["timestamp"].dt.to_pydatetime()) == wall


# Rows that are judged for anomalies

HOURS = 500
LOADS = loads.readings(HOURS, meters=2, temperature=False)


def test_a_reading_is_judged_by_the_row_of_the_hour_after_it():
    keys, rows = judged_rows(LOADS, Place())
    table = make_features(LOADS, ahead=1).set_index(["meter_id", "timestamp"])
    assert len(keys) == len(rows) == 2 * (HOURS - 364)
    for number in (0, 1, len(keys) // 2, len(keys) - 1):
        meter, stamp = keys.loc[number, ["meter_id", "timestamp"]]
        following = table.loc[(meter, stamp + HOUR), list(FEATURE_NAMES)].to_numpy(float)
        np.testing.assert_array_equal(rows[number], following)
        own = LOADS[(LOADS["meter_id"] == meter) & (LOADS["timestamp"] == stamp)]
        assert rows[number][FEATURE_NAMES.index("lag_1")] == own["consumption"].item()


def test_judged_rows_are_in_order_of_time_and_end_with_the_last_reading():
    keys, _ = judged_rows(LOADS, Place())
    assert keys["timestamp"].is_monotonic_increasing
    assert (keys.groupby("meter_id")["timestamp"].max() == LOADS["timestamp"].max()).all()


@given(cut=st.integers(366, HOURS - 1), level=st.sampled_from([np.nan, -5.0, 0.0, 1e9]))
@settings(max_examples=15, deadline=None)
def test_no_later_reading_changes_how_a_reading_is_judged(cut, level):
    moment = LOADS["timestamp"].min() + cut * HOUR
    later = LOADS["timestamp"] > moment
    changed = LOADS.assign(consumption=LOADS["consumption"].mask(later, level))
    keys, rows = judged_rows(LOADS, Place())
    known = (keys["timestamp"] <= moment).to_numpy()
    for other in (changed, LOADS[~later].reset_index(drop=True)):
        other_keys, other_rows = judged_rows(other, Place())
        part = (other_keys["timestamp"] <= moment).to_numpy()
        pd.testing.assert_frame_equal(other_keys[part], keys[known])
        np.testing.assert_array_equal(other_rows[part], rows[known])


def test_a_reading_itself_does_change_how_it_is_judged():
    moment = LOADS["timestamp"].min() + 400 * HOUR
    at = LOADS["timestamp"] == moment
    keys, rows = judged_rows(LOADS, Place())
    _, other = judged_rows(LOADS.assign(consumption=LOADS["consumption"].mask(at, 1e6)), Place())
    here = (keys["timestamp"] == moment).to_numpy()
    assert (rows[here] != other[here]).any(axis=1).all()


# Sources


def test_a_source_knows_its_place_and_its_name():
    assert Source().place == SIMULATED_PLACE and Source().name == "simulator, preset small"
    assert Source("folder/a.csv").place == Place() and Source("folder/a.csv").name == "a.csv"
    assert Source("a.csv", timezone="Australia/Melbourne", country="AU").place.is_southern
