"""Files of every kind become the one table; what cannot is refused with the mend."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smartgrid_ai.data.columns import describe_column, find_columns
from smartgrid_ai.data.simulate import simulate
from smartgrid_ai.data.sources import read_readings, write_table
from smartgrid_ai.data.timestamps import parse_timestamps, wall_clock_to_utc
from smartgrid_ai.readings import DataError, check_readings

QUICK = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def csv(tmp_path):
    "Write a CSV from lines and give its path."

    def write(*lines: str, name: str = "mine.csv", encoding: str = "utf-8") -> Path:
        path = tmp_path / name
        path.write_bytes(("\n".join(lines) + "\n").encode(encoding))
        return path

    return write


def table(meters: int, hours: int, seed: int = 0) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    stamps = pd.date_range("2014-03-01", periods=hours, freq="h", tz="UTC", unit="us")
    frame = pd.DataFrame(
        {
            "meter_id": np.repeat([f"m{number}" for number in range(meters)], hours),
            "timestamp": np.tile(stamps, meters),
            "consumption": draw.lognormal(6, 1, meters * hours),
            "temperature": draw.normal(10, 8, meters * hours),
        }
    )
    frame.loc[draw.random(len(frame)) < 0.1, "consumption"] = np.nan
    return frame.astype({"meter_id": "str"})


# -- round trips ---------------------------------------------------------------------------------


@QUICK
@given(
    values=st.lists(st.floats(0, 1e9) | st.just(float("nan")), min_size=2, max_size=60),
    suffix=st.sampled_from([".csv", ".csv.gz", ".parquet"]),
)
def test_written_is_read_to_the_last_bit(tmp_path, values, suffix):
    stamps = pd.date_range("2014-10-26", periods=len(values), freq="h", tz="UTC", unit="us")
    frame = pd.DataFrame({"meter_id": "a,b", "timestamp": stamps, "consumption": values})
    frame = frame.astype({"meter_id": "str", "consumption": "float64"})
    again = read_readings(write_table(frame, tmp_path / f"table{suffix}"), unit="W")
    pd.testing.assert_frame_equal(again, frame, check_exact=True)


@QUICK
@given(seed=st.integers(0, 1000), suffix=st.sampled_from([".csv", ".parquet"]))
def test_order_of_rows_does_not_matter(tmp_path, seed, suffix):
    frame = table(3, 30)
    shuffled = frame.sample(frac=1, random_state=seed)
    again = read_readings(write_table(shuffled, tmp_path / f"mixed{suffix}"), unit="W")
    pd.testing.assert_frame_equal(again, frame)


def test_simulated_readings_keep_fault_and_expected(tmp_path):
    frame = simulate("small").iloc[:3000]
    for suffix in (".csv", ".parquet"):
        again = read_readings(write_table(frame, tmp_path / f"simulated{suffix}"), unit="W")
        pd.testing.assert_frame_equal(again, frame)
    assert again.attrs["notes"] == []


@pytest.mark.parametrize("hours", [24, 1])
def test_midnights_are_written_with_their_time_of_day(tmp_path, hours):
    "Daily issues look like hourly ones, also without a time zone."
    frame = pd.DataFrame({"issued": pd.date_range("2014-10-26", periods=3, freq=f"{hours}h")})
    written = write_table(frame, tmp_path / "issues.csv").read_text().splitlines()
    assert written[1] == "2014-10-26 00:00:00"
    assert frame["issued"].dtype.kind == "M"


def hours_of(tmp_path, lines: list[str], **options) -> pd.DataFrame:
    "What is read of a CSV with these lines."
    path = tmp_path / "own.csv"
    path.write_text("\n".join(lines) + "\n")
    return read_readings(path, unit="W", **options)


@pytest.mark.parametrize(
    ("stamp", "mark"),
    [
        ("2014-10-{:02d} {:02d}:00", ""),
        ("{:02d}.10.2014 {:02d}:00:00", ""),
        ("2014-10-{:02d}T{:02d}:00", "Z"),
        ("2014-10-{:02d}T{:02d}:00:00.0", "+00:00"),
    ],
)
def test_midnight_may_be_the_day_befores_24_o_clock(tmp_path, stamp, mark):
    hours = [(day, hour) for day in (14, 15) for hour in range(1, 25)]
    rows = [f"{stamp.format(*hour)}{mark},{number}" for number, hour in enumerate(hours)]
    readings = hours_of(tmp_path, ["timestamp,load", *rows])
    wanted = pd.date_range("2014-10-14 01:00", periods=48, freq="h", tz="UTC")
    assert (readings["timestamp"] == wanted).all()
    assert readings["consumption"].tolist() == list(range(48))


@pytest.mark.parametrize("wrong", ["2014-10-14 24:30", "2014-10-14 25:00", "24:00"])
def test_no_other_24_is_an_hour(tmp_path, wrong):
    with pytest.raises(DataError, match=f"line 3: '{wrong}' is no point in time"):
        hours_of(tmp_path, ["timestamp,load", "2014-10-14 23:00,1", f"{wrong},2"])


@pytest.mark.parametrize("first", [0, 1])
def test_date_and_hour_of_day_in_two_columns(tmp_path, first):
    hours = [(day, hour + first) for day in (14, 15) for hour in range(24)]
    rows = [f"2014-10-{day},{hour},{hour}" for day, hour in hours]
    readings = hours_of(tmp_path, ["Date,Hour,load", *rows])
    wanted = pd.date_range("2014-10-14", periods=48, freq="h", tz="UTC")
    assert (readings["timestamp"] == wanted).all()
    told = [note for note in readings.attrs["notes"] if "goes from 1 to 24" in note]
    assert len(told) == first


@pytest.mark.parametrize("wrong", ["25", "-1", "1.5", "noon", ""])
def test_an_hour_that_is_none_is_named(tmp_path, wrong):
    rows = ["date,hour,load", "2014-10-14,0,1", f"2014-10-14,{wrong},2"]
    with pytest.raises(DataError, match=r"line 3, column 'hour'.*is no hour of a day"):
        hours_of(tmp_path, rows)


def test_hours_cannot_count_from_0_and_to_24(tmp_path):
    rows = [f"2014-10-14,{hour},1" for hour in range(25)]
    with pytest.raises(DataError, match="line 26, column 'hour'"):
        hours_of(tmp_path, ["date,hour,load", *rows])


def test_hours_without_0_and_24_may_begin_or_end(tmp_path):
    rows = [f"2014-10-14,{hour},1" for hour in range(1, 24)]
    with pytest.raises(DataError, match="go from 1 to 23, and without a 0 or a 24"):
        hours_of(tmp_path, ["date,hour,load", *rows])


def test_full_stamps_need_no_hour_column(tmp_path):
    rows = [f"2014-10-14 {hour:02d}:00,{9},1" for hour in range(6)]
    readings = hours_of(tmp_path, ["date,hour,load", *rows])
    assert readings["timestamp"].dt.hour.tolist() == list(range(6))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_titles_above_the_header_are_left_out_and_lines_still_count(tmp_path, separator):
    titles = ["Meter 17 in the cellar", "made 2014-10-20", "", "timestamp,load"]
    rows = [f"2014-10-14 {hour:02d}:00,{hour}" for hour in range(6)]
    lines = [line.replace(",", separator) for line in [*titles, *rows]]
    assert hours_of(tmp_path, lines)["consumption"].tolist() == list(range(6))
    lines[-1] = f"2014-10-14 05:00{separator}five"
    with pytest.raises(DataError, match="line 10, column 'load': 'five' is not a number"):
        hours_of(tmp_path, lines)


def test_same_table_gives_same_bytes(tmp_path):
    for suffix in (".csv", ".csv.gz", ".parquet"):
        first = write_table(table(2, 10), tmp_path / f"one{suffix}").read_bytes()
        assert first == write_table(table(2, 10), tmp_path / f"two{suffix}").read_bytes()


# -- units and steps -----------------------------------------------------------------------------


@QUICK
@given(
    minutes=st.sampled_from([1, 5, 10, 15, 20, 30, 60]),
    hours=st.integers(2, 12),
    unit=st.sampled_from(["Wh", "kWh", "MWh"]),
    seed=st.integers(0, 100),
)
def test_no_energy_is_lost(tmp_path, minutes, hours, unit, seed):
    steps = hours * 60 // minutes
    energy = np.random.default_rng(seed).uniform(0, 3, steps)
    stamps = pd.date_range("2014-01-01", periods=steps, freq=f"{minutes}min")
    path = write_table(pd.DataFrame({"time": stamps, "energy": energy}), tmp_path / "e.parquet")
    read = read_readings(path, unit=unit)
    assert len(read) == hours
    factor = {"Wh": 1, "kWh": 1e3, "MWh": 1e6}[unit]
    assert read["consumption"].sum() == pytest.approx(energy.sum() * factor)


def test_mean_power_of_an_hour_needs_half_of_its_steps(csv):
    path = csv(
        "time,power_kW,temp",
        "2014-01-01 00:00,1,5",
        "2014-01-01 00:15,3,",
        "2014-01-01 00:30,,",
        "2014-01-01 01:00,7,",
        "2014-01-01 01:15,,8",
        "2014-01-01 02:00,2,",
        "2014-01-01 02:15,2,",
        "2014-01-01 02:30,2,",
        "2014-01-01 02:45,6,",
    )
    read = read_readings(path)
    assert read["consumption"].tolist()[::2] == [2000, 3000] and np.isnan(read["consumption"][1])
    assert read["temperature"].tolist()[:2] == [5, 8] and np.isnan(read["temperature"][2])
    assert "steps of 15 min averaged to hours" in read.attrs["notes"]


def test_meters_may_differ_in_step(csv):
    lines = [
        f"quarter,2014-01-01 {hour:02}:{minute:02},1"
        for hour in range(3)
        for minute in (0, 15, 30, 45)
    ]
    lines += [f"hourly,2014-01-01 {hour:02}:00,4" for hour in range(3)]
    read = read_readings(csv("meter,time,kWh", *lines))
    assert (read["consumption"] == 4000).all() and len(read) == 6


def test_a_told_unit_that_the_name_contradicts_is_noted(csv):
    read = read_readings(csv("time,Load (MW)", "2014-01-01 00:00,2"), unit="kWh")
    assert read["consumption"].tolist() == [2000]
    assert "read as kWh, as told, though its name 'Load (MW)' says MW" in read.attrs["notes"]


def test_a_told_step_wins(csv):
    path = csv("time,kWh", "2014-01-01 00:00,1", "2014-01-01 01:00,1")
    assert read_readings(path, step="30min")["consumption"].tolist() == [2000, 2000]


def test_a_told_step_is_not_longer_than_the_file_shows(csv):
    lines = [
        f"2014-01-01 {hour:02}:{minute:02},1" for hour in range(3) for minute in (0, 15, 30, 45)
    ]
    with pytest.raises(
        DataError, match="0 days 00:15:00 apart, closer than a step of 0 days 01:00:00"
    ):
        read_readings(csv("time,kWh", *lines), step="1h")


def test_unit_from_the_name_and_the_silence_about_it(csv):
    said = read_readings(csv("time,load_mw", "2014-01-01 00:00,2"))
    assert (
        said["consumption"][0] == 2e6
        and "unit MW read from the name 'load_mw'" in said.attrs["notes"]
    )
    silent = read_readings(csv("time,load", "2014-01-01 00:00,2"))
    assert "no unit told nor found in 'load': taken as W" in silent.attrs["notes"]
    told = read_readings(csv("time,load_mw", "2014-01-01 00:00,2"), unit="kW")
    assert told["consumption"][0] == 2000


# -- columns -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "consumption", "unit"),
    [
        (["LCLid", "tstp", "energy(kWh/hh)"], "energy(kWh/hh)", "kWh"),
        (["Datetime", "AEP_MW"], "AEP_MW", "MW"),
        (["Time", "Demand", "Temperature", "Date", "Holiday"], "Demand", None),
        (["unique_id", "ds", "y"], "y", None),
        (["building_id", "meter", "timestamp", "meter_reading"], "meter_reading", None),
        (["Meter ID", "Date Time", "Consumption [Wh]"], "Consumption [Wh]", "Wh"),
    ],
)
def test_columns_of_well_known_files(names, consumption, unit):
    found = find_columns(names, {}, "file")
    assert found["consumption"] == consumption and describe_column(consumption)[1] == unit
    assert "timestamp" in found


def test_told_columns_win(csv):
    path = csv("time,load,gross", "2014-01-01 00:00,1,2")
    read = read_readings(path, columns={"consumption": "gross"})
    assert read["consumption"][0] == 2
    assert "columns not used: load" in read.attrs["notes"]


def test_ids_are_text_with_their_zeros(csv):
    path = csv("meter,time,W", "007,2014-01-01 00:00,1", "12,2014-01-01 00:00,2")
    assert read_readings(path)["meter_id"].tolist() == ["007", "12"]


@pytest.mark.parametrize("dtype", ["int64", "float64", "category", "str"])
def test_ids_of_any_type_in_parquet(tmp_path, dtype):
    frame = pd.DataFrame(
        {"id": pd.Series([7, 8]).astype(dtype), "ds": pd.Timestamp("2014-01-01"), "y": [1, 2]}
    )
    path = write_table(frame, tmp_path / "ids.parquet")
    assert read_readings(path)["meter_id"].tolist() == ["7", "8"]


def test_without_meter_column_the_file_is_the_meter(csv):
    read = read_readings(csv("time,W", "2014-01-01 00:00,1", name="kitchen.csv"))
    assert read["meter_id"].tolist() == ["kitchen"]


def test_index_of_timestamps_in_parquet(tmp_path):
    stamps = pd.date_range("2014-01-01", periods=3, freq="h", tz="Europe/Paris")
    pd.DataFrame({"load": [1.0, 2, 3]}, index=stamps).to_parquet(tmp_path / "indexed.parquet")
    read = read_readings(tmp_path / "indexed.parquet")
    assert str(read["timestamp"][0]) == "2013-12-31 23:00:00+00:00"


def test_a_foreign_column_of_our_name_is_not_used(csv):
    path = csv("time,W,quality,expected", "2014-01-01 00:00,1,good,maybe")
    read = read_readings(path)
    assert list(read) == ["meter_id", "timestamp", "consumption"]
    assert {"columns not used: quality", "columns not used: expected"} <= set(read.attrs["notes"])


def test_stamps_off_the_hour_fall_into_it(csv):
    read = read_readings(csv("time,W", "2014-01-01 00:20,1", "2014-01-01 01:20,2"))
    assert [f"{stamp:%H:%M}" for stamp in read["timestamp"]] == ["00:00", "01:00"]
    assert "stamps off the full hour" in " ".join(read.attrs["notes"])


def test_hourly_rows_keep_the_half_hour_at_which_they_begin(csv):
    read = read_readings(csv("time,W", "2014-01-01 00:30,1", "2014-01-01 01:30,2"))
    assert [f"{stamp:%H:%M}" for stamp in read["timestamp"]] == ["00:30", "01:30"]
    assert "off the full hour" not in " ".join(read.attrs["notes"])


def test_fahrenheit(csv):
    read = read_readings(csv("time,W,temp_F", "2014-01-01 00:00,1,50"))
    assert read["temperature"][0] == pytest.approx(10) and "°C" in " ".join(read.attrs["notes"])


# -- how text is written -------------------------------------------------------------------------


def test_two_decimal_signs_in_a_file_are_refused(csv):
    path = csv(
        "meter;time;kW;temperature",
        "x;31.01.2014 00:00;1.234,5;21.0",
        "x;31.01.2014 01:00;7,5;20.5",
    )
    with pytest.raises(DataError, match=r"'21\.0' has a point before decimals"):
        read_readings(path)


def test_decimal_commas_thousands_and_semicolons(csv):
    path = csv(
        "Meter;Datetime;Load [kW];Temperature [°C]",
        "x;31.01.2014 00:00;1.234,5;-3,5",
        "x;31.01.2014 01:00;12,25;4",
        encoding="cp1252",
    )
    read = read_readings(path)
    assert read["consumption"].tolist() == [1_234_500, 12_250]
    assert read["temperature"].tolist() == [-3.5, 4]


def test_a_mark_of_order_and_blank_lines_do_no_harm(csv):
    path = csv(
        "", "time,W", "", "2014-01-01 00:00,1", "", "2014-01-01 01:00,?", encoding="utf-8-sig"
    )
    assert read_readings(path)["consumption"].tolist()[0] == 1 and len(read_readings(path)) == 2


def test_date_and_time_apart(csv):
    lines = [f"16/12/2006;17:{minute:02}:00;4.2" for minute in range(60)]
    read = read_readings(csv("Date;Time;Global_active_power", *lines), unit="kW")
    assert read["consumption"].tolist() == [pytest.approx(4200)]
    assert str(read["timestamp"][0]) == "2006-12-16 17:00:00+00:00"


TURKISH = [f"0{1 + hour // 24}.01.2015;{hour % 24:02}:00;1.{hour:03},05" for hour in range(48)]


@pytest.mark.parametrize(
    "columns", [{}, {"date": "Tarih", "time": "Saat"}, {"timestamp": "Tarih", "time": "Saat"}]
)
def test_date_and_time_under_other_names(csv, columns):
    path = csv("Tarih;Saat;Tüketim Miktarı (MWh)", *TURKISH)
    read = read_readings(path, columns=columns)
    assert (read["timestamp"] == pd.date_range("2015-01-01", periods=48, freq="h", tz="UTC")).all()
    assert read["consumption"][47] == pytest.approx(1047.05e6)
    assert not any("not used" in note for note in read.attrs["notes"])


@pytest.mark.parametrize("columns", [{}, {"date": "Fecha", "hour": "Hora"}])
def test_hours_under_another_name(csv, columns):
    lines = [f"2015-01-01,{hour},5" for hour in range(1, 25)]
    path = csv("Fecha,Hora,MWh", *lines)
    read = read_readings(path, columns=columns)
    assert str(read["timestamp"].iloc[-1]) == "2015-01-01 23:00:00+00:00"


@pytest.mark.parametrize(
    ("header", "date", "time"),
    [
        ("Datum;Uhrzeit;Verbrauch [kWh]", "Datum", "Uhrzeit"),
        ("Data;Ora;Consumi (kWh)", "Data", "Ora"),
        ("Date;Heure;Consommation (kWh)", "Date", "Heure"),
        ("CUPS;Fecha;Hora;Consumo_kWh", "Fecha", "Hora"),
    ],
)
def test_date_and_time_in_the_words_of_several_countries(header, date, time):
    found = find_columns(header.split(";"), {}, "load.csv")
    assert (found["date"], found["time"]) == (date, time)
    assert found["consumption"] == header.split(";")[-1]


def test_a_load_called_data_is_no_date(csv):
    path = csv("time;data", "2014-01-01 00:00;1", "2014-01-01 01:00;2")
    read = read_readings(path, unit="W", columns={"consumption": "data"})
    assert read["consumption"].tolist() == [1, 2]


TITLES = ["Load profile;Meter 7;", "Period;01.03.2014;31.03.2014", ""]


@pytest.mark.parametrize("titles", [TITLES, TITLES[:1], ["Load profile", "Meter: 7", ""], []])
def test_titles_above_the_header_are_left_out(csv, titles):
    lines = [f"01.03.2014;{hour:02}:00;1.{hour:03},5" for hour in range(24)]
    path = csv(*titles, "Datum;Uhrzeit;Verbrauch [kWh]", *lines, "01.03.2014;24:00;x")
    with pytest.raises(DataError, match=f"line {len(titles) + 26}, column 'Verbrauch"):
        read_readings(path)
    read = read_readings(csv(*titles, "Datum;Uhrzeit;Verbrauch [kWh]", *lines))
    assert read["consumption"].iloc[-1] == 1023.5e3 and len(read) == 24


@pytest.mark.parametrize("blank", [" ", "\u00a0", "\u202f"])
def test_blanks_between_thousands(csv, blank):
    lines = [f"2014-03-01 {hour:02}:00;1{blank}2{hour:02},5;3,5" for hour in range(24)]
    read = read_readings(csv("time;kWh;temperature", *lines))
    assert read["consumption"].tolist() == [1000 * (1200.5 + hour) for hour in range(24)]


def test_commas_between_thousands_in_quotes(csv):
    lines = [f'2014-03-01 {hour:02}:00,"1,2{hour:02}.5",3.5' for hour in range(24)]
    read = read_readings(csv("time,kWh,temperature", *lines))
    assert read["consumption"].tolist() == [1000 * (1200.5 + hour) for hour in range(24)]


@pytest.mark.parametrize("number", ["0,125", "1,250", "12,5"])
def test_commas_in_quotes_that_may_be_decimal_are_asked_about(csv, number):
    path = csv("time,kWh", f'2014-03-01 00:00,"{number}"', "2014-03-01 01:00,2")
    with pytest.raises(DataError, match=f"'{number}' is not a number"):
        read_readings(path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"time": "Saat"}, "time=Saat says the time of day alone; name the column of the date"),
        ({"date": "Tarih"}, r"dates without a time of day.*--column date=… --column time=…"),
        ({"date": "Tarih", "time": "Zon"}, "line 2, column 'Zon': '7' is no time of day such as"),
        ({"day": "Tarih"}, "unknown column 'day': use .*date, time, hour"),
    ],
)
def test_dates_without_their_times_are_asked_about(csv, columns, message):
    path = csv("Tarih;Saat;MWh;Zon", *(f"{line};7" for line in TURKISH))
    with pytest.raises(DataError, match=message):
        read_readings(path, columns=columns)


WIDE = ["time,temperature,north_MW,south_MW,price"] + [
    f"2014-01-01 {hour:02}:00,{hour},{hour},{hour + 10},50" for hour in range(24)
]


def test_a_column_for_each_meter(csv):
    read = read_readings(csv(*WIDE), columns={"consumption": "*_MW"})
    assert read["meter_id"].tolist() == ["north_MW"] * 24 + ["south_MW"] * 24
    assert read["consumption"].tolist() == [1e6 * hour for hour in (*range(24), *range(10, 34))]
    assert read["temperature"].tolist() == [*range(24)] * 2
    notes = read.attrs["notes"]
    assert "2 columns read as meters: north_MW, south_MW" in notes
    assert "columns not used: price" in notes


def test_a_column_for_each_meter_says_what_a_row_for_each_would(csv, tmp_path):
    path, names = csv(*WIDE), ["north_MW", "south_MW"]
    long = pd.read_csv(path).melt(["time", "temperature"], names, "meter", "load")
    other = write_table(long, tmp_path / "long.csv")
    one = read_readings(path, columns={"consumption": "*_MW"})
    pd.testing.assert_frame_equal(one, read_readings(other, unit="MW"))


def test_a_column_for_each_meter_is_the_same_in_parquet(csv, tmp_path):
    path = csv(*WIDE)
    other = write_table(pd.read_csv(path), tmp_path / "wide.parquet")
    one, two = (read_readings(p, columns={"consumption": "*_MW"}) for p in (path, other))
    pd.testing.assert_frame_equal(one, two)


def test_a_star_is_all_that_is_nothing_else(csv):
    path = csv("ds;7;8;wind_speed", "2014-01-01 00:00;1;2;3", "2014-01-01 01:00;1;2;3")
    read = read_readings(path, unit="kW", columns={"consumption": "*"})
    assert read["meter_id"].tolist() == ["7", "7", "8", "8"] and read["wind_speed"].eq(3).all()


@pytest.mark.parametrize(
    ("lines", "columns", "message"),
    [
        (WIDE, {}, "north_MW, south_MW could all be.*or say that each is a meter"),
        (WIDE, {"consumption": "MT_*"}, "no column is like 'MT_\\*'; there are: time"),
        (
            WIDE,
            {"consumption": "*MW", "meter_id": "price"},
            "makes a meter of each column, and 'price' would name it again",
        ),
        (
            [*WIDE, "2014-01-02 00:00,1,2,no,3"],
            {"consumption": "*_MW"},
            "line 26 of 'south_MW', column.*'no' is not a number",
        ),
    ],
)
def test_columns_of_meters_that_cannot_be_read_are_named(csv, lines, columns, message):
    with pytest.raises(DataError, match=message):
        read_readings(csv(*lines), columns=columns)


@pytest.mark.parametrize(
    ("stamp", "instant"),
    [
        ("2014-07-01 02:00", "2014-07-01 02:00"),
        ("2014-07-01T02:00Z", "2014-07-01 02:00"),
        ("2014-07-01 02:00:00 UTC", "2014-07-01 02:00"),
        ("2014-07-01T02:00:00.000+0200", "2014-07-01 00:00"),
        ("2014-07-01 02:00:00-04", "2014-07-01 06:00"),
        ("31/07/2014 02:00", "2014-07-31 02:00"),
        ("7/31/2014 2:00", "2014-07-31 02:00"),
        ("07/31/2014 02:00:00 PM", "2014-07-31 14:00"),
        ("31.07.2014 02:00", "2014-07-31 02:00"),
        ("2014/07/31 02:00", "2014-07-31 02:00"),
        ("1404180000", "2014-07-01 02:00"),
        ("1404180000000", "2014-07-01 02:00"),
    ],
)
def test_ways_to_write_a_stamp(csv, stamp, instant):
    read = read_readings(csv("time,W", f"{stamp},1"))
    assert read["timestamp"][0] == pd.Timestamp(instant, tz="UTC")


def test_day_or_month_first_is_seen_from_the_column():
    months = pd.Series([f"{month}/01/2014 00:00" for month in range(1, 13)])
    days = pd.Series([f"{day}/01/2014 00:00" for day in range(1, 13)])
    seconds = pd.Series([f"01/{day:02}/2014 00:00:00.000" for day in range(1, 5)])
    assert parse_timestamps(seconds)[0].is_monotonic_increasing
    hours = pd.Series([f"03/04/2014 {hour}:00" for hour in range(24)] + ["04/04/2014 0:00"])
    for text in (months, days):
        stamps, notes = parse_timestamps(text)
        assert stamps.is_monotonic_increasing and "first" in notes[0]
    assert parse_timestamps(hours)[0].iloc[-1] == pd.Timestamp("2014-04-04")


# -- clocks --------------------------------------------------------------------------------------

ZONES = [
    "Europe/London",
    "Australia/Melbourne",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Tokyo",
]


@QUICK
@given(
    zone=st.sampled_from(ZONES[:3]),
    first=st.dates(pd.Timestamp("2012-01-01").date(), pd.Timestamp("2015-12-01").date()),
    minutes=st.sampled_from([15, 30, 60]),
    newest_first=st.booleans(),
)
def test_wall_clock_finds_its_way_back(zone, first, minutes, newest_first):
    "A fortnight of true instants, shown on a wall and read back, clock changes or not."
    instants = pd.date_range(
        str(first), periods=14 * 24 * 60 // minutes, freq=f"{minutes}min", tz="UTC"
    )
    if newest_first:
        instants = instants[::-1]
    wall = pd.Series(instants.tz_convert(zone).tz_localize(None))
    back = wall_clock_to_utc(wall, np.zeros(len(wall), dtype=int), zone)
    assert (pd.DatetimeIndex(back) == instants).all()


@pytest.mark.parametrize(
    ("zone", "autumn", "spring"),
    [
        ("Europe/London", "2014-10-26 01:00", "2014-03-30 01:00"),
        ("Australia/Melbourne", "2014-04-06 02:00", "2014-10-05 02:00"),
    ],
)
def test_the_two_nights_in_a_file(csv, zone, autumn, spring):
    for night, count in ((autumn, 25), (spring, 23)):
        day = night[:10]
        instants = pd.date_range(day, periods=count, freq="h", tz=zone)
        lines = [
            f"{meter},{stamp:%Y-%m-%d %H:%M},{number}"
            for number, stamp in enumerate(instants)
            for meter in ("a", "b")
        ]
        read = read_readings(csv("meter,time,W", *lines), clock="local", timezone=zone)
        assert len(read) == 2 * count and read["consumption"].tolist() == [*range(count)] * 2
        assert read["timestamp"].tolist()[:count] == instants.tz_convert("UTC").tolist()


def test_a_doubled_hour_shown_once_is_the_first(csv):
    path = csv("time,W", "2014-10-26 01:00,1", "2014-10-26 02:00,2", "2014-10-26 03:00,3")
    read = read_readings(path, clock="local", timezone="Europe/Berlin")
    assert [stamp.hour for stamp in read["timestamp"]] == [23, 0, 2]


def test_the_skipped_hour_is_left_out_and_counted(csv):
    path = csv("time,W", "2014-03-30 01:00,1", "2014-03-30 02:00,2", "2014-03-30 03:00,3")
    read = read_readings(path, clock="local", timezone="Europe/Berlin")
    assert read["consumption"].tolist() == [1, 3]
    assert "1 rows left out: Europe/Berlin has no 2014-03-30 02:00:00" in " ".join(
        read.attrs["notes"]
    )
    empty = csv("time,W", "2014-03-30 01:00,1", "2014-03-30 02:00,", "2014-03-30 03:00,3")
    read = read_readings(empty, clock="local", timezone="Europe/Berlin")
    assert "left out" not in " ".join(read.attrs["notes"])


def test_stamps_with_offset_need_no_clock(csv):
    path = csv("time,W", "2014-10-26T02:00+02:00,1", "2014-10-26T02:00+01:00,2")
    for clock, zone in (("utc", "UTC"), ("local", "Asia/Tokyo")):
        read = read_readings(path, clock=clock, timezone=zone)
        assert [stamp.hour for stamp in read["timestamp"]] == [0, 1]


# -- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        (
            ["time,W", "2014-01-01 00:00,1", "", "2014-01-01 02:00,n/k"],
            {},
            r"line 4, column 'W': 'n/k' is not a number",
        ),
        (
            ["time,W", "2014-01-01 00:00,1", "yesterday,2"],
            {},
            r"line 3: 'yesterday' is no point in time: write it like",
        ),
        (["time,W", "2014-01-01 00:00,1", ",2"], {}, r"line 3: no timestamp in this row"),
        (
            ["time,W", "2014-01-01T00:00Z,1", "2014-01-01T01:00,2"],
            {},
            r"line 3: '2014-01-01T01:00' lacks a time zone",
        ),
        (["meter,time,W", ",2014-01-01 00:00,1"], {}, r"line 2, column 'meter': no meter named"),
        (
            ["time,a,b", "2014-01-01 00:00,1,2"],
            {},
            'say which: --column "consumption=\\*" for all',
        ),
        (["when,W", "2014-01-01 00:00,1"], {}, r"no column for 'timestamp'; there are: when, W"),
        (
            ["time,A_MW,B_MW", "2014-01-01 00:00,1,2"],
            {},
            r"A_MW, B_MW could all be the consumption",
        ),
        (
            ["time,W", "2014-01-01 00:00,1"],
            {"columns": {"consumption": "kW"}},
            r"no column 'kW'; there are: time, W",
        ),
        (
            ["time,W", "2014-01-01 00:00,1"],
            {"columns": {"load": "W"}},
            r"unknown column 'load': use meter_id",
        ),
        (["time,W", "2014-01-01 00:00,1"], {"unit": "hp"}, r"unknown unit 'hp': use one of W"),
        (
            ["time,W", "2014-01-01 00:00,1"],
            {"clock": "moon"},
            r"unknown clock 'moon': use utc or local",
        ),
        (
            ["time,W", "2014-01-01 00:00,1"],
            {"clock": "local"},
            r"needs a time zone, such as Europe/Paris",
        ),
        (
            ["time,W", "2014-01-01 00:00,1"],
            {"step": "soon"},
            r"unknown step 'soon': write it like 15min",
        ),
        (
            ["time,W", "2014-01-01,1", "2014-01-02,1", "2014-01-03,1"],
            {},
            r"1 days 00:00:00 apart; hourly or finer",
        ),
        (
            ["time,W", "2014-01-01 00:00,1", "2014-01-01 00:00,2"],
            {},
            r"meter mine has different rows for 2014-01-01 00:00",
        ),
        (
            ["time,W", "2014-01-01 00:00,1", "2014-01-01 01:00,12,5"],
            {},
            r"Expected 2 fields in line 3, saw 3",
        ),
        (
            ["time,W", "2014-01-01 00:00,12,5", "2014-01-01 01:00,12,5"],
            {},
            r"more fields than the header \(time, W\)",
        ),
        (["time,W"], {}, r"a header but not one row"),
        (["", ""], {}, r"the file is empty"),
    ],
)
def test_refusals_name_the_place_and_the_mend(csv, lines, options, message):
    path = csv(*lines)
    with pytest.raises(DataError, match=message):
        read_readings(path, **options)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("junk.csv", bytes(range(256)) * 8, "binary, not text"),
        ("wide.csv", "time,W\n2014-01-01 00:00,1\n".encode("utf-16"), "binary, not text"),
        ("really.csv", b"PAR1....", "binary, not text"),
        ("junk.parquet", b"time,W\n", "not a readable Parquet file"),
        ("junk.csv.gz", b"time,W\n", "cannot be read as .csv.gz"),
        (
            "half.csv.gz",
            gzip.compress(b"time,W\n2014-01-01 00:00,1\n" * 99)[:-9],
            "cannot be read as .csv.gz",
        ),
        ("book.xlsx", b"PK", "unknown kind of file; .csv, .csv.gz and .parquet"),
        ("empty.csv", b"", "the file is empty"),
    ],
)
def test_files_that_are_none(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_readings(tmp_path / name)
    assert name in str(caught.value)


def test_no_such_file_and_folder(tmp_path):
    with pytest.raises(DataError, match=r"none.csv: no such file"):
        read_readings(tmp_path / "none.csv")
    with pytest.raises(DataError, match="a folder; name one"):
        read_readings(tmp_path)


def test_text_in_parquet_names_the_row(tmp_path):
    frame = pd.DataFrame({"time": ["2014-01-01 00:00", "2014-01-01 01:00"], "W": ["1", "x"]})
    with pytest.raises(DataError, match=r"text.parquet, row 2, column 'W': 'x' is not a number"):
        read_readings(write_table(frame, tmp_path / "text.parquet"))


def test_copies_are_dropped_with_a_note(csv):
    path = csv("time,W", "2014-01-01 00:00,1", "2014-01-01 00:00,1", "2014-01-01 01:00,2")
    read = read_readings(path)
    assert len(read) == 2 and "1 rows left out: exact copies of another row" in read.attrs["notes"]


# -- writing -------------------------------------------------------------------------------------


def test_unknown_suffix_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"end it in .csv, .csv.gz or .parquet"):
        write_table(table(1, 2), tmp_path / "table.xlsx")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match="a folder of that name"):
        write_table(table(1, 2), tmp_path / "folder.csv")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = write_table(table(1, 2), tmp_path / "new" / "table.csv")
    before = path.read_bytes()

    def full(frame, target, **_):
        Path(target).write_text("half")
        raise OSError("no space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    with pytest.raises(DataError, match="cannot be written: no space left"):
        write_table(table(1, 5), path)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


# -- real files ----------------------------------------------------------------------------------


def test_victoria(shared_data):
    read = read_readings(shared_data / "load" / "vic_elec.parquet", unit="MW")
    check_readings(read)
    assert read.shape == (26_304, 4) and 4e9 < read["consumption"].mean() < 5e9
    assert "columns not used: holiday" in read.attrs["notes"]


def test_cambridge(shared_data):
    read = read_readings(shared_data / "load" / "cambridge.parquet", unit="kWh")
    check_readings(read)
    assert read["meter_id"].nunique() == 36 and len(read) == 1_577_664
    assert 0 < read["consumption"].isna().sum() < 1000


def test_pjm_on_its_wall_clock(shared_data):
    path = shared_data / "load" / "pjm_zones.parquet"
    read = read_readings(path, unit="MW", clock="local", timezone="America/New_York")
    check_readings(read)
    missing = read.groupby("meter_id")["timestamp"].diff().value_counts()
    assert missing.index.max() == pd.Timedelta("2h")
    assert "left out" not in " ".join(read.attrs["notes"])


def test_the_one_cell_that_is_written_otherwise_is_named(csv):
    path = csv("time;kWh", "2014-03-01 00:00;12,5", "2014-03-01 01:00;12.5", "2014-03-01 02:00;7")
    with pytest.raises(DataError, match=r"line 3, column 'kWh': '12\.5' is not a number: leave"):
        read_readings(path)
