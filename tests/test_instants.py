"Hours that are counted through a day, and counters."

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smartgrid_ai.alarm_files import read_load
from smartgrid_ai.data.sources import read_readings, write_table
from smartgrid_ai.data.stream import MeterFile
from smartgrid_ai.readings import DataError
from smartgrid_ai.workflow import Source


def counted(year: int, zone: str, meters=("a",), through: bool = True) -> pd.DataFrame:
    "A year whose hours are numbered from 1: through the day, or as the clock shows them."
    hours = pd.date_range(f"{year}-01-01", f"{year + 1}-01-01", freq="h", tz=zone, inclusive="left")
    day = hours.tz_localize(None).normalize()
    number = pd.Series(1, day).groupby(level=0).cumsum().to_numpy() if through else hours.hour + 1
    table = pd.DataFrame({"Fecha": day.strftime("%d/%m/%Y"), "Hora": number, "instant": hours})
    table["kWh"] = np.arange(len(table)) + 0.5
    return pd.concat([table.assign(CUPS=name) for name in meters], ignore_index=True)


def read(table: pd.DataFrame, folder, **how) -> pd.DataFrame:
    path = write_table(table.drop(columns="instant"), folder / "load.csv")
    return read_readings(path, clock="local", **how)


@pytest.mark.parametrize("zone", ["Europe/Madrid", "America/New_York", "Australia/Lord_Howe"])
@pytest.mark.parametrize("meters", [("a",), ("a", "b")])
def test_hours_counted_through_each_day(tmp_path, zone, meters):
    table = counted(2023, zone, meters)
    found = read(table, tmp_path, timezone=zone)
    first = found[found["meter_id"] == "a"]
    instants = pd.DatetimeIndex(table["instant"][: len(table) // len(meters)])
    if zone != "Australia/Lord_Howe":  # whose days are half an hour longer or shorter
        assert (first["timestamp"] == instants.tz_convert("UTC")).all() and len(first) == 8760
    assert any("counts the hours of each day" in note for note in found.attrs["notes"])


def test_a_spring_day_alone_gives_hours_that_are_counted_away(tmp_path):
    table = counted(2023, "Europe/Madrid").iloc[: 24 * 150]
    found = read(table, tmp_path, timezone="Europe/Madrid")
    assert found["timestamp"].diff().dropna().eq(pd.Timedelta("1h")).all()
    assert len(found) == len(table)


def test_hours_off_the_wall_are_read_by_it(tmp_path):
    table = counted(2023, "Europe/Madrid", through=False)
    found = read(table, tmp_path, timezone="Europe/Madrid")
    assert (found["timestamp"] == pd.DatetimeIndex(table["instant"]).tz_convert("UTC")).all()
    assert not any("counts the hours" in note for note in found.attrs["notes"])


def test_a_day_of_25_hours_needs_a_place(tmp_path):
    path = write_table(counted(2023, "Europe/Madrid").drop(columns="instant"), tmp_path / "a.csv")
    with pytest.raises(
        DataError, match=r"column .Hora.: a day of 25 hours.*--clock local --timezone"
    ):
        read_readings(path)


def test_hours_from_nought_to_24_are_refused(tmp_path):
    table = counted(2023, "Europe/Madrid")
    table.loc[0, "Hora"] = 0
    with pytest.raises(DataError, match=r"25.? is no hour of a day that goes from"):
        read(table, tmp_path, timezone="Europe/Madrid")


def registers(meters: int, hours: int, seed: int = 0, step: str = "1h") -> pd.DataFrame:
    "Counters in kWh, and the energy of each step."
    random = np.random.default_rng(seed)
    stamps = pd.date_range("2024-01-01", periods=hours, freq=step)
    parts = []
    for number in range(meters):
        energy = random.gamma(2, size=hours).round(3)
        display = random.integers(0, 9999) + np.r_[0, np.cumsum(energy)[:-1]]
        parts.append(
            pd.DataFrame({"meter": f"m{number}", "time": stamps, "kWh": display, "energy": energy})
        )
    return pd.concat(parts, ignore_index=True)


@given(st.integers(1, 3), st.integers(3, 60), st.integers(0, 99), st.sampled_from(["1h", "15min"]))
@settings(max_examples=30, deadline=None)
def test_a_register_tells_the_energy_of_each_step(tmp_path_factory, meters, hours, seed, step):
    table = registers(meters, hours, seed, step)
    folder = tmp_path_factory.mktemp("register")
    known = table.groupby("meter").cumcount(ascending=False) > 0  # the last reading begins no step
    plain = write_table(table[known][["meter", "time", "energy"]], folder / "energy.csv")
    counter = write_table(table[["meter", "time", "kWh"]], folder / "counter.csv")
    expected = read_readings(plain, unit="kWh", step=step)
    found = read_readings(counter, columns={"register": "kWh"}, step=step)
    pd.testing.assert_frame_equal(found, expected, rtol=1e-6, atol=1e-6)


def test_rises_over_gaps_and_falls_are_missing(tmp_path):
    table = registers(1, 48).drop(index=[10, 20]).drop(columns="energy")
    table.loc[30:, "kWh"] -= 5000  # exchanged
    table.loc[40, "kWh"] = np.nan
    path = write_table(table, tmp_path / "counter.csv")
    found = read_readings(path, columns={"register": "kWh"})
    missing = found.loc[found["consumption"].isna(), "timestamp"].dt.hour
    assert missing.tolist() == [9, 19, 29 - 24, 39 - 24, 40 - 24]
    assert any("falls 1 times" in note for note in found.attrs["notes"])


def test_registers_side_by_side_and_piece_by_piece(tmp_path):
    table = registers(2, 48).drop(columns="energy")
    long = write_table(table, tmp_path / "long.parquet")
    wide = write_table(
        table.pivot(index="time", columns="meter", values="kWh").reset_index(),
        tmp_path / "wide.csv",
    )
    whole = read_readings(long, columns={"register": "kWh"})
    turned = read_readings(wide, unit="kWh", columns={"register": "m*"})
    pieces = MeterFile(long, columns={"register": "kWh"})
    pd.testing.assert_frame_equal(turned, whole)
    pd.testing.assert_frame_equal(pieces.read(["m0", "m1"]), whole)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"columns": {"register": "kWh"}, "unit": "kW"}, "counts energy, and kW is power"),
        ({"columns": {"register": "kWh", "consumption": "meter"}}, "would both be the load"),
        ({"columns": {"register": "index"}}, "no column 'index'; there are: meter, time, kWh"),
    ],
)
def test_registers_that_cannot_be_are_named(tmp_path, how, message):
    path = write_table(registers(1, 48).drop(columns="energy"), tmp_path / "counter.csv")
    with pytest.raises(DataError, match=message):
        read_readings(path, **how)


@pytest.mark.parametrize("step", ["0min", "-15min", "2h"])
def test_steps_that_no_load_can_have_are_refused(tmp_path, step):
    path = write_table(registers(1, 48).drop(columns="energy"), tmp_path / "load.csv")
    with pytest.raises(DataError, match=r"a step of .*: give a length above 0 and at most 1h"):
        read_readings(path, step=step)


@pytest.mark.parametrize("columns", [{"register": "kWh"}, {"register": "m*"}])
def test_rows_to_learn_from_are_known_beside_a_register(tmp_path, columns):
    table = registers(2, 48).drop(columns="energy")
    if columns["register"] == "m*":
        table = table.pivot(index="time", columns="meter", values="kWh").reset_index()
    table["split"] = np.where(table["time"] < table["time"][24], "train", "test")
    path = write_table(table, tmp_path / "load.csv")
    load = read_load(Source(str(path), unit="kWh", columns=tuple(columns.items())))
    assert (
        load.groupby("meter_id")["split"].apply(lambda split: (split == "train").sum()).eq(24).all()
    )
