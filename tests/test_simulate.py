"""The simulator: same bytes everywhere, a floor that nobody can beat, faults where it says."""

import hashlib
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smartgrid_ai.data import simulate as module
from smartgrid_ai.data.faults import FAULTS, HEALTHY_START, Fault, plant_faults, scaled_faults
from smartgrid_ai.data.simulate import KINDS, PRESETS, Preset, floor, simulate
from smartgrid_ai.data.validate import clean
from smartgrid_ai.readings import DataError, check_readings, hourly_grid

NUMBERS = ["consumption", "temperature", "humidity", "voltage", "frequency", "expected"]
BYTES = {
    "small": "6dfe7d08829f7836571278f06e6a95a7b628bd6c6af4bcebc898910ba93a2f24",
    "seed_2011_2015": "506ef5e6aaadbc761f091477c63ed1720368f172252ec7fbd1c74a2347aa430d",
}
HEALTHY_BYTES = {  # since before there were twelve kinds: the floor leans on them
    "small": "c95f776917e6be0a4017525fe3fb08038b3669acf844635b11a3b85d3105297a",
    "seed_2011_2015": "de1385879e8cbc270f4258c10bd823d8918a9eeee3e4370d8b39f61ff63630f1",
}
OFTEN = scaled_faults(6)


@pytest.fixture(scope="module")
def small() -> pd.DataFrame:
    return simulate("small")


@pytest.fixture(scope="module")
def decade() -> pd.DataFrame:
    return simulate("seed_2011_2015")


@pytest.fixture(scope="module")
def often() -> pd.DataFrame:
    return simulate("small", seed=2, faults=OFTEN)


@pytest.fixture(scope="module")
def healthy() -> pd.DataFrame:
    "The meters of `often` without their faults."
    return simulate("small", seed=2, faults={})


def digest(readings: pd.DataFrame, labels: bool = True) -> str:
    total = hashlib.sha256("\n".join(readings["meter_id"]).encode())
    if labels:
        total.update("\n".join(readings["fault"]).encode())
    total.update(readings["timestamp"].to_numpy("datetime64[us]").astype("<i8").tobytes())
    for name in NUMBERS:
        total.update(readings[name].to_numpy().astype("<f8").tobytes())
    return total.hexdigest()


def test_same_bytes_on_every_machine(small, decade):
    assert digest(small) == BYTES["small"]
    assert digest(decade) == BYTES["seed_2011_2015"]


@pytest.mark.parametrize("preset", PRESETS)
def test_faults_change_no_healthy_meter(preset):
    healthy = simulate(preset, faults={})
    assert digest(healthy, labels=False) == HEALTHY_BYTES[preset] and set(healthy["fault"]) == {""}


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
    sound = ~readings["fault"].isin(["voltage_event", "frequency_excursion"])
    assert readings.loc[sound, "voltage"].between(207, 253).all()
    assert readings.loc[sound, "frequency"].between(49.8, 50.2).all()
    assert readings["voltage"].between(150, 300).all()
    assert readings["frequency"].between(49.3, 50.7).all()
    digits = dict.fromkeys(NUMBERS, 1) | {"temperature": 2, "voltage": 2, "frequency": 3}
    for name, places in digits.items():
        assert (readings[name] == readings[name].round(places)).all()
        assert not (np.signbit(readings[name]) & (readings[name] == 0)).any()


@pytest.mark.parametrize("preset", PRESETS)
def test_every_fault_occurs_and_is_rare(preset, request):
    readings = request.getfixturevalue({"small": "small"}.get(preset, "decade"))
    assert set(readings["fault"]) == {"", *FAULTS} and len(FAULTS) == 12
    assert 0.004 < (readings["fault"] != "").mean() < 0.015


def test_faults_are_what_they_are_called(decade):
    load, expected = decade["consumption"], decade["expected"]
    share = (load / expected).groupby(decade["fault"]).median()
    assert share["drop_out"] == 0 and share["unit_error"] < 0.002
    assert share["spike"] > 2 and 0.2 < share["theft"] < 0.7
    assert abs(share[""] - 1) < 0.01
    spikes = decade["fault"] == "spike"
    assert not (spikes & spikes.shift(fill_value=False)).any()


def test_outside_its_faults_a_meter_is_untouched(often, healthy):
    sound = often["fault"] == ""
    assert 0.05 < (~sound).mean() < 0.12
    pd.testing.assert_frame_equal(often[sound], healthy[sound])
    assert (often["expected"] == healthy["expected"]).all()


def ratio(often: pd.DataFrame, healthy: pd.DataFrame, kind: str) -> pd.Series:
    "What is reported over what is true, in the hours of one kind."
    rows = often["fault"] == kind
    return often.loc[rows, "consumption"] / healthy.loc[rows, "consumption"]


