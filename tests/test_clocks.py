"""What a load goes by when clocks are changed, and what is said of a file that was read by another clock."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smartgrid_ai.data.clocks import MOST_METERS, clock_changes, clock_doubt, kept_clock
from smartgrid_ai.data.sources import read_readings

BERLIN = "Europe/Berlin"
DOUBT = "when clocks are changed in "


def office(days: int = 400, zone: str = BERLIN, meters: int = 1, seed: int = 0) -> pd.DataFrame:
    "People who work from eight to six by the clock on the wall, for at least one change each way."
    rng = np.random.default_rng(seed)
    clock = pd.date_range("2023-01-01", periods=24 * days, freq="h", tz="UTC").as_unit("us")
    wall = clock.tz_convert(zone)
    work = ((wall.hour >= 8) & (wall.hour < 18) & (wall.day_of_week < 5)).astype(float)
    loads = [
        100 * (1 + meter) * (1 + 4 * work + rng.normal(0, 0.3, len(clock)))
        for meter in range(meters)
    ]
    parts = [
        pd.DataFrame({"meter_id": f"office {number:03}", "timestamp": clock, "consumption": load})
        for number, load in enumerate(loads)
    ]
    return pd.concat(parts, ignore_index=True)


def written(readings: pd.DataFrame, zone: str, path, offset: bool = False):
    "A file of the same readings with stamps of the clock of a zone, by itself or with Z behind it."
    wall = readings["timestamp"].dt.tz_convert(zone).dt.strftime("%Y-%m-%d %H:%M")
    table = readings.assign(timestamp=wall + "Z" * offset)
    table = table.drop_duplicates(["meter_id", "timestamp"])
    table.to_csv(path, index=False)
    return path


def doubts(path, clock: str = "utc", zone: str = BERLIN) -> list[str]:
    read = read_readings(path, unit="W", clock=clock, timezone=zone)
    return [note for note in read.attrs["notes"] if note.startswith(DOUBT)]


@given(
    zone=st.sampled_from(["Europe/Lisbon", "America/New_York", "Australia/Melbourne"]),
    seed=st.integers(0, 10),
)
def test_who_reads_a_file_by_its_clock_hears_nothing(zone, seed):
    readings = office(zone=zone, seed=seed)
    kept = kept_clock(readings, zone)
    assert kept.idxmin() == "wall" and clock_doubt(readings, zone, "utc") is None


@pytest.mark.parametrize("zone", ["Europe/Lisbon", "America/New_York", "Australia/Melbourne"])
def test_stamps_of_the_wall_clock_read_as_utc_are_told_to_be_called_local(zone, tmp_path):
    path = written(office(zone=zone), zone, tmp_path / "wall.csv")
    said = doubts(path, zone=zone)
    assert len(said) == 1 and zone in said[0] and "--clock local" in said[0]
    assert not doubts(path, clock="local", zone=zone)


def test_a_file_in_utc_read_as_local_is_told_to_leave_that_out(tmp_path):
    path = written(office(), "UTC", tmp_path / "utc.csv")
    said = doubts(path, clock="local")
    assert len(said) == 1 and "leave --clock local out" in said[0]
    assert not doubts(path)


def test_an_offset_that_is_the_same_all_year_needs_a_fixed_zone(tmp_path):
    path = written(office(), BERLIN, tmp_path / "moved.csv", offset=True)
    said = doubts(path)
    assert len(said) == 1 and "Etc/GMT-1" in said[0] and "--clock" not in said[0]
    assert not doubts(path, zone="Etc/GMT-1")


@pytest.mark.parametrize("days", [60, 200])
def test_less_than_two_changes_are_no_ground_for_a_doubt(days, tmp_path):
    readings = office(days)
    assert kept_clock(readings, BERLIN) is None
    assert not doubts(written(readings, BERLIN, tmp_path / "short.csv"))


@pytest.mark.parametrize("kind", ["flat", "noise", "empty", "sparse"])
def test_loads_without_habits_say_nothing(kind, tmp_path):
    readings = office()
    noise = np.random.default_rng(1).gamma(2, 50, len(readings))
    load = {"flat": 100.0, "noise": noise, "empty": np.nan}.get(kind, readings["consumption"])
    readings = readings.assign(consumption=load)
    if kind == "sparse":
        readings = readings[readings["timestamp"].dt.day % 6 == 0]
    assert not doubts(written(readings, BERLIN, tmp_path / f"{kind}.csv"))


def test_one_meter_that_goes_by_the_sun_among_others_does_not_matter():
    readings = office(meters=3)
    sun = readings["meter_id"] == "office 001"
    noon = np.clip(np.cos((readings["timestamp"].dt.hour - 11) * np.pi / 12), 0, None)
    readings.loc[sun, "consumption"] = -1000 * noon[sun]
    assert clock_doubt(readings, BERLIN, "utc") is None
    assert clock_doubt(readings[sun], BERLIN, "utc").endswith(
        "solar power, looks the same and is well"
    )


def test_meters_beyond_the_fiftieth_are_not_asked():
    readings = office(meters=2)
    names = [f"m{number:03}" for number in range(MOST_METERS + 1)]
    many = pd.concat(
        [readings[readings["meter_id"] == "office 000"].assign(meter_id=n) for n in names]
    )
    many.loc[many["meter_id"] == names[-1], "consumption"] = np.nan
    pd.testing.assert_series_equal(kept_clock(many, BERLIN), kept_clock(readings[:9600], BERLIN))


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "Etc/GMT-1", "Australia/Lord_Howe"])
def test_zones_without_changes_of_an_hour(zone):
    readings = office(zone=zone)
    stamps = readings["timestamp"]
    assert clock_changes(stamps.min(), stamps.max(), zone).empty
    assert clock_doubt(readings, zone, "utc") is None


@pytest.mark.parametrize(
    "name, zone, clock, expected",
    [
        ("vic_elec", "Australia/Melbourne", "utc", None),
        ("vic_elec", "Australia/Melbourne", "local", "leave --clock local out"),
        ("cambridge", "Europe/London", "utc", None),
        ("london_lcl", "Europe/London", "utc", None),
        ("gefcom2014e", "America/New_York", "utc", "--clock local"),
        ("pjm_zones", "America/New_York", "utc", "--clock local"),
        ("pjm_zones", "America/New_York", "local", None),
        ("fr_load", "Europe/Paris", "utc", "--clock local"),
    ],
)
def test_public_sets(shared_data, name, zone, clock, expected):
    "The French load is stamped two hours behind the wall clock all year, whatever its description says."
    said = doubts(shared_data / "load" / f"{name}.parquet", clock, zone)
    assert expected in said[0] if expected else not said
