"""Files larger than memory, meters that join a fitted model, and meters without a past."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from smartgrid_ai.cli import main
from smartgrid_ai.data.simulate import SIMULATED_PLACE, simulate
from smartgrid_ai.data.sources import read_readings
from smartgrid_ai.data.stream import MeterFile, TableWriter, sample_meters
from smartgrid_ai.evaluate import many
from smartgrid_ai.evaluate.backtest import backtest
from smartgrid_ai.evaluate.files import facts_of_forecasts
from smartgrid_ai.evaluate.many import backtest_many
from smartgrid_ai.forecast.daily import DailyPath
from smartgrid_ai.forecast.forecaster import Forecaster
from smartgrid_ai.hours import make_hours
from smartgrid_ai.readings import DataError
from smartgrid_ai.structure import StructureModel
from smartgrid_ai.windows import chronological_split

MODELS = ("seasonal_naive", "baseline")
QUICK = {"trees": 3, "epochs": 1, "batches": 5}


@pytest.fixture(scope="module")
def readings() -> pd.DataFrame:
    "Five months of the simulator's four meters."
    table = simulate("small")[["meter_id", "timestamp", "consumption", "temperature"]]
    return table[table["timestamp"] < "2015-03-01"].reset_index(drop=True)


def copies(readings: pd.DataFrame, count: int) -> pd.DataFrame:
    "Many meters from a few, each at a level of its own."
    one = [part for _, part in readings.groupby("meter_id", sort=False)]
    parts = [
        one[n % len(one)].assign(
            meter_id=f"m{n:03d}", consumption=one[n % len(one)]["consumption"] * (1 + n)
        )
        for n in range(count)
    ]
    return pd.concat(parts, ignore_index=True)


# Reading


@pytest.mark.parametrize("order", ["meter", "time", "random"])
@pytest.mark.parametrize("kind", ["str", "category", "int", "float"])
def test_some_meters_are_what_the_whole_file_says_of_them(readings, tmp_path, order, kind):
    table = readings.groupby("meter_id").head(100).reset_index(drop=True)
    names = dict(zip(table["meter_id"].unique(), (7, 11, 2, 30)))
    if kind in ("int", "float"):
        table["meter_id"] = table["meter_id"].map(names).astype(kind)
    elif kind == "category":
        table["meter_id"] = table["meter_id"].astype("category")
    if order != "meter":
        table = (
            table.sort_values("timestamp")
            if order == "time"
            else table.sample(frac=1, random_state=0)
        )
    path = tmp_path / "file.parquet"
    table.to_parquet(path, index=False, row_group_size=64)
    whole, file = read_readings(path, unit="kWh"), MeterFile(path, unit="kWh")
    assert list(file.meters) == list(whole["meter_id"].unique())
    for wanted in ([list(file.meters)[1]], list(file.meters)[2:], list(file.meters)):
        expected = whole[whole["meter_id"].isin(wanted)].reset_index(drop=True)
        pd.testing.assert_frame_equal(file.read(wanted), expected)


def test_a_file_without_a_column_of_meters_is_one(readings, tmp_path):
    path = tmp_path / "house.parquet"
    table = readings.head(300).drop(columns="meter_id")
    table.to_parquet(path, index=False)
    file = MeterFile(path, unit="W")
    assert file.meters == {"house": 300}
    pd.testing.assert_frame_equal(file.read(["house"]), read_readings(path, unit="W"))


def test_messages_are_those_of_a_whole_file(readings, tmp_path):
    path = tmp_path / "bad.parquet"
    table = readings.assign(consumption=readings["consumption"].astype("str"))
    table.loc[len(table) - 5, "consumption"] = "broken"
    table.to_parquet(path, index=False, row_group_size=500)
    messages, last = [], table["meter_id"].iloc[-1]
    for read in (
        lambda: read_readings(path, unit="W"),
        lambda: MeterFile(path, unit="W").read([last]),
    ):
        with pytest.raises(DataError) as caught:
            read()
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    readings.assign(meter_id=readings["meter_id"].where(readings.index != 9)).to_parquet(path)
    with pytest.raises(DataError, match="row 10, column 'meter_id': no meter named"):
        MeterFile(path, unit="W")
    with pytest.raises(DataError, match="no such file"):
        MeterFile(tmp_path / "none.parquet")
    path.write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        MeterFile(path)


def test_a_table_in_pieces_appears_whole_or_not_at_all(readings, tmp_path):
    path = tmp_path / "out.parquet"
    path.write_text("old")
    with pytest.raises(RuntimeError), TableWriter(path) as table:
        table.write(readings.head(5))
        raise RuntimeError
    assert os.listdir(tmp_path) == ["out.parquet"] and path.read_text() == "old"
    with TableWriter(path) as table:
        table.write(readings.head(5))
        table.write(readings[5:9].drop(columns="temperature"))
        table.facts = {"unit": "kW"}
    again = pd.read_parquet(path)
    assert os.listdir(tmp_path) == ["out.parquet"] and len(again) == table.rows == 9
    assert again["temperature"].notna().sum() == 5
    assert facts_of_forecasts(path) == {"unit": "kW"}


# The sample


def test_a_sample_is_drawn_by_seed_and_never_too_large():
    rows = {f"m{n}": 100 + n for n in range(50)}
    drawn = sample_meters(rows, 1000, seed=1)
    assert drawn == sample_meters(rows, 1000, seed=1) != sample_meters(rows, 1000, seed=2)
    assert sum(rows[name] for name in drawn) <= 1000 and len(drawn) > 6
    assert len(sample_meters(rows, 1)) == 2
    assert sample_meters(rows, 10**9) == tuple(sorted(rows))


# Adopting


def test_adopted_meters_get_weights_and_nobody_else_changes(readings):
    hours = make_hours(readings, SIMULATED_PLACE)
    train = np.ones(len(hours), bool)
    everybody = StructureModel()
    everybody.fit(hours, train)
    some = StructureModel(everybody.names, dict(everybody.state), everybody.meters[:-1])
    for name in ("weights", "level"):
        some.state[name] = everybody.state[name][:-1]
    some.adopt(hours, train)
    assert some.meters == everybody.meters
    assert np.array_equal(some.state["weights"][:-1], everybody.state["weights"][:-1])
    assert np.allclose(some.apply(hours), everybody.apply(hours), atol=2e-3)
    assert np.allclose(some.state["level"], everybody.state["level"])
    some.adopt(hours, train)
    assert some.meters == everybody.meters


# Backtests


def spied(monkeypatch) -> list[int]:
    "Rows that leave a file at a time."
    held, read = [], MeterFile.read

    def counted(self, meters):
        table = read(self, meters)
        held.append(len(table))
        return table

    monkeypatch.setattr(MeterFile, "read", counted)
    return held


def test_what_is_held_does_not_grow_with_the_number_of_meters(readings, tmp_path, monkeypatch):
    held = spied(monkeypatch)
    short = readings[readings["timestamp"] >= "2014-12-01"]
    most, meters = {}, {}
    for count in (5, 15):
        path = tmp_path / f"{count}.parquet"
        with TableWriter(path) as table:
            for _, meter in copies(short, count).groupby("meter_id", sort=False):
                table.write(meter)
        file, told = MeterFile(path, unit="W"), []
        rows = max(file.meters.values())
        drawn = sample_meters(file.meters, 2 * rows)
        held.clear()
        result = backtest_many(
            file, drawn, {"test_start": "2015-02-15"}, SIMULATED_PLACE, MODELS, 1,
            write=told.append, part_rows=2 * rows, **QUICK,
        )  # fmt: skip
        most[count], meters[count] = max(held), pd.concat(told)["meter_id"].nunique()
        assert len(drawn) == 2 and max(part["meter_id"].nunique() for part in told) == 2
        structure = result.forecasters["baseline"].path.structure
        assert set(structure.meters) == set(file.meters)
    assert most[5] == most[15] and meters == {5: 5, 15: 15}


def test_a_sample_of_everybody_is_a_plain_backtest(readings, tmp_path):
    path = tmp_path / "all.parquet"
    readings.to_parquet(path, index=False)
    file, told = MeterFile(path, unit="W"), []
    dates = {"val_start": "2015-01-15", "test_start": "2015-02-15"}
    drawn = sample_meters(file.meters)
    result = backtest_many(
        file,
        drawn,
        dates,
        SIMULATED_PLACE,
        MODELS,
        1,
        write=told.append,
        part_rows=4000,
        **QUICK,
    )
    split = chronological_split(file.read(drawn), SIMULATED_PLACE, **dates)
    plain = backtest(file.read(drawn), split, SIMULATED_PLACE, MODELS, horizon=1, **QUICK)
    keys = ["task", "model", "meter_id", "issued", "timestamp"]
    streamed = pd.concat(told).sort_values(keys, ignore_index=True)
    whole = plain.forecasts.sort_values(keys, ignore_index=True)
    assert list(streamed) == list(whole) and len(streamed) == len(whole)
    assert streamed[keys].equals(whole[keys])
    assert np.allclose(streamed["actual"], whole["actual"], equal_nan=True)
    far = (streamed["prediction"] - whole["prediction"]).abs() / whole["actual"].mean()
    assert far.quantile(0.99) < 0.02, "only the structure of training hours is not out of fold"
    figures = ["wape", "mase", "cover80", "hours"]
    both = result.metrics.merge(plain.metrics, on=["task", "model"])
    for name in figures:
        assert np.allclose(both[f"{name}_x"], both[f"{name}_y"], rtol=0.02), name


def test_the_command_takes_a_sample_by_itself_and_says_so(readings, tmp_path, capsys):
    path, out = tmp_path / "grid.parquet", tmp_path / "forecasts.parquet"
    readings.to_parquet(path, index=False)
    words = ["backtest", str(path), "--unit", "W", "--timezone", "Europe/Berlin", "--country", "DE"]
    words += ["--horizon", "24", "--models", "seasonal_naive", "--forecasts", str(out)]
    assert main([*words, "--most-rows", "8000"]) == 0
    told = capsys.readouterr()
    assert "learning from 2 of 4 meters" in told.err and "drawn by seed 0" in told.err
    sampled = pd.read_parquet(out)
    assert main(words) == 0
    assert "learning from" not in capsys.readouterr().err
    whole = pd.read_parquet(out)
    assert list(sampled) == list(whole) and len(sampled) == len(whole)
    assert set(sampled["meter_id"]) == set(whole["meter_id"]) == set(readings["meter_id"])


def test_a_meter_that_is_gone_before_the_test_part_is_left_out(readings, tmp_path):
    gone = readings[(readings["meter_id"] != "shop-1") | (readings["timestamp"] < "2015-01-01")]
    path = tmp_path / "gone.parquet"
    gone.to_parquet(path, index=False)
    file, told = MeterFile(path, unit="W"), []
    drawn = ("household-1", "office-1")
    dates = {"test_start": "2015-02-15"}
    backtest_many(
        file, drawn, dates, SIMULATED_PLACE, ("seasonal_naive",), 24, write=told.append, part_rows=1
    )
    assert len(told) == 3 and "shop-1" not in set(pd.concat(told)["meter_id"])


def test_all_meters_join_models_that_are_kept(readings, tmp_path):
    path = tmp_path / "all.parquet"
    readings.to_parquet(path, index=False)
    file, drawn = MeterFile(path, unit="W"), ("household-1", "office-1")
    split = chronological_split(file.read(drawn), SIMULATED_PLACE, test_start="2015-02-15")
    result = backtest(file.read(drawn), split, SIMULATED_PLACE, ("baseline",), horizon=1, **QUICK)
    many.adopt_all(file, result.forecasters.values(), split, part_rows=4000)
    result.forecasters["baseline"].save(tmp_path)
    assert result.forecasters["baseline"].path.structure.meters[:2] == drawn
    assert len(result.forecasters["baseline"].path.structure.meters) == 4


# New meters


@pytest.fixture(scope="module", params=[1, 24])
def young(request, readings) -> Forecaster:
    "A small mixture that knows three of the four meters."
    late = readings["timestamp"] >= "2014-11-25"
    known = readings[late & (readings["meter_id"] != "shop-1")].reset_index(drop=True)
    split = chronological_split(known, SIMULATED_PLACE, test_start="2015-02-15")
    made = Forecaster(
        "moe", SIMULATED_PLACE, horizon=request.param, experts=("dense", "tree"), **QUICK
    )
    return made.fit(known, split)


@pytest.mark.parametrize("days", [0, 1, 3, 7])
def test_a_new_meter_is_forecast_from_whatever_there_is(young, readings, days):
    shop = readings[readings["meter_id"] == "shop-1"]
    issue = pd.Timestamp("2015-02-18 00:00", tz="UTC")
    since = issue - pd.Timedelta(days=days)
    until = issue + pd.Timedelta(hours=young.horizon)
    part = shop[(shop["timestamp"] >= since) & (shop["timestamp"] < until)].reset_index(drop=True)
    known = part.assign(consumption=part["consumption"].where(part["timestamp"] < issue))
    level = shop["consumption"].mean()
    answer = young.predict(known, levels={"shop-1": level})
    assert len(answer) == young.horizon and np.isfinite(answer["prediction"]).all()
    assert answer["timestamp"].iloc[0] == issue
    assert (answer["prediction"] > 0.1 * level).all() and (answer["prediction"] < 5 * level).all()


def test_a_told_level_is_the_size_of_a_meter_without_readings_only(young, readings):
    shop = readings[readings["meter_id"] == "shop-1"].head(200).reset_index(drop=True)
    empty = shop.assign(consumption=np.nan)
    small, large = (young.predict(empty, levels={"shop-1": level}) for level in (100.0, 1000.0))
    assert np.allclose(large["prediction"], 10 * small["prediction"], rtol=1e-4)
    untold = young.predict(empty)
    assert np.isfinite(untold["prediction"]).all()
    later = shop.assign(consumption=shop["consumption"].where(shop.index < 150))
    one, other = (young.predict(later, levels={"shop-1": level}) for level in (100.0, 1e6))
    assert np.array_equal(one["prediction"], other["prediction"])


def test_pretended_youth_hides_everything_before_it(readings):
    path = DailyPath(SIMULATED_PLACE)
    frame = path.fit(readings, (readings["timestamp"] < "2015-02-01").to_numpy())
    import torch

    origin = np.array([1000, 5000])
    for history in (0, 5, 30):
        first = torch.from_numpy(origin - history)
        plain = frame.encode(origin, np.ones(2, int), first)
        hidden = frame.table.filled.clone()
        for row in origin:
            hidden[row - 900 : row - history] *= 3
        old, frame.table.filled = frame.table.filled, hidden
        again = frame.encode(origin, np.ones(2, int), first)
        frame.table.filled = old
        assert torch.equal(plain.past, again.past) and torch.equal(plain.future, again.future)
        assert torch.isfinite(plain.target).all() and torch.isfinite(plain.anchor).all()


def test_the_last_fifth_of_a_batch_pretends_to_be_new(readings):
    from smartgrid_ai.forecast.daily import BATCH, YOUNG

    path = DailyPath(SIMULATED_PLACE)
    train = (readings["timestamp"] < "2015-02-01").to_numpy()
    frame = path.fit(readings, train)
    batches = frame.data(train, ~train, 1, 0).train_dataloader().dataset
    origin = batches.generator.choice(batches.origins, BATCH)
    younger = batches._first(origin).numpy() > frame.hours.first[origin]
    assert not younger[:-YOUNG].any() and younger[-YOUNG:].all()
    past, _, target, _ = next(iter(batches))
    assert len(past) == len(target) == BATCH


@pytest.mark.parametrize(("most", "a_day"), [(10**9, 4), (9000, 2), (1, 1)])
def test_of_many_meters_fewer_forecasts_are_judged_but_at_all_hours(
    readings, monkeypatch, most, a_day
):
    from smartgrid_ai.forecast import daily

    path = DailyPath(SIMULATED_PLACE)
    train = (readings["timestamp"] < "2015-02-01").to_numpy()
    frame = path.fit(readings, train)
    monkeypatch.setattr(daily, "MANY", most)
    wanted = frame.judged_in(~train)
    assert len(wanted) <= most or a_day == 1
    hour, meter = (values[wanted.origin] for values in (frame.hours.civil_hour, frame.hours.meter))
    own = [set(hour[meter == number]) for number in range(4)]
    assert [len(hours) for hours in own] == 4 * [a_day]
    assert set.union(*own) == {0, 6, 12, 18}


def test_a_worker_whose_parent_is_gone_already_leaves():
    words = (
        "import time; from smartgrid_ai.parallel import _begin; _begin(None, 2**30); time.sleep(50)"
    )
    assert subprocess.run([sys.executable, "-c", words], timeout=40, check=False).returncode == 1