def test_bypassed_share_is_constant_and_a_reversed_phase_is_restless(often, healthy):
    for kind, low, high in (("theft", 0.3, 0.6), ("reversed_meter", 0.2, 0.5)):
        rows = often["fault"] == kind
        share = ratio(often, healthy, kind)
        episode = (rows != rows.shift()).cumsum()[rows]
        assert share.groupby(episode).mean().between(low - 0.05, high + 0.05).all()
        spread = share.groupby(episode).std()
        assert (spread < 0.01).all() if kind == "theft" else (spread > 0.08).all()


def test_solar_power_takes_by_day_and_nothing_by_night(often, healthy):
    share = ratio(often, healthy, "generation")
    hour = often.loc[share.index, "timestamp"].dt.hour
    assert (share[hour.isin([0, 22, 23])] == 1).all() and share[hour.isin([10, 11, 12])].max() < 1


def test_voltage_and_frequency_leave_the_limits_of_their_standards(often, healthy):
    rows = often["fault"] == "voltage_event"
    change = often.loc[rows, "voltage"] / healthy.loc[rows, "voltage"] - 1
    assert change.abs().between(0.0999, 0.2001).all() and change.min() < 0 < change.max()
    assert np.allclose(ratio(often, healthy, "voltage_event"), (1 + change) ** 1.2, rtol=1e-3)
    rows = often["fault"] == "frequency_excursion"
    change = (often.loc[rows, "frequency"] - healthy.loc[rows, "frequency"]).abs()
    assert change.between(0.199, 0.501).all()
    assert ratio(often, healthy, "frequency_excursion").between(0.98, 1.02).all()


@pytest.mark.parametrize("kind, meters", [("frequency_excursion", 4), ("false_data", 3)])
def test_shared_faults_hit_their_meters_at_the_same_hours(often, healthy, kind, meters):
    hit = often[often["fault"] == kind]
    assert (hit.groupby("timestamp")["meter_id"].nunique() == meters).all()
    if kind == "false_data":
        change = (ratio(often, healthy, kind) - 1).groupby(hit["timestamp"])
        assert (change.max() - change.min() < 0.01).all()  # rounding of a reading
        assert change.mean().abs().between(0.055, 0.155).all()


def test_registers_that_go_below_zero_show_a_meter_turned_round(healthy):
    whole = {"reversed_meter": Fault(1.0, 48, 72, 1.0, 1.0)}
    turned = simulate("small", seed=2, faults=whole, two_way=True)
    rows = turned["fault"] == "reversed_meter"
    assert (turned.loc[rows, "consumption"] == -healthy.loc[rows, "consumption"]).all()
    assert (simulate("small", seed=2, faults=whole)["consumption"][rows] == 0).all()


@settings(max_examples=15, deadline=None)
@given(
    rate=st.floats(0.5, 40),
    length=st.integers(1, 60),
    shared=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 1000),
)
def test_faults_never_touch_and_leave_the_first_weeks_alone(rate, length, shared, seed):
    hours = 24 * 120
    meter = pd.DataFrame({"consumption": np.full(hours, 500.0), "voltage": 230.0, "frequency": 50})
    meters = [meter.astype(float), meter.astype(float).iloc[500:].reset_index(drop=True)]
    fault = {"theft": Fault(rate, length, length, 0.4, 0.6, shared)}
    spoiled = plant_faults(meters, fault, np.zeros(hours), np.random.default_rng(seed))
    starts = 0
    for one in spoiled:
        wrong = one["fault"].to_numpy() == "theft"
        assert not wrong[:HEALTHY_START].any()
        edges = np.flatnonzero(np.diff(np.r_[False, wrong, False]))
        assert (edges[1::2] - edges[::2] == length).all() and (
            edges[2::2] - edges[1:-1:2] >= 24
        ).all()
        starts += len(edges) // 2
    assert starts >= 1


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


@pytest.mark.parametrize(
    "fault, message",
    [
        ({"rust": FAULTS["theft"]}, "unknown fault 'rust': use spike, drop_out"),
        ({"theft": replace(FAULTS["theft"], rate=-1)}, "theft: rate -1 is not 0 or a positive"),
        ({"theft": replace(FAULTS["theft"], rate=np.nan)}, "theft: rate nan is not 0"),
        ({"theft": replace(FAULTS["theft"], shortest=0)}, "theft: 0 to 96 hours is no length"),
        ({"theft": replace(FAULTS["theft"], longest=9)}, "theft: 72 to 9 hours is no length"),
        ({"theft": replace(FAULTS["theft"], shared=2)}, "theft: 2 is no share of the meters"),
        ({"theft": replace(FAULTS["theft"], rate=300)}, "theft: no room for so many faults"),
    ],
)
def test_impossible_faults_are_explained(fault, message):
    with pytest.raises(DataError, match=message):
        simulate("small", faults=fault)


def test_no_faults_and_more_faults():
    none = simulate("small", faults=scaled_faults(0))
    assert set(none["fault"]) == {""}
    with pytest.raises(DataError, match="-1 times the usual faults"):
        scaled_faults(-1)
