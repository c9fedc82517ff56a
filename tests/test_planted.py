"""Faults planted into foreign readings: the first half untouched, the same seed the same faults, labels where readings changed."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smartgrid_ai.data.faults import FAULTS, Fault, plant_faults, scaled_faults
from smartgrid_ai.data.planting import LEAST_HOURS, kinds_for, plant_in_readings, unfit_meters
from smartgrid_ai.errors import DataError
from smartgrid_ai.evaluate.kinds import named_events

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import planted as benchmark  # noqa: E402

KEY = ["meter_id", "timestamp"]


def readings(meters=1, days=260, seed=0, later=0, zone="UTC") -> pd.DataFrame:
    "Meters with a rhythm; each begins `later` days after the one before."
    random, parts = np.random.default_rng(seed), []
    for number in range(meters):
        hours = pd.date_range("2022-03-01", periods=24 * days, freq="h", tz=zone)[
            24 * later * number :
        ]
        load = 900 + 400 * np.sin((hours.hour.to_numpy() - 9) * 2 * np.pi / 24)
        load *= 1 + 0.04 * random.standard_normal(len(hours))
        parts.append(pd.DataFrame({"meter_id": f"m{number}", "timestamp": hours, "consumption": load}))  # fmt: skip
    return pd.concat(parts, ignore_index=True)


@settings(max_examples=15)
@given(st.integers(0, 500), st.integers(1, 4), st.integers(0, 20), st.floats(0.5, 2))
def test_nothing_but_labelled_rows_of_the_second_half_changes(seed, meters, later, rate):
    table = readings(meters, later=later)
    planted = plant_in_readings(table, scaled_faults(rate), seed)
    pd.testing.assert_frame_equal(planted[table.columns], table.assign(consumption=planted["consumption"]))  # fmt: skip
    changed = planted["consumption"] != table["consumption"]
    assert (
        not changed[planted["split"] == "train"].any() and not changed[planted["fault"] == ""].any()
    )
    for (_, kind), rows in planted.groupby(["meter_id", "fault"]):
        assert kind == "" or changed[rows.index].mean() > 0.25, kind
    assert set(planted["fault"]) == {"", *kinds_for(table, FAULTS)}


def test_the_same_seed_gives_the_same_faults_and_another_seed_others():
    table = readings(2)
    first = plant_in_readings(table, seed=4)
    pd.testing.assert_frame_equal(first, plant_in_readings(table, seed=4))
    assert (first["fault"] != plant_in_readings(table, seed=5)["fault"]).any()


def test_two_weeks_behind_the_learning_stay_healthy_and_halves_are_each_meters_own():
    planted = plant_in_readings(readings(3, later=15), seed=1)
    for _, meter in planted.groupby("meter_id"):
        late = meter.loc[meter["split"] == "test", "timestamp"]
        assert abs(len(late) - len(meter) / 2) <= 1
        faulty = meter.loc[meter["fault"] != "", "timestamp"]
        assert faulty.empty or faulty.min() >= late.min() + pd.Timedelta(days=14)


def test_gaps_and_zeros_are_never_spoiled_and_missing_rows_are_not_invented():
    table = readings(2, days=320)
    table.loc[table.index % 2000 > 1900, "consumption"] = np.nan
    table.loc[table.index % 1300 < 40, "consumption"] = 0.0
    table = table[table.index % 1500 > 10]
    planted = plant_in_readings(table, seed=2)
    before = table["consumption"].reset_index(drop=True)
    faulty = planted["fault"] != ""
    assert len(planted) == len(table) and faulty.any()
    assert before[faulty].notna().all() and (before[faulty] != 0).all()
    assert planted.loc[faulty, "consumption"].notna().all()


@pytest.mark.parametrize("below", [False, True])
def test_registers_go_below_zero_only_where_they_did(below):
    table = readings(1)
    table.loc[100, "consumption"] = -5.0 if below else 5.0
    faults = {"generation": Fault(5, 72, 96, 3, 4)}
    planted = plant_in_readings(table, faults, latitude=50.0)
    assert (planted["consumption"].drop(100) < 0).any() == below


def test_the_sun_shines_by_the_clock_of_the_zone():
    def noon(timezone: str) -> float:
        table = readings(1)
        planted = plant_in_readings(
            table, {"generation": Fault(5, 72, 96, 0.6, 1)}, timezone=timezone
        )
        loss = table["consumption"] - planted["consumption"]
        return float(np.average(table["timestamp"].dt.hour, weights=loss.clip(lower=0)))

    assert noon("UTC") == pytest.approx(11.5, abs=1)
    assert noon("Asia/Kolkata") == pytest.approx(6.5, abs=1.5)


def test_kinds_that_cannot_be_shown_are_left_out():
    table = readings(3)
    assert set(FAULTS) - set(kinds_for(table)) == {"voltage_event", "frequency_excursion"}
    assert "false_data" not in kinds_for(table[table["meter_id"] == "m0"])
    supplied = table.assign(voltage=230.0, frequency=50.0)
    assert set(kinds_for(supplied)) == set(FAULTS)
    planted = plant_in_readings(supplied, seed=3)
    sag = planted["fault"] == "voltage_event"
    assert sag.any() and (planted.loc[sag, "voltage"] != 230).all()
    assert (planted.loc[planted["fault"] == "", "voltage"] == 230).all()
    assert "voltage_event" not in kinds_for(table.assign(voltage=np.nan))


def test_false_data_falls_on_the_meters_that_have_readings():
    table = readings(4)
    table.loc[(table["meter_id"] == "m0") & (table.index > 24 * 180), "consumption"] = np.nan
    planted = plant_in_readings(table, {"false_data": Fault(10, 24, 36, 0.06, 0.15, shared=0.7)})
    hit = planted[planted["fault"] == "false_data"]
    assert hit["consumption"].notna().all() and hit.groupby("timestamp").size().max() >= 2


def test_meters_with_too_little_are_named_with_what_is_needed():
    table = pd.concat([readings(1), readings(2, days=60).query("meter_id == 'm1'")])
    assert list(unfit_meters(table)) == ["m1"]
    with pytest.raises(DataError, match=r"meter m1: 720 hours .* 2,016 of each are needed .* leave it out"):  # fmt: skip
        plant_in_readings(table)
    empty = table.assign(consumption=table["consumption"].where(table["meter_id"] == "m0"))
    assert "0 hours with a reading" in unfit_meters(empty)["m1"]
    assert unfit_meters(readings(1, days=2 * LEAST_HOURS // 24)) == {}


def test_no_room_is_an_error():
    with pytest.raises(DataError, match="no room for so many faults"):
        plant_in_readings(readings(1), scaled_faults(200))


def test_closed_hours_are_never_spoiled_and_one_open_meter_is_enough():
    healthy = readings(1).assign(voltage=230.0, frequency=50.0)
    sun, closed = np.ones(len(healthy)), np.zeros(len(healthy), dtype=bool)
    faults = {"false_data": Fault(10, 24, 36, 0.06, 0.15, shared=1.0)}
    pair = plant_faults([healthy, healthy], faults, sun, np.random.default_rng(0), [~closed, closed])  # fmt: skip
    assert (pair[0]["fault"] != "").any() and not (pair[1]["fault"] != "").any()
    with pytest.raises(DataError, match="no room"):
        plant_faults([healthy], faults, sun, np.random.default_rng(0), [closed])


# The benchmark


def test_an_excerpt_has_the_last_years_of_meters_with_enough_readings():
    table = pd.concat([readings(5, days=400), readings(6, days=60).query("meter_id == 'm5'")])
    part, notes = benchmark.excerpt(table, 0.8, 3)
    assert part["meter_id"].nunique() == 3 and "m5" not in set(part["meter_id"])
    assert part["timestamp"].max() == table["timestamp"].max()
    assert len(part) == pytest.approx(3 * 0.8 * 8766, abs=3)
    assert notes[-1] == "3 of 5 meters drawn"
    assert part.equals(benchmark.excerpt(table, 0.8, 3)[0])


def test_the_share_of_right_names_counts_found_faults_only():
    hours = pd.date_range("2024-01-01", periods=100, freq="h", tz="UTC")
    rows = pd.DataFrame({"series": "a", "timestamp": hours, "alarm": False, "fault": "", "kind": ""})  # fmt: skip
    for first, kind, named in ((10, "theft", "theft"), (30, "spike", "drop_out"), (50, "theft", None)):  # fmt: skip
        rows.loc[first : first + 3, "fault"] = kind
        if named:
            rows.loc[first + 1 : first + 2, ["alarm", "kind"]] = [True, named]
    rows["label"] = rows["fault"] != ""
    assert benchmark.right_share(rows) == 0.5
    assert np.isnan(benchmark.right_share(rows.assign(kind="")))


def test_an_alarm_that_outlasts_its_fault_is_named_at_its_end_but_not_by_another_fault():
    hours = pd.date_range("2024-01-01", periods=40, freq="h", tz="UTC")
    rows = pd.DataFrame({"series": "a", "timestamp": hours, "alarm": False, "fault": "", "kind": ""})  # fmt: skip
    rows.loc[10:12, "fault"], rows.loc[15:17, "fault"] = "theft", "spike"
    rows.loc[11:13, ["alarm", "kind"]] = [True, "drop_out"]
    rows.loc[14, ["alarm", "kind"]] = [True, "theft"]
    rows.loc[15:39, ["alarm", "kind"]] = [True, "spike"]
    named = named_events(rows.assign(label=rows["fault"] != ""))
    assert named["kind"].tolist() == ["theft", "spike"]
    split = rows.assign(series=["a"] * 13 + ["b"] * 27, label=rows["fault"] != "")
    assert named_events(split)["kind"].tolist()[0] == "drop_out"


def test_contests_put_the_best_rival_first():
    values = pd.DataFrame(
        [
            {"model": model, "series": f"s{number}", "auc_pr": base + 0.01 * number}
            for model, base in (("default", 0.6), ("lof", 0.2), ("vote", 0.5))
            for number in range(6)
        ]
    )
    lines = benchmark.contests(values)
    assert [line.split(":")[0] for line in lines] == ["default / vote", "default / lof"]
    assert "1.19" in lines[0] and "ahead in 100% of draws" in lines[0]
    assert "draws" not in benchmark.contests(values[values["series"] < "s3"])[0]


def test_areas_are_means_over_meters_whose_seeds_are_averaged_first():
    hours = pd.date_range("2024-01-01", periods=50, freq="h", tz="UTC")
    parts = []
    for meter, seed, found in (("a", 0, True), ("a", 1, False), ("b", 0, True)):
        rows = pd.DataFrame({"model": "default", "meter": meter, "series": f"{meter}{seed}", "timestamp": hours})  # fmt: skip
        rows = rows.assign(fault="", kind="", alarm=False, score=0.0)
        rows.loc[7, "fault"], rows.loc[7 if found else 8, "score"] = "spike", 1.0
        parts.append(rows.assign(label=rows["fault"] != ""))
    rows = pd.concat(parts, ignore_index=True)
    areas = benchmark.areas_of(rows)
    worst = 1 / 50
    assert areas["auc_pr"].tolist() == pytest.approx([(1 + worst) / 2, 1])
    table = benchmark.table_of(rows, areas)
    assert table.loc["default", "auc_pr"] == pytest.approx((3 + worst) / 4)


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(BENCHMARKS / "planted.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_file_of_ones_own_is_judged_and_one_that_is_too_short_is_told_so(tmp_path):
    path, short = tmp_path / "own.csv", tmp_path / "short.csv"
    table = readings(2, days=180).rename(columns={"consumption": "load"})
    table.to_csv(path, index=False)
    table[table["timestamp"] < "2022-05-01"].to_csv(short, index=False)
    told = ("--unit", "kWh", "--column", "consumption=load", "--models", "residual")
    done = run(str(path), *told, "--seeds", "1", "--faults", "1")
    assert done.returncode == 0, done.stderr
    assert "own.csv: 2 meters" in done.stdout and "default / residual" in done.stdout
    done = run(str(short), *told)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "no meter has enough readings" in done.stderr and "2,016 of each" in done.stderr


def test_sets_that_are_not_there_are_named_and_left_out(tmp_path):
    done = run("--folder", str(tmp_path), "--sets", "vic_elec")
    assert done.returncode == 0 and "vic_elec: left out" in done.stderr and done.stdout == ""
