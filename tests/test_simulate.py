"""The simulator: same bytes everywhere, a floor that nobody can beat, faults where it says."""

import hashlib

import numpy as np
import pandas as pd
import pytest

from smartgrid_ai.data import simulate as module
from smartgrid_ai.data.simulate import FAULTS, KINDS, PRESETS, Preset, floor, simulate
from smartgrid_ai.data.validate import clean
from smartgrid_ai.readings import DataError, check_readings, hourly_grid

NUMBERS = ["consumption", "temperature", "humidity", "voltage", "frequency", "expected"]
BYTES = {
    "small": "af8dff7ee96fa6c82469e9928d5721be3c0c83fd21896fcd9481a1401bce27a7",
    "seed_2011_2015": "7bbc9f82ef635bbf20bfb32c5b0d23724af74be257a7fee55ea2d3b70b822255",
}


@pytest.fixture(scope="module")
def small() -> pd.DataFrame:
    return simulate("small")


@pytest.fixture(scope="module")
def decade() -> pd.DataFrame:
    return simulate("seed_2011_2015")


def digest(readings: pd.DataFrame) -> str:
    total = hashlib.sha256("\n".join(readings["meter_id"]).encode())
    total.update("\n".join(readings["fault"]).encode())
    total.update(readings["timestamp"].to_numpy("datetime64[us]").astype("<i8").tobytes())
    for name in NUMBERS:
        total.update(readings[name].to_numpy().astype("<f8").tobytes())
    return total.hexdigest()


def test_same_bytes_on_every_machine(small, decade):
    assert digest(small) == BYTES["small"]
    assert digest(decade) == BYTES["seed_2011_2015"]


def test_seed_decides(small):
    other = simulate("small", seed=1)
    assert digest(other) == digest(simulate("small", seed=1)) != digest(small)


def test_reference_has_exactly_its_rows_even_after_cleaning(decade):
    assert len(decade) == 415_053 and decade["meter_id"].nunique() == 10
    assert len(hourly_grid(decade)) == 415_053
    assert str(decade["timestamp"].min()) == "2011-01-01 00:00:00+00:00"
    assert decade.groupby("meter_id")["timestamp"].max().nunique() == 1
    assert str(decade["timestamp"].max()) == "2015-12-31 23:00:00+00:00"
    assert len(clean(decade, remove=["flat", "outage", "jump"], repair=["unit_slip"])) == 415_053


@pytest.mark.parametrize("preset", PRESETS)
def test_values_are_canonical_and_plausible(preset, request):
    readings = request.getfixturevalue({"small": "small"}.get(preset, "decade"))
    check_readings(readings)
    assert not readings[NUMBERS].isna().any().any()
    assert readings["consumption"].between(0, 5000).all()
    assert readings["humidity"].between(0, 100).all()
    assert readings["temperature"].between(-30, 42).all()
    assert readings["voltage"].between(207, 253).all()
    assert readings["frequency"].between(49.8, 50.2).all()
    digits = dict.fromkeys(NUMBERS, 1) | {"temperature": 2, "voltage": 2, "frequency": 3}
    for name, places in digits.items():
        assert (readings[name] == readings[name].round(places)).all()
        assert not (np.signbit(readings[name]) & (readings[name] == 0)).any()


@pytest.mark.parametrize("preset", PRESETS)
def test_every_fault_occurs_and_is_rare(preset, request):
    readings = request.getfixturevalue({"small": "small"}.get(preset, "decade"))
    assert set(readings["fault"]) == {"", *FAULTS}
    assert 0.004 < (readings["fault"] != "").mean() < 0.01


def test_faults_are_what_they_are_called(decade):
    load, expected = decade["consumption"], decade["expected"]
    share = (load / expected).groupby(decade["fault"]).median()
    assert share["drop_out"] == 0 and share["unit_error"] < 0.002
    assert share["spike"] > 2 and 0.2 < share["theft"] < 0.7
    assert abs(share[""] - 1) < 0.01
    spikes = decade["fault"] == "spike"
    assert not (spikes & spikes.shift(fill_value=False)).any()


