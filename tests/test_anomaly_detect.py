"""Tables of series in, scores and alarms out."""

import numpy as np
import pandas as pd
import pytest

from smartgrid_ai.alarm_files import has_series
from smartgrid_ai.anomaly.detect import COLUMNS, KNOWN_MODELS, MODELS, detect
from smartgrid_ai.anomaly.kinds import name_kinds
from smartgrid_ai.anomaly.series import read_series, signals, window_rows
from smartgrid_ai.data.equipment import simulate_equipment
from smartgrid_ai.readings import DataError


def loads(count: int = 1800, name: str = "a", seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    hours = pd.date_range("2024-01-01", periods=count, freq="h")
    load = 50 + 20 * np.sin(np.asarray(hours.hour) * 2 * np.pi / 24) + random.normal(0, 2, count)
    return pd.DataFrame({"series": name, "timestamp": hours, "value": load})


def pump(count: int = 400, name: str = "p", seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    pressure = 2 + 0.3 * np.sin(np.arange(count) / 15) + random.normal(0, 0.02, count)
    flow = 30 * pressure + random.normal(0, 0.5, count)
    seconds = pd.date_range("2024-01-01", periods=count, freq="s")
    return pd.DataFrame({"series": name, "timestamp": seconds, "pressure": pressure, "flow": flow})


@pytest.fixture(scope="module")
def faulty() -> pd.DataFrame:
    table = loads()
    table.loc[1500, "value"] = 300.0
    return table


@pytest.fixture(scope="module")
def found(faulty) -> pd.DataFrame:
    return detect(faulty, KNOWN_MODELS)


def test_every_later_row_has_a_score_from_every_model(found, faulty):
    assert tuple(found) == COLUMNS
    assert found["score"].between(0, 1).all() and found["alarm"].dtype == bool
    assert (found["alarm"] == (found["score"] > 0.5)).all()
    for model in KNOWN_MODELS:
        part = found[found["model"] == model]
        assert (part["timestamp"].array == faulty["timestamp"].array[540:]).all()


@pytest.mark.parametrize("model", KNOWN_MODELS)
def test_planted_spike_is_found(found, faulty, model):
    part = found[found["model"] == model].set_index("timestamp")
    assert part.loc[faulty.loc[1500, "timestamp"], "alarm"]
    assert part["alarm"].mean() < 0.25


def test_the_week_after_a_spike_is_quiet(found, faulty):
    """With features that remember the spike, the textbook's alarm went on for a week."""
    after = faulty["timestamp"].between(
        faulty.loc[1508, "timestamp"], faulty.loc[1668, "timestamp"]
    )
    hours = found["timestamp"].isin(faulty.loc[after, "timestamp"])
    for model in ("isolation_forest", "one_class_svm", "autoencoder", "nearest_neighbour", "vote"):
        assert found.loc[hours & (found["model"] == model), "alarm"].mean() < 0.08


def test_noisy_meter_does_not_raise_all_the_alarms():
    random = np.random.default_rng(5)
    noisy = loads(2400, "noisy", 1)
    noisy["value"] = 50 + 20 * random.standard_t(3, len(noisy))
    table = pd.concat([loads(2400, "calm", 2), noisy], ignore_index=True)
    judged = detect(table, ("isolation_forest", "nearest_neighbour"))
    share = judged.groupby(["model", "series"])["alarm"].mean()
    assert (share < 0.06).all()
    for model in ("isolation_forest", "nearest_neighbour"):
        calm = judged[(judged["model"] == model) & (judged["series"] == "calm")]
        assert calm["score"].quantile(0.99) > 0.3  # the line is near its own rows


def test_meter_with_hardly_any_training_value_shares_the_curve_of_the_others():
    silent = loads(2400, "silent", 1)
    silent.loc[60:735, "value"] = np.nan
    table = pd.concat([loads(2400, "a", 2), silent], ignore_index=True)
    judged = detect(table, ("isolation_forest", "lof"))
    assert np.isfinite(judged["score"]).all()
    assert (judged["series"] == "silent").sum() == 2 * 1680


def test_neighbours_are_fitted_when_asked_for_and_change_nothing_else():
    table = pump()
    alone, with_others = detect(table, ("vote",)), detect(table, ("vote", "lof"))
    pd.testing.assert_frame_equal(with_others[with_others["model"] == "vote"], alone)
    assert {"lof", "nearest_neighbour"} < set(MODELS)


def test_stuck_valve_is_found_though_each_value_is_usual():
    table = pump(600)
    table.loc[450:, "flow"] = 60 + 9 * np.sin(np.arange(150) / 7)
    alarm = detect(table, ("default",))["alarm"].to_numpy()
    assert alarm[-120:].mean() > 0.8 and alarm[: 450 - 180].mean() < 0.2


@pytest.mark.parametrize("make", [loads, pump])
def test_labels_are_not_read(make):
    table = make()
    random = np.random.default_rng(0)
    noise = random.integers(0, 2, len(table))
    labelled = table.assign(label=noise, label_point=noise[::-1], changepoint=1 - noise, fault="x")
    models = ("isolation_forest", "default")
    pd.testing.assert_frame_equal(detect(labelled, models), detect(table, models))


@pytest.mark.parametrize("make", [loads, pump])
def test_nothing_looks_ahead(make):
    table = make()
    train, now = int(0.6 * len(table)), int(0.8 * len(table))
    table["split"] = np.where(np.arange(len(table)) < train, "train", "test")
    changed = table.copy()
    channels = [name for name in ("value", "pressure", "flow") if name in table]
    changed.loc[now:, channels] = changed.loc[now:, channels] * 7 - 3
    changed.loc[now + 5 : now + 9, channels] = np.nan
    first, second = detect(table), detect(changed)
    before = (first["timestamp"] < table["timestamp"][now]).to_numpy()
    np.testing.assert_allclose(second["score"][before], first["score"][before], atol=1e-6)
    assert not np.allclose(second["score"][~before], first["score"][~before])


def test_the_residual_judges_loads_and_says_so_of_others():
    assert set(detect(loads())["model"]) == set(MODELS)
    assert set(detect(pump())["model"]) == set(MODELS) - {"residual"}
    with pytest.raises(DataError, match="series p is no hourly load"):
        detect(pump(), ("residual", "default"))


def short(days: int) -> pd.DataFrame:
    "The first days of a load."
    table = loads()
    return table[table["series"] == table["series"].iloc[0]].head(24 * days)


def test_a_load_that_is_too_short_is_told_with_its_days():
    found = detect(short(42), ("default",))
    (note,) = found.attrs["notes"]
    assert "has 42 days" in note and "12.6 days" in note and "give 70 days" in note
    assert "judged as a general series, without expectation" in note and found["expected"].isna().all()  # fmt: skip
    with pytest.raises(
        DataError, match=r"has 42 days, .* the first 30%, 12\.6 days.* give 70 days"
    ):
        detect(short(42), ("residual",))
    marked = short(42).assign(split=np.where(np.arange(42 * 24) < 21 * 24, "train", "test"))
    enough = detect(marked, ("residual",))
    assert enough.attrs["notes"] == [] and enough["expected"].notna().any()


def test_a_model_named_twice_is_asked_once():
    table = short(70)
    pd.testing.assert_frame_equal(detect(table, ("default", "default")), detect(table, ("default",)))  # fmt: skip


def test_one_row_is_not_called_a_row_for_training():
    with pytest.raises(DataError, match="1 rows are too few") as error:
        detect(pd.DataFrame({"meter_id": ["a"], "timestamp": ["2024-01-01 00:00Z"], "consumption": [1.0]}))  # fmt: skip
    assert "split" not in str(error.value)


def test_unit_does_not_matter():
    table = loads()
    other = table.assign(value=table["value"] * 1e6)
    first, second = detect(table), detect(other)
    np.testing.assert_allclose(first["score"], second["score"], atol=1e-5)


def test_same_seed_same_scores():
    table = pump()
    pd.testing.assert_frame_equal(detect(table, seed=3), detect(table, seed=3))


def test_gaps_are_scored():
    table = loads()
    table.loc[700:760, "value"] = np.nan
    table.loc[100:180, "value"] = np.nan
    table = table.drop(index=range(900, 930))
    assert np.isfinite(detect(table)["score"]).all()
    table = pump()
    table.loc[200:240, "flow"] = np.nan
    table.loc[300:, "pressure"] = np.nan
    assert np.isfinite(detect(table)["score"]).all()


@pytest.mark.parametrize("make", [loads, pump])
def test_constant_series_are_scored(make):
    table = make()
    table.loc[:, table.columns[2:]] = 5.0
    judged = detect(table)
    assert np.isfinite(judged["score"]).all() and judged["alarm"].mean() < 0.03
    assert not judged.loc[judged["model"] == "default", "alarm"].any()
    table.loc[len(table) - 1, table.columns[2]] = 9.0
    assert detect(table, ("default",))["alarm"].iloc[-1]


def test_series_of_different_length_and_kind_in_one_table():
    table = pd.concat([loads(1750, "a"), loads(2400, "b", 1)], ignore_index=True)
    counts = detect(table).groupby(["model", "series"]).size()
    assert (counts[:, "a"] == 1225).all() and (counts[:, "b"] == 1680).all()


def test_rows_keep_the_order_of_the_file_also_when_times_repeat():
    table = pump(300)
    table.loc[200, "timestamp"] = table.loc[199, "timestamp"]
    table.loc[200, "flow"] = 900.0
    judged = detect(table, ("default",))
    assert (judged["timestamp"].array == table["timestamp"].array[90:]).all()
    assert judged["score"].iloc[110] > judged["score"].iloc[109]
    shuffled = table.iloc[np.random.default_rng(0).permutation(300)].reset_index(drop=True)
    shuffled = shuffled.assign(
        split=np.where(shuffled["timestamp"] < table["timestamp"][90], "train", "test")
    )
    again = detect(shuffled, ("default",))
    assert (
        again["timestamp"].array == shuffled.loc[shuffled["split"] == "test", "timestamp"].array
    ).all()


def test_canonical_readings_are_read():
    table = loads().rename(columns={"series": "meter_id", "value": "consumption"})
    table["timestamp"] = table["timestamp"].dt.tz_localize("UTC")
    table["temperature"] = 20.0
    judged = detect(table, ("default", "vote"))
    assert judged["series"].unique().tolist() == ["a"]
    assert str(judged["timestamp"].dt.tz) == "UTC"
    assert signals(table)[0].channels == ("consumption",)


def test_series_that_is_all_training_is_left_out():
    calm = pump(200, "calm").assign(split="train")
    table = pump(400)
    table["split"] = np.where(np.arange(400) < 150, "train", "test")
    judged = detect(pd.concat([calm, table], ignore_index=True), ("default",))
    assert judged["series"].unique().tolist() == ["p"]
    with pytest.raises(DataError, match="nothing to score"):
        detect(calm)


def test_metadata_is_no_channel():
    table = pump().assign(building_id=7, floor=np.int64(900), missing=0)
    assert signals(table)[0].channels == ("pressure", "flow")
    assert signals(table.assign(code=np.arange(400) % 7))[0].channels == (
        "pressure",
        "flow",
        "code",
    )


def test_user_mistakes_are_named(tmp_path):
    with pytest.raises(DataError, match="unknown detector 'magic'"):
        detect(pump(), ("magic",))
    with pytest.raises(DataError, match="too few"):
        detect(pump(30))
    for table, message in [
        (pump().drop(columns="timestamp"), "no column 'timestamp'"),
        (pump()[["series", "timestamp"]].assign(label=1), "no column of numbers"),
        (pump().iloc[:0], "not one row"),
        (pump().assign(timestamp="yesterday-ish"), "line 2: .yesterday-ish. is no point in time"),
        (pump().assign(timestamp=pd.NaT), "row 1 has no timestamp"),
    ]:
        table.to_csv(tmp_path / "table.csv", index=False)
        with pytest.raises(DataError, match=message) as error:
            read_series(tmp_path / "table.csv")
        assert "table.csv" in str(error.value)
    for name in ("absent.csv", "table.xlsx"):
        (tmp_path / "table.xlsx").write_text("no")
        with pytest.raises(DataError, match=name):
            read_series(tmp_path / name)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match=r"broken\.parquet: not a readable Parquet file"):
        read_series(tmp_path / "broken.parquet")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_files_come_back_as_tables(tmp_path, suffix):
    path, table = tmp_path / f"pump.{suffix}", pump()
    table.to_csv(path, index=False) if suffix == "csv" else table.to_parquet(path)
    again = read_series(path)
    assert (again["timestamp"].array == table["timestamp"].array).all()
    np.testing.assert_allclose(again["flow"], table["flow"])


def machine(days: int = 12) -> pd.DataFrame:
    "A pump every half hour; the temperature leaps for a night late on."
    table = simulate_equipment("pump", {}, days=days, minutes=30, seed=1).drop(
        columns=["fault", "label"]
    )
    late = slice(len(table) - 96, len(table) - 84)
    table.iloc[late, table.columns.get_loc("temperature")] += 40.0
    return table


def judged_file(path, table: pd.DataFrame, **how) -> pd.DataFrame:
    table.to_csv(path, index=False, **how)
    assert has_series(str(path))
    return detect(read_series(path), ("default",))


def test_a_table_of_equipment_is_read_whatever_separates_it_and_however_its_machine_is_called(
    tmp_path,
):
    table = machine()
    plain = judged_file(tmp_path / "plain.csv", table)
    german = judged_file(tmp_path / "german.csv.gz", table, sep=";", decimal=",")
    renamed = judged_file(
        tmp_path / "other.csv", table.rename(columns={"asset_id": "asset", "timestamp": "Time"})
    )
    alone = judged_file(tmp_path / "alone.csv", table.drop(columns="asset_id"))
    assert set(alone["series"]) == {"alone"} and set(plain["series"]) == set(table["asset_id"])
    for other in (german, renamed, alone):
        np.testing.assert_array_equal(other["score"], plain["score"])


@pytest.mark.parametrize("name", ["unit_id", "Machine", "Device-ID"])
def test_a_usual_name_says_whose_row_it_is_where_its_values_are_few(tmp_path, name):
    table = machine(4)
    table = pd.concat([table, table]).assign(asset_id=np.repeat([3, 7], len(table)))
    named = read_series(written(tmp_path / "a.csv", table.rename(columns={"asset_id": name})))
    assert set(named["series"]) == {3, 7}
    table = table.assign(asset_id=range(len(table))).rename(columns={"asset_id": name})
    assert set(read_series(written(tmp_path / "b.csv", table))["series"]) == {"b"}


def written(path, table: pd.DataFrame, **how):
    table.to_csv(path, **{"index": False} | how)
    return path


@pytest.mark.parametrize("index", [None, "row"])
def test_an_index_that_pandas_wrote_is_no_sensor_and_no_clock(tmp_path, index):
    table = machine()
    two = pd.concat([table, table.assign(asset_id="other")], ignore_index=True)
    two = two.rename(columns={"timestamp": "time"}).sort_values(["time", "asset_id"])
    plain = read_series(written(tmp_path / "plain.csv", two))
    two = two.reset_index(drop=True)
    counted = written(tmp_path / "counted.csv", two, index=True, index_label=index)
    found = detect(read_series(counted), ("default",))
    np.testing.assert_array_equal(found["score"], detect(plain, ("default",))["score"])
    name = index or "Unnamed: 0"
    assert found.attrs["notes"] == [f"column {name!r} counts the rows: it is not judged"]


def test_a_counter_that_stands_still_for_a_while_is_a_channel():
    table = pump()
    hours = np.arange(len(table))
    assert "hours" not in signals(table.assign(hours=hours))[0].channels
    standing = np.minimum(hours, 200)
    assert "hours" in signals(table.assign(hours=standing))[0].channels


def test_an_alarm_of_a_machine_says_which_sensor(tmp_path):
    found = judged_file(tmp_path / "pump.csv", machine())
    said = name_kinds(found, read_series(tmp_path / "pump.csv"))
    leap = said.iloc[-96:-84]
    assert leap["alarm"].any() and (said.loc[~said["alarm"], "because"] == "").all()
    assert leap.loc[leap["alarm"], "because"].str.contains("temperature is .* °C where about").all()


def test_maintenance_raises_no_alarm_in_a_file(tmp_path):
    table = machine()
    table.loc[table.index[-96:-84], "operational_state"] = "maintenance"
    found = judged_file(tmp_path / "pump.csv", table)
    assert not found["alarm"].iloc[-96:-84].any() and (found["score"].iloc[-96:-84] <= 0.5).all()
    table.loc[table.index[-1], "operational_state"] = "asleep"
    with pytest.raises(DataError, match=r"no operating state 'asleep'; use one of normal"):
        judged_file(tmp_path / "pump.csv", table)


def test_a_word_among_the_numbers_of_a_sensor_is_named_and_a_column_of_words_is_none(tmp_path):
    table = machine().astype({"pressure": object}).assign(remark="all well")
    table.iloc[70, table.columns.get_loc("pressure")] = "bad"
    with pytest.raises(
        DataError, match=r"pump\.csv, line 72, column 'pressure': 'bad' is not a number"
    ):
        judged_file(tmp_path / "pump.csv", table)
    table = table.assign(pressure=machine()["pressure"])
    assert "remark" not in signals(table.rename(columns={"asset_id": "series"}))[0].channels


def test_rows_that_come_twice_are_told():
    table = pump()
    notes = detect(pd.concat([table, table.tail(20)]), ("default",)).attrs["notes"]
    assert "series p: 20 rows have the timestamp of the row before" in notes[0]
    assert not detect(table, ("default",)).attrs["notes"]


@pytest.mark.parametrize("columns, general", [
    ("series,timestamp,value", True), ("series,timestamp,consumption", False), ("asset,Time,oil", True),
    ("timestamp,load", False), ("timestamp,pressure [bar],temperature", True), ("timestamp,current,energy", False),
    ("meter_id,timestamp,consumption,temperature", False), ("asset_id;timestamp;load", True),
])  # fmt: skip
def test_loads_and_machines_are_told_apart_by_their_columns(tmp_path, columns, general):
    (tmp_path / "file.csv").write_text(columns + "\n")
    assert has_series(str(tmp_path / "file.csv")) == general


def test_windows_see_only_the_past():
    signal = signals(pump())[0]
    rows = window_rows(signal)
    assert rows.shape == (400, 12)
    assert rows["flow mean 10"][50] == pytest.approx(signal.values[41:51, 1].mean())


@pytest.mark.real_data
def test_default_beats_the_hard_vote_on_labelled_buildings(shared_data):
    from sklearn.metrics import average_precision_score

    table = read_series(shared_data / "anomaly" / "lead.parquet")
    judged = detect(table, ("vote", "default"))
    truth = table[table["split"] == "test"][["series", "timestamp", "label"]]
    joined = judged.merge(truth, on=["series", "timestamp"])
    areas = {
        model: np.mean(
            [
                average_precision_score(own["label"], own["score"])
                for _, own in part.groupby("series")
            ]
        )
        for model, part in joined.groupby("model")
    }
    assert areas["vote"] > 0.40  # the textbook is no straw man
    assert areas["default"] > 0.40 and areas["default"] > areas["vote"]
    alarms = joined[(joined["model"] == "default") & (joined["label"] == 0)]["alarm"]
    assert alarms.mean() < 0.03


# Series of unlike columns


def unlike() -> pd.DataFrame:
    "Two pumps of one sensor and of two, and a load, in one table."
    half = pump(400, "half", 1).assign(flow=np.nan)
    return pd.concat([pump(), half, loads().rename(columns={"value": "kw"})], ignore_index=True)


def test_each_series_is_judged_by_the_columns_it_has():
    table = unlike()
    by_name = {signal.name: signal for signal in signals(table)}
    assert {name: one.channels for name, one in by_name.items()} == {
        "p": ("pressure", "flow"), "half": ("pressure",), "a": ("kw",)
    }  # fmt: skip
    assert by_name["a"].is_load and by_name["half"].values.shape == (400, 1)
    models = ("isolation_forest", "vote", "default")
    together = detect(table, models)
    assert together.attrs["notes"] == []
    for name in ("p", "half", "a"):
        own = table[table["series"] == name].dropna(axis=1, how="all")
        alone = detect(own.reset_index(drop=True), models)
        part = together[together["series"] == name].reset_index(drop=True)
        pd.testing.assert_frame_equal(part[list(alone)], alone)


def test_series_with_nothing_to_judge_are_named_with_column_and_mend_and_the_others_go_on():
    dead = pump(400, "dead", 2).assign(pressure=np.nan, flow=np.nan)
    dead.loc[100:130, "flow"] = 1.0
    late = pump(400, "late", 3)
    late.loc[:99, "flow"] = np.nan
    judged = detect(pd.concat([dead, late, pump()], ignore_index=True), ("lof", "default"))
    assert judged["series"].unique().tolist() == ["late", "p"]
    first, second = judged.attrs["notes"]
    assert "series dead" in first and "pressure (0), flow (20)" in first and "left out" in first
    assert "drop the series" in first and "Give 50 or more" in first
    assert "series late" in second and "flow (20); judged without them" in second
    with pytest.raises(DataError, match=r"series dead: .* pressure \(0\), flow \(20\); left out"):
        detect(dead)


def test_a_series_that_its_detector_refuses_is_left_out_and_named():
    silent = loads(2400, "silent", 1)
    silent.loc[60:735, "value"] = np.nan
    table = pd.concat([silent, loads(2400, "a", 2)], ignore_index=True)
    judged = detect(table, ("vote", "default"))
    assert judged["series"].unique().tolist() == ["a"]
    (note,) = judged.attrs["notes"]
    assert note.startswith("series silent left out: 60 hours with a load are too few")
    with pytest.raises(DataError, match="series silent left out"):
        detect(silent, ("default",))