def test_nothing_but_chance_is_left_over_the_expected(decade):
    "Residuals of `expected` have mean zero, known size and no memory."
    for meter_id, one in decade.groupby("meter_id"):
        healthy = one["fault"] == ""
        residual = (one["consumption"] / one["expected"] - 1)[healthy]
        noise = KINDS[meter_id.split("-")[0]].noise
        assert abs(residual.mean()) < 4 * noise / np.sqrt(len(residual))
        assert abs(residual.std() / noise - 1) < 0.05
        assert abs(residual.autocorr(1)) < 0.03 and abs(residual.autocorr(24)) < 0.03


def test_voltage_does_not_tell_the_coming_hour(decade):
    healthy = decade[decade["fault"] == ""]
    residual = healthy["consumption"] / healthy["expected"] - 1
    assert abs(np.corrcoef(residual, healthy["voltage"])[0, 1]) < 0.01
    assert np.corrcoef(healthy["expected"], healthy["voltage"])[0, 1] < -0.3


def test_shops_open_by_the_civil_clock(decade):
    shop = decade[decade["meter_id"] == "shop-1"]
    civil = shop["timestamp"].dt.tz_convert("Europe/Berlin")
    workday = civil.dt.day_of_week < 5
    profile = shop["expected"].groupby([civil.dt.month.isin([6, 7]), workday, civil.dt.hour]).mean()
    for summer in (False, True):
        rise = profile[summer, True].diff()
        assert rise.idxmax() in (7, 8)
    assert profile[True, True].diff().idxmax() == profile[False, True].diff().idxmax()


def test_holidays_are_rest_days(decade):
    office = decade[decade["meter_id"] == "office-1"].set_index("timestamp")["expected"]
    labour_day, day_before = office["2013-05-01 10:00+00:00"], office["2013-04-30 10:00+00:00"]
    assert labour_day < 0.5 * day_before


def test_meters_do_not_disturb_each_other(monkeypatch, small):
    more = Preset(
        PRESETS["small"].first,
        PRESETS["small"].last,
        (*PRESETS["small"].meters, ("shop-2", "shop", 100)),
    )
    monkeypatch.setitem(module.PRESETS, "more", more)
    wider = simulate("more")
    assert (wider["expected"].iloc[: len(small)] == small["expected"]).all()
    assert (wider["meter_id"] == "shop-2").sum() == len(small) / 4 - 100


def test_floor_is_near_the_known_noise(small):
    for meter_id, one in small.groupby("meter_id"):
        noise = KINDS[meter_id.split("-")[0]].noise
        assert floor(one)["wape"] == pytest.approx(100 * noise * np.sqrt(2 / np.pi), rel=0.1)


def test_floor_over_a_span(small):
    whole, late = floor(small), floor(small, start="2015-09-01", end="2015-10-01")
    assert late["hours"] <= 4 * 30 * 24 < whole["hours"] < len(small)
    assert late["rmse"] > late["mae"] > 0
    inside = small["timestamp"].between("2015-09-01", "2015-09-30 23:00") & (small["fault"] == "")
    error = (small["consumption"] - small["expected"])[inside].abs()
    assert late["mae"] == pytest.approx(error.mean()) and late["hours"] == inside.sum()


def test_mistakes_are_explained(small):
    with pytest.raises(DataError, match="unknown preset 'large': use one of small, seed_2011_2015"):
        simulate("large")
    with pytest.raises(DataError, match="seed -1 is negative"):
        simulate("small", seed=-1)
    with pytest.raises(DataError, match="no column 'expected': only simulated readings"):
        floor(small.drop(columns="expected"))
    with pytest.raises(DataError, match="no hour without a fault"):
        floor(small, start="2020-01-01")
