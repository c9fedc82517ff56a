"""The command line as people use it: help, mistakes, and the way from a file to bundles, forecasts and pages."""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from smartgrid_ai.alarm_files import read_labels
from smartgrid_ai.cli import build_parser, main
from smartgrid_ai.commands.report import alarm_parameters
from smartgrid_ai.commands.service import report_of_training
from smartgrid_ai.commands.training import horizons_of
from smartgrid_ai.data.sources import read_readings
from smartgrid_ai.forecast.forecaster import load_forecaster
from smartgrid_ai.registry import Registry
from smartgrid_ai.workflow import Source

PROGRAM = Path(sys.executable).with_name("smartgrid")
COMMANDS = [
    "run",
    "simulate",
    "validate",
    "train",
    "backtest",
    "tune",
    "report",
    "predict",
    "models",
    "export",
    "serve",
    "detect",
    "watch",
]
METERS, DAYS, ZONE = ["household-1", "shop-1"], 100, "Europe/Berlin"
HERE = ("--unit", "kW", "--timezone", ZONE, "--country", "DE")
TINY = ("--epochs", "1", "--batches", "5", "--trees", "3")
QUANTILES = [f"q{level}" for level in (0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975)]


def program(*arguments: str, timeout: int = 120) -> subprocess.CompletedProcess:
    "The installed command in a process of its own."
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [str(PROGRAM), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=timeout, check=False
    )


def call(*arguments: str) -> int:
    "The same in this process."
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code


def the_one_line(error: str) -> str:
    "What a mistake is answered with."
    assert "Traceback" not in error
    assert error.endswith("\n") and error.count("\n") == 1, error
    return error


def contents(folder: Path) -> dict[str, bytes]:
    "Every byte below a folder."
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def write_faulty_files(meters: pd.DataFrame) -> None:
    "Files with one mistake each."
    few = meters.head(50)
    meters.head(300).to_csv("short.csv", index=False)
    few.rename(columns={"consumption": "a"}).to_csv("nameless.csv", index=False)
    few.astype({"consumption": str}).replace(
        {"consumption": {few["consumption"].iloc[7].astype(str): "n/a?"}}
    ).to_csv("text.csv", index=False)
    stamps = few["timestamp"].astype(str).where(few.index != 7, "soon")
    few.assign(timestamp=stamps).to_csv("stamps.csv", index=False)
    Path("empty.csv").touch()
    Path("broken.parquet").write_text("not a table")
    Path("in_the_way").touch()


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    "A folder with two meters in kW, and files with mistakes, all from `smartgrid simulate`."
    folder = tmp_path_factory.mktemp("desk")
    with contextlib.chdir(folder):
        assert call("simulate", "--preset", "small", "--out", "simulated.csv") == 0
        meters = pd.read_csv("simulated.csv")
        meters = meters[meters["meter_id"].isin(METERS)].groupby("meter_id").head(24 * DAYS)
        meters["consumption"] /= 1000
        columns = ["meter_id", "timestamp", "consumption", "temperature"]
        meters[columns].to_csv("meters.csv", index=False)
        write_faulty_files(meters[columns].reset_index(drop=True))
    return folder


@pytest.fixture(autouse=True)
def here(desk, monkeypatch):
    "Every test works in that folder."
    monkeypatch.chdir(desk)


@pytest.fixture(scope="module")
def trained(desk):
    "The same folder once `smartgrid train` ended there."
    with contextlib.chdir(desk):
        assert call("train", "--data", "meters.csv", *HERE, *TINY, "--horizon", "1") == 0
    return desk


@pytest.fixture
def two_versions(trained, tmp_path):
    "A registry of its own whose mixture has two versions."
    registry = Registry(shutil.copytree(trained / "models", tmp_path / "models"))
    bundle = registry.resolve("moe")
    again = load_forecaster(bundle.path).save
    registry.publish("moe", again, {k: v for k, v in bundle.manifest.items() if k != "files"})
    return registry


# Help


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_that_the_parser_accepts(command, capsys):
    assert call(command, "--help") == 0
    shown = re.search(r"^example: smartgrid (.+)$", capsys.readouterr().out, re.MULTILINE)
    words = shlex.split(shown[1])
    assert words[0] == command
    build_parser().parse_args(words)


def test_the_installed_command_lists_all_commands():
    done = program("--help")
    assert done.returncode == 0 and done.stderr == ""
    assert set(COMMANDS) <= set(re.findall(r"^    (\w+) ", done.stdout, re.MULTILINE))
    assert re.fullmatch(r"smartgrid_ai \d+\.\d+\.\d+\n", program("--version").stdout)


# Mistakes: the command, and what the one line on stderr has to name

IN_THE_FILE = [
    ("validate nowhere.csv", "nowhere.csv no such file"),
    ("validate .", "a folder .csv"),
    ("validate empty.csv", "empty.csv empty"),
    ("validate broken.parquet", "broken.parquet Parquet"),
    ("validate nameless.csv", "nameless.csv consumption there are --column"),
    ("validate text.csv", "text.csv line 9 consumption n/a? leave"),
    ("validate stamps.csv", "stamps.csv line 9 soon"),
    ("validate meters.csv --column consumption=load", "meters.csv load there are"),
    ("validate meters.csv --column consumption", "--column NAME=IN_FILE"),
    ("validate meters.csv --column power=consumption", "power use consumption"),
    ("validate meters.csv --unit BTU", "--unit BTU kW"),
    ("validate meters.csv --step fast", "fast 15min"),
    ("validate meters.csv --timezone Mars/Olympus", "Mars/Olympus Europe/Paris"),
    ("validate meters.csv --country XX", "XX"),
    ("validate meters.csv --subdivision VIC", "VIC --country"),
    ("validate meters.csv --clock local", "clock time zone"),
    ("detect nowhere.csv", "nowhere.csv no such file"),
    ("detect nameless.csv", "nameless.csv --column consumption asset_id"),
    ("detect empty.csv", "empty.csv empty"),
    ("detect broken.parquet", "broken.parquet Parquet"),
    ("detect short.csv --unit kW --models nonsense", "nonsense isolation_forest"),
    ("detect .", "a folder name one .csv"),
    ("train --data nowhere.csv", "nowhere.csv no such file"),
    ("predict nowhere.csv --unit kW --models nowhere", "nowhere smartgrid train"),
]
IN_THE_WISH = [
    ("simulate --preset huge", "huge small"),
    ("simulate --seed -1", "-1 0"),
    ("simulate --faults -1", "-1 0"),
    ("simulate --faults 1000", "no room lower"),
    ("validate meters.csv --remove flat", "--remove --out"),
    ("validate meters.csv --unit kW --remove dull --out x.csv", "dull flat"),
    ("backtest meters.csv --models oracle", "oracle persistence"),
    ("backtest meters.csv --horizon 12", "horizon 12 24 168"),
    ("backtest meters.csv --horizon day", "--horizon day 1,24"),
    ("backtest meters.csv --horizon ,", "--horizon 1,24"),
    ("train --data meters.csv --unit kW --horizon 1,2", "horizon 2 24 168"),
    ("predict meters.csv --horizon 169", "--horizon 169 168"),
    ("predict meters.csv --model prophet", "--model prophet dense tree"),
    ("backtest meters.csv --unit kW --test-start someday", "someday 2014-01-01"),
    ("backtest meters.csv --unit kW --test-start 2014-13-01", "2014-13-01 write"),
    ("backtest meters.csv --unit kW --test-start 2030-01-01", "test_start 2030 move the dates"),
    ("backtest meters.csv --epochs 0", "--epochs 0 positive"),
    ("report train --artefacts nowhere", "nowhere smartgrid train"),
    ("report gossip", "gossip train anomalies"),
    ("models --models nowhere", "nowhere smartgrid train"),
    ("models --activate 1.0.0", "--activate smartgrid models moe"),
    ("serve --models nowhere", "nowhere smartgrid train --models"),
    ("serve --port 99999", "PORT 65535"),
    ("run --data meters.csv --host 0.0.0.0", "0.0.0.0 --insecure"),
    ("frobnicate", "frobnicate simulate"),
    ("predict", "DATA"),
]
IN_THE_OUTPUT = [
    ("simulate --out x.doc", "x.doc .parquet"),
    ("simulate --out in_the_way/x.csv", "in_the_way choose another"),
    ("validate short.csv --unit kW --out x.xlsx", "x.xlsx .parquet"),
    (
        "detect meters.csv --unit kW --models default --out in_the_way/x.csv",
        "in_the_way choose another",
    ),
    (
        "backtest meters.csv --unit kW --models persistence --forecasts in_the_way/x.csv",
        "in_the_way choose another",
    ),
    (
        "backtest meters.csv --unit kW --models persistence --json in_the_way/x.json",
        "in_the_way choose another",
    ),
    ("validate short.csv --unit kW --out ./short.csv", "./short.csv read another"),
    ("detect short.csv --unit kW --out ./short.csv", "short.csv read another"),
    (
        "detect meters.csv --unit kW --calibrate short.csv --out short.csv",
        "short.csv read another",
    ),
    ("predict short.csv --unit kW --out short.csv", "short.csv read another"),
    ("backtest short.csv --unit kW --forecasts short.csv", "short.csv read another"),
    ("backtest short.csv --unit kW --json short.csv", "short.csv read another"),
    ("run --data short.csv --unit kW --forecasts short.csv --no-serve", "short.csv read another"),
]


@pytest.mark.parametrize(("line", "named"), IN_THE_FILE + IN_THE_WISH + IN_THE_OUTPUT)
def test_a_mistake_is_one_line_that_names_it_and_the_mend(line, named, capsys):
    assert call(*line.split()) == 2
    error = the_one_line(capsys.readouterr().err)
    assert [word for word in named.split() if word not in error] == []


def test_a_file_that_is_read_stays_as_it_is(capsys):
    before = Path("short.csv").read_bytes()
    Path("the_same.csv").symlink_to("short.csv")
    for name in ("short.csv", "the_same.csv"):
        assert call("validate", "short.csv", "--unit", "kW", "--out", name) == 2
        assert "name another file for the result" in capsys.readouterr().err
    assert Path("short.csv").read_bytes() == before


def test_the_installed_command_ends_with_two_on_a_mistake():
    done = program("validate", "nowhere.csv")
    assert done.returncode == 2 and done.stdout == ""
    assert the_one_line(done.stderr) == "smartgrid: nowhere.csv: no such file\n"


def test_a_list_of_no_names_means_the_default(capsys):
    arguments = ("validate", "meters.csv", "--unit", "kW", "--remove", ",", "--out", "same.csv")
    assert call(*arguments) == 0
    cleaned, meters = pd.read_csv("same.csv"), pd.read_csv("meters.csv")
    np.testing.assert_allclose(cleaned["consumption"], meters["consumption"] * 1000)


# From simulated readings to forecasts


def test_what_simulate_writes_is_usable(capsys):
    assert call("validate", "simulated.csv", "--unit", "W") == 0
    shown = capsys.readouterr().out
    assert "43,872 rows, 4 meters" in shown and shown.endswith("usable\n")


@pytest.fixture(scope="module")
def forecasts(desk):
    "Test forecasts of three models, in the unit of the file."
    options = ("--models", "persistence,seasonal_naive,baseline", "--trees", "3")
    files = ("--forecasts", "out/forecasts.parquet", "--json", "out/facts.json")
    with contextlib.chdir(desk):
        assert call("backtest", "meters.csv", *HERE, *options, *files) == 0
        return pd.read_parquet("out/forecasts.parquet")


def test_a_file_of_forecasts_knows_what_its_numbers_do_not_show(forecasts, capsys):
    told = {
        "unit": "kW",
        "timezone": ZONE,
        "clock": "utc",
        "weather": "observed (perfect forecast)",
    }
    assert told.items() <= forecasts.attrs.items()
    assert call("report", "backtest", "out/forecasts.parquet", "--unit", "MW") == 2
    said = capsys.readouterr().err
    assert "written with unit 'kW', not 'MW'" in said and "the file knows" in said


def test_forecasts_are_a_tidy_table_of_the_test_hours(forecasts):
    first = ["model", "meter_id", "task", "issued", "timestamp", "horizon", "prediction"]
    assert {*first, *QUANTILES, "confidence", "actual", "temperature"} <= set(forecasts)
    assert list(forecasts["model"].unique()) == ["persistence", "seasonal_naive", "baseline"]
    assert set(forecasts["meter_id"]) == set(METERS)
    near, far = (forecasts[forecasts["task"] == task] for task in ("h1", "d1"))
    assert len(near) + len(far) == len(forecasts) and (near["horizon"] == 1).all()
    assert far["horizon"].between(1, 24).all() and far["horizon"].nunique() == 24
    assert (far["issued"].dt.tz_convert(ZONE).dt.hour == 0).all()
    hours = (forecasts["timestamp"] - forecasts["issued"]) / pd.Timedelta(hours=1) + 1
    assert (hours == forecasts["horizon"]).all()
    assert not forecasts.duplicated(["model", "meter_id", "task", "timestamp"]).any()
    assert (np.diff(forecasts[QUANTILES].to_numpy(), axis=1) >= 0).all()


def test_forecasts_are_in_the_unit_and_by_the_clock_of_the_file(forecasts):
    meters = pd.read_csv("meters.csv", parse_dates=["timestamp"])
    meters["timestamp"] = pd.to_datetime(meters["timestamp"], utc=True)
    before = meters.assign(timestamp=meters["timestamp"] + pd.Timedelta(hours=1))
    naive = forecasts[(forecasts["model"] == "persistence") & (forecasts["task"] == "h1")]
    both = naive.merge(before, on=["meter_id", "timestamp"]).dropna(subset="consumption")
    assert len(both) > 0.9 * len(naive)
    np.testing.assert_allclose(both["prediction"], both["consumption"], rtol=1e-9)
    same = naive.merge(meters, on=["meter_id", "timestamp"])
    np.testing.assert_allclose(same["actual"], same["consumption"], rtol=1e-9)


def test_facts_of_a_backtest_tell_what_was_known(forecasts):
    facts = json.loads(Path("out/facts.json").read_text())
    assert facts["source"] == "meters.csv" and facts["weather"] == "observed (perfect forecast)"
    assert facts["horizon"] == [1, 24] and facts["seed"] == 0
    assert {row["task"] for row in facts["metrics"]} == {"h1", "d1"}
    assert {row["model"] for row in facts["metrics"]} == set(forecasts["model"])
    starts = [facts["split"][name] for name in ("train_start", "val_start", "test_start")]
    assert starts == sorted(starts)
    assert pd.Timestamp(starts[-1]) == forecasts["timestamp"].min()


def test_a_backtest_of_real_data_is_scored_as_the_reference_says(shared_data, tmp_path):
    data, scorer = shared_data / "load" / "vic_elec.parquet", shared_data.parent / "score"
    if not data.is_file() or not (scorer / "score_load.py").is_file():
        pytest.skip(f"{data} or {scorer / 'score_load.py'} is not there")
    target, scores = tmp_path / "vic.parquet", tmp_path / "scores.json"
    dates = "--train-start 2012-01-01 --val-start 2013-10-01 --test-start 2014-01-01"
    place = "--unit MW --timezone Australia/Melbourne --country AU --subdivision VIC"
    options = f"--horizon 1 --models persistence,seasonal_naive {dates} {place}".split()
    done = program("backtest", data, *options, "--forecasts", target)
    assert done.returncode == 0, done.stderr
    command = [sys.executable, scorer / "score_load.py", "vic_elec", target]
    subprocess.run([*command, "--json", scores], check=True, capture_output=True)
    mape = {row["model"]: round(row["MAPE"], 2) for row in json.loads(scores.read_text())}
    assert mape == {"persistence": 4.72, "seasonal_naive": 7.05}


# Anomalies


def test_detect_scores_canonical_readings(capsys):
    options = ("--models", "isolation_forest,default", "--out", "out/alarms.parquet")
    assert call("detect", "meters.csv", *HERE, *options) == 0
    scores = pd.read_parquet("out/alarms.parquet")
    told = ["model", "series", "timestamp", "score", "alarm", "expected", "residual"]
    assert list(scores) == [*told, "kind", "kind_probability", "because"]
    named = scores["alarm"] & (scores["model"] == "default")
    assert (scores["kind"] != "").equals(named) and (scores["because"] != "").equals(named)
    assert list(scores["model"].unique()) == ["isolation_forest", "default"]
    assert set(scores["series"]) == set(METERS) and scores["alarm"].dtype == bool
    assert scores["score"].between(0, 1).all()
    assert (scores.groupby(["model", "series"]).size() == 24 * DAYS * 7 // 10).all()


def test_detect_can_ask_for_lasting_alarms():
    options = ("--models", "default", *HERE, "--out")
    assert call("detect", "meters.csv", *options, "all.parquet") == 0
    assert call("detect", "meters.csv", "--only-lasting", *options, "lasting.parquet") == 0
    every, some = (pd.read_parquet(f"{name}.parquet") for name in ("all", "lasting"))
    assert (every["score"] == some["score"]).all()
    assert not (some["alarm"] & ~every["alarm"]).any()


def sensors() -> pd.DataFrame:
    "Two channels by the minute; the test part holds a stretch where one is off."
    random, rows = np.random.default_rng(0), 1200
    level = np.where((np.arange(rows) >= 900) & (np.arange(rows) < 1000), 8.0, 0.0)
    return pd.DataFrame(
        {
            "series": "pump",
            "timestamp": pd.date_range("2024-01-01", periods=rows, freq="min"),
            "pressure": random.normal(5, 0.1, rows) + level,
            "flow": random.normal(2, 0.1, rows),
            "split": np.where(np.arange(rows) < 600, "train", "test"),
            "label": (level > 0).astype(int),
        }
    )


def test_detect_scores_a_table_of_sensors_and_never_reads_its_label():
    table = sensors()
    table.to_csv("pump.csv", index=False)
    table.assign(label=1 - table["label"]).to_csv("flipped.csv", index=False)
    for name in ("pump", "flipped"):
        options = ("--models", "default", "--out", f"{name}.parquet")
        assert call("detect", f"{name}.csv", *options) == 0
    scores = pd.read_parquet("pump.parquet")
    pd.testing.assert_frame_equal(scores, pd.read_parquet("flipped.parquet"))
    assert len(scores) == 600 and set(scores["series"]) == {"pump"}
    off = sensors()["label"].to_numpy()[600:] == 1
    assert scores["alarm"][off].mean() > 0.9 and scores["alarm"][: off.argmax()].mean() < 0.1


def looked_at(scores: pd.DataFrame, real, shown: int = 4) -> pd.DataFrame:
    "Alarms of a file, with what somebody found behind the first of each kind."
    alarms = scores[scores["alarm"]].assign(label=lambda rows: real(rows).astype(int))
    return alarms.groupby("label").head(shown)


def test_a_few_labels_move_the_alarm_line(capsys):
    readings = pd.read_csv("simulated.csv")
    readings = readings[readings["meter_id"].isin(METERS)]
    readings.drop(columns=["fault", "expected"]).to_csv("year.csv", index=False)
    options = ("--models", "isolation_forest,vote", "--unit", "W", "--timezone", ZONE)
    assert call("detect", "year.csv", *options, "--out", "alarms.csv") == 0
    faults = readings.loc[readings["fault"].notna(), ["meter_id", "timestamp"]]
    faults = set(zip(faults["meter_id"], pd.to_datetime(faults["timestamp"], utc=True)))

    def real(rows: pd.DataFrame) -> pd.Series:
        stamps = pd.to_datetime(rows["timestamp"], utc=True)
        return pd.Series([pair in faults for pair in zip(rows["series"], stamps)], rows.index)

    before = pd.read_csv("alarms.csv", keep_default_na=False)
    few = looked_at(before, real)
    few[["series", "timestamp", "label"]].to_csv("looked_at.csv", index=False)
    capsys.readouterr()
    calibrated = ("--calibrate", "looked_at.csv", "--out", "better.csv")
    assert call("detect", "year.csv", *options, *calibrated) == 0
    told = capsys.readouterr().err
    after = pd.read_csv("better.csv", keep_default_na=False)
    assert "isolation_forest: alarm from a surprise of" in told and "before 4.6" in told
    unseen = ~before["timestamp"].isin(few["timestamp"])
    for model, rows in before[unseen].groupby("model"):
        old, new, true = rows["alarm"], after.loc[rows.index, "alarm"], real(rows)
        assert (new & ~true).sum() < (old & ~true).sum(), model
        assert (new & true).sum() > 0.5 * (old & true).sum(), model


@pytest.mark.parametrize(
    "rows, message",
    [
        ([("household-1", 0, 1)] * 1, "1 rows labelled 1 (anomaly) and 0 labelled 0"),
        ([("household-1", 0, 7)], "'label' holds '7'"),
        (
            [("nobody", 0, 1)],
            "none of its 1 labels is of a row that was scored, the first is nobody",
        ),
        ([("household-1", -2000, 1)], "not in the part that is learned from"),
        ([("household-1", 0, None)], "none of its 0 labels"),
    ],
)
def test_labels_that_cannot_be_used_are_named(rows, message, capsys):
    last = pd.read_csv("meters.csv")["timestamp"].max()
    stamps = [pd.Timestamp(last) + pd.Timedelta(hours=hours) for _, hours, _ in rows]
    table = pd.DataFrame({"series": [row[0] for row in rows], "timestamp": stamps, "label": [row[2] for row in rows]})  # fmt: skip
    table.to_csv("labels.csv", index=False)
    options = ("--models", "residual", *HERE, "--calibrate", "labels.csv")
    assert call("detect", "meters.csv", *options) == 2
    assert message in the_one_line(capsys.readouterr().err.splitlines(True)[-1])


def test_labels_are_counted_read_by_the_clock_of_the_file_and_may_not_contradict(capsys):
    table = pd.read_csv("meters.csv")
    stamps = pd.to_datetime(table["timestamp"], utc=True)
    wall = stamps.dt.tz_convert("Europe/Berlin").dt.tz_localize(None)
    table.assign(timestamp=wall).to_csv("wall.csv", index=False)
    late = wall[(table["meter_id"] == METERS[0]) & (stamps > stamps.max() - pd.Timedelta(hours=9))]
    few = pd.DataFrame({"series": METERS[0], "timestamp": late.dt.strftime("%d.%m.%Y %H:%M"), "label": [0, 1] * 4 + [0]})  # fmt: skip
    few.to_csv("told.csv", index=False)
    options = ("--models", "residual", "--unit", "kW", "--timezone", "Europe/Berlin", "--calibrate", "told.csv")  # fmt: skip
    source = Source("wall.csv", unit="kW", clock="local", timezone="Europe/Berlin")
    hours = source.read()[["meter_id", "timestamp"]].set_axis(["series", "timestamp"], axis=1)
    label, (remark,) = read_labels("told.csv", hours, source)
    assert remark == "told.csv: 9 of 9 labels are of scored rows"
    mine = hours[np.isfinite(label)]
    assert (mine["series"] == METERS[0]).all() and mine["timestamp"].max() == stamps.max()
    _, remarks = read_labels("told.csv", hours, replace(source, clock="utc"))
    assert "8 of 9 labels" in remarks[0] and "give --clock local" in remarks[1]
    pd.concat([few, few.head(1).assign(label=1)]).to_csv("told.csv", index=False)
    assert call("detect", "wall.csv", "--clock", "local", *options) == 2
    error = capsys.readouterr().err
    assert f"{METERS[0]} at " in error and "is labelled both 1 and 0" in error


def test_a_split_of_the_file_is_what_is_learned_from(capsys):
    table = pd.read_csv("meters.csv")
    stamps = pd.to_datetime(table["timestamp"], utc=True)
    later = stamps >= stamps.min() + pd.Timedelta(days=DAYS // 2)
    table.assign(split=np.where(later, "test", "train")).to_csv("marked.csv", index=False)
    options = ("--models", "residual", *HERE)
    assert call("detect", "marked.csv", *options, "--out", "marked.parquet") == 0
    assert "split" not in capsys.readouterr().err
    assert pd.read_parquet("marked.parquet")["timestamp"].min() == stamps[later].min()
    table.assign(split="train").to_csv("marked.csv", index=False)
    assert call("detect", "marked.csv", *options) == 2
    assert "every row is marked split = train" in capsys.readouterr().err


def test_a_table_without_labels_is_no_table_of_labels(capsys):
    for path, message in (("nowhere.csv", "no labels at"), ("meters.csv", "lack the column 'label'")):  # fmt: skip
        assert call("detect", "meters.csv", "--models", "residual", *HERE, "--calibrate", path) == 2
        assert message in capsys.readouterr().err


def test_what_was_left_out_is_said_and_the_others_are_judged(capsys):
    dead = sensors().assign(series="dead", pressure=np.nan, flow=np.nan)
    half = sensors().assign(series="half", flow=np.nan)
    pd.concat([dead, half, sensors()]).to_csv("pumps.csv", index=False)
    options = ("--models", "isolation_forest,default", "--out", "pumps.parquet")
    assert call("detect", "pumps.csv", *options) == 0
    assert "note: series dead: too few training rows have a value of pressure (0), flow (0); left out" in capsys.readouterr().err  # fmt: skip
    scores = pd.read_parquet("pumps.parquet")
    assert (scores.groupby("series").size() == 1200).all() and set(scores["series"]) == {"half", "pump"}  # fmt: skip


# Training, and what it leaves


@pytest.mark.parametrize(
    ("line", "hours"), [("train", (1, 24)), ("backtest load.csv", (1, 24)), ("run", (1,))]
)
def test_an_hour_and_a_day_ahead_are_the_default_but_for_the_first_look(line, hours):
    assert horizons_of(build_parser().parse_args(line.split()).horizon) == hours


def test_training_publishes_three_bundles(trained, capsys):
    assert call("models") == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[:3] for row in rows] == [
        [name, "1.0.0", "active"] for name in ("anomaly", "baseline", "moe")
    ]
    assert call("models", "moe") == 0
    assert capsys.readouterr().out.startswith("# moe 1.0.0\n")


def test_training_too_little_leaves_everything_as_it_was(trained, capsys):
    before = contents(trained / "models"), contents(trained / "reports" / "artefacts")
    capsys.readouterr()
    assert call("train", "--data", "short.csv", *HERE, *TINY) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error and "hours" in error.splitlines()[-1]
    assert (contents(trained / "models"), contents(trained / "reports" / "artefacts")) == before


def predict(*options: str) -> pd.DataFrame:
    "What `smartgrid predict` writes."
    assert call("predict", *options, "--out", "out/predicted.parquet") == 0
    return pd.read_parquet("out/predicted.parquet")


def test_predictions_are_in_the_unit_of_the_file(trained):
    forecaster = load_forecaster(Registry("models").resolve("moe").path)
    expected = forecaster.predict(read_readings("meters.csv", unit="kW"), "moe")
    shown = predict("meters.csv", *HERE)
    keys = ["meter_id", "issued", "timestamp", "horizon"]
    pd.testing.assert_frame_equal(shown[keys], expected[keys])
    for name in ("prediction", *QUANTILES):
        np.testing.assert_allclose(shown[name] * 1000, expected[name], rtol=1e-12)
    np.testing.assert_array_equal(shown["confidence"], expected["confidence"])


@pytest.mark.parametrize("model", ["baseline", "gru", "attention", "dense", "tree"])
def test_every_model_is_at_hand(trained, model):
    assert np.isfinite(predict("meters.csv", *HERE, "--model", model)["prediction"]).all()


def test_thousandfold_readings_are_doubted(trained, capsys):
    assert call("predict", "meters.csv", "--unit", "MW", "--timezone", "Asia/Tokyo") == 0
    told = capsys.readouterr().err
    assert "is the unit right?" in told and "Asia/Tokyo" in told
    assert call("predict", "meters.csv", *HERE, "--start", "2014-10-20") == 0
    told = capsys.readouterr().err
    assert "less than four weeks" in told and "the last 24 of" in told
    assert "unit" not in told and "clock" not in told


def installed_today() -> pd.DataFrame:
    "The file with a meter of which it knows the hours to come, and no load."
    meters = pd.read_csv("meters.csv")
    stamps = pd.to_datetime(meters["timestamp"], utc=True)
    later = stamps.max() + pd.to_timedelta(np.arange(1, 25), unit="h")
    new = pd.DataFrame({"meter_id": "new=1", "timestamp": later.strftime("%Y-%m-%dT%H:%M:%SZ")})
    table = pd.concat([meters, new], ignore_index=True)
    table.to_csv("today.csv", index=False)
    return table


def test_the_level_of_a_meter_without_readings_is_told_in_the_unit_of_the_file(trained, capsys):
    installed_today()
    capsys.readouterr()
    one = predict("today.csv", *HERE, "--level", "new=1=2").set_index("meter_id")["prediction"]
    assert "how much they use" not in capsys.readouterr().err
    ten = predict("today.csv", *HERE, "--level", "new=1=20").set_index("meter_id")["prediction"]
    assert 0.3 < one["new=1"] < 10
    np.testing.assert_allclose(ten["new=1"], 10 * one["new=1"], rtol=1e-4)
    np.testing.assert_allclose(ten.drop("new=1"), one.drop("new=1"), rtol=1e-6)


def test_nobody_told_how_much_a_new_meter_uses(trained, capsys):
    installed_today()
    capsys.readouterr()
    predict("today.csv", *HERE)
    told = capsys.readouterr().err
    assert "--level METER=LOAD" in told and "(new=1)" in told


def test_a_level_of_a_meter_with_readings_is_not_used_and_that_is_said(trained, capsys):
    name = pd.read_csv("meters.csv")["meter_id"].iloc[0]
    capsys.readouterr()
    told = predict("meters.csv", *HERE, "--level", f"{name}=500")
    assert f"the mean load told of {name} is not used" in capsys.readouterr().err
    pd.testing.assert_frame_equal(told, predict("meters.csv", *HERE))


@pytest.mark.parametrize(
    ("level", "message"),
    [
        ("nobody=3", "holds no meter 'nobody'"),
        ("3", "holds no meter ''"),
        (f"{METERS[0]}=much", f"positive load, like {METERS[0]}=12.5"),
        (f"{METERS[0]}=-3", "positive load"),
        (f"{METERS[0]}=inf", "positive load"),
        (f"{METERS[0]}=nan", "positive load"),
    ],
)
def test_a_level_that_cannot_be_is_explained(trained, capsys, level, message):
    capsys.readouterr()
    assert call("predict", "meters.csv", *HERE, "--level", level) == 2
    error = capsys.readouterr().err
    assert message in error and f"--level {level}" in error and "Traceback" not in error


def test_a_file_by_the_wall_clock_is_answered_by_it_even_on_the_night_it_turns_back(trained):
    meters = pd.read_csv("meters.csv", parse_dates=["timestamp"])
    wall = pd.to_datetime(meters["timestamp"], utc=True).dt.tz_convert(ZONE).dt.tz_localize(None)
    meters.assign(timestamp=wall).to_csv("wall.csv", index=False)
    span = ("--start", "2014-10-26", "--end", "2014-10-26")
    by_utc = predict("meters.csv", *HERE, *span)
    by_wall = predict("wall.csv", *HERE, *span, "--clock", "local")
    assert (by_utc.groupby("meter_id").size() == 25).all()
    stamps = by_utc["timestamp"].dt.tz_convert(ZONE).dt.tz_localize(None)
    assert list(by_wall["timestamp"]) == list(by_wall["issued"]) == list(stamps)
    np.testing.assert_allclose(by_wall["prediction"], by_utc["prediction"], rtol=1e-9)


@pytest.fixture(scope="module")
def ahead(desk):
    "Models of the day ahead, beside the others."
    folders = ("--models", "ahead", "--artefacts", "ahead/artefacts")
    with contextlib.chdir(desk):
        assert call("train", "--data", "meters.csv", *HERE, *TINY, "--horizon", "24", *folders) == 0
    return ("--models", "ahead", "--horizon", "24")


@pytest.mark.parametrize("model", ["moe", "baseline", "tree"])
def test_the_day_ahead_is_forecast_by_models_trained_for_it(ahead, model, capsys):
    shown = predict("meters.csv", *HERE, *ahead, "--model", model)
    last = pd.to_datetime(pd.read_csv("meters.csv")["timestamp"], utc=True).max()
    assert (shown["issued"] == last + pd.Timedelta(hours=1)).all()
    assert (shown.groupby("meter_id").size() == 24).all()
    assert np.isfinite(shown[["prediction", *QUANTILES]]).all().all()
    told = capsys.readouterr()
    assert f"{model} 1.0.0" in told.out
    assert "without the temperature" in told.err and "consumption" in told.err
    span = ("--start", "2014-10-20")
    early = predict("meters.csv", *HERE, *ahead, "--model", model, *span)
    assert (early["issued"].dt.tz_convert(ZONE) == pd.Timestamp("2014-10-20", tz=ZONE)).all()


def test_fewer_hours_are_the_first_of_a_day(ahead, capsys):
    whole = predict("meters.csv", *HERE, *ahead)
    six = predict("meters.csv", *HERE, *ahead[:2], "--horizon", "6")
    first = whole[whole["horizon"] <= 6].reset_index(drop=True)
    pd.testing.assert_frame_equal(six, first)
    capsys.readouterr()
    assert call("predict", "meters.csv", *HERE, *ahead[:2], "--horizon", "25") == 2
    assert "--horizon 168" in the_one_line(capsys.readouterr().err)


def test_models_of_the_day_ahead_are_listed_by_names_of_their_own(ahead, capsys):
    assert call("models", *ahead[:2]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["anomaly", "baseline_24", "moe_24"]
    capsys.readouterr()
    assert call("predict", "meters.csv", *HERE, *ahead, "--end", "2014-10-20") == 2
    assert "takes no end" in the_one_line(capsys.readouterr().err)
    assert call("predict", "meters.csv", *HERE, *ahead[:2]) == 2
    assert "moe" in the_one_line(capsys.readouterr().err)


def test_the_page_of_a_training_for_the_day_ahead_says_so(ahead, capsys):
    assert call("report", "train", "--artefacts", "ahead/artefacts", "--output", "ahead/pages") == 0
    page = Path(capsys.readouterr().out.splitlines()[0]).read_text()
    assert "1 to 24 hours ahead" in page and "importance was not measured" in page


def test_a_span_without_readings_is_a_mistake(trained, capsys):
    assert call("predict", "meters.csv", *HERE, "--start", "2030-01-01") == 2
    error = the_one_line(capsys.readouterr().err)
    assert "2029-12-31" in error and "readings allow" in error


@pytest.mark.parametrize("name", ["train", "anomalies"])
def test_reports_stand_alone_and_are_listed(trained, name, capsys):
    assert call("report", name) == 0
    page = Path(capsys.readouterr().out.splitlines()[0])
    assert page.parent == Path("reports") and page.name.startswith(f"{name}-")
    for text in (page.read_text(), Path("reports/index.html").read_text()):
        loaded = re.findall(r"(?:src|href)\s*=\s*[\"']?(?:https?:)?//|url\(\s*[\"']?https?:", text)
        assert loaded == [] and "<script" not in text and "<link" not in text
    assert f'href="{page.name}"' in Path("reports/index.html").read_text()


# Damage, interruption, failure


def test_a_changed_byte_is_named_and_the_version_before_is_still_good(two_versions, capsys):
    models = ("--models", str(two_versions.root))
    path = two_versions.root / "moe" / "1.1.0" / "arrays.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    for command in (("predict", "meters.csv", *HERE), ("models", "moe")):
        capsys.readouterr()
        assert call(*command, *models) == 2
        assert f"{path} was changed" in the_one_line(capsys.readouterr().err)
    assert call("models", *models) == 1
    listed = capsys.readouterr().out.splitlines()
    assert [line for line in listed if "DAMAGED" in line and str(path) in line]
    assert [line for line in listed if "1.0.0" in line and "MB" in line]
    assert call("models", "moe", "--activate", "1.1.0", *models) == 2
    assert call("models", "moe", "--activate", "1.0.0", *models) == 0
    assert call("predict", "meters.csv", *HERE, *models) == 0
    assert "moe 1.0.0" in capsys.readouterr().out


@contextlib.contextmanager
def training(models: Path, artefacts: Path):
    "`smartgrid train` in a process of its own, to be disturbed; read its log line by line."
    options = ("--epochs", "40", "--batches", "5", "--trees", "3", "--horizon", "1")
    folders = ("--models", str(models), "--artefacts", str(artefacts))
    command = [str(PROGRAM), "train", "--data", "meters.csv", *HERE, *options, *folders]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def wait_for(process: subprocess.Popen, beginning: str) -> None:
    "Read the log up to a line."
    for line in process.stderr:
        if line.startswith(beginning):
            return
    raise AssertionError(f"training ended before it said {beginning!r}")


@pytest.mark.parametrize("moments", [["baseline: 0/1"], ["gru: 2/40", "importance: 1/"]])
def test_ending_a_training_leaves_the_published_versions(trained, tmp_path, moments):
    models = shutil.copytree(trained / "models", tmp_path / "models")
    with training(models, tmp_path / "artefacts") as process:
        for moment in moments:
            wait_for(process, moment)
            process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(60) == 130
    assert "Traceback" not in rest and rest.splitlines()[-1].startswith("smartgrid: interrupted")
    assert contents(models) == contents(trained / "models")
    assert not list((tmp_path / "artefacts").iterdir())


def test_one_interruption_of_an_expert_keeps_a_smaller_mixture_beside_the_active_one(
    trained, tmp_path
):
    models = shutil.copytree(trained / "models", tmp_path / "models")
    with training(models, tmp_path / "artefacts") as process:
        wait_for(process, "gru: 2/40")
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(100) == 0, rest
    assert "interrupted" in rest.splitlines()[-1] and "--activate" in rest.splitlines()[-1]
    registry = Registry(models)
    assert registry.active("moe") == "1.0.0"
    latest = registry.resolve("moe", "latest")
    left = load_forecaster(latest.path).models  # more networks where a second core helps
    assert latest.version == "1.1.0" and (left[0], left[-1]) == ("gru", "moe")
    assert "tree" not in left
    options = ("--models", str(models), "--model-version", "latest")
    assert call("predict", "meters.csv", *HERE, *options) == 0


def test_a_port_in_use_is_a_mistake(trained):
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = str(busy.getsockname()[1])
        done = program("serve", "--port", port, "--models", "models")
    assert done.returncode == 2
    error = the_one_line(done.stderr)
    assert port in error and "--port" in error


def test_the_report_of_a_training_reads_what_training_left(tmp_path):
    "Also where `smartgrid run` was given a file of its own."
    material = tmp_path / "anomalies"
    material.mkdir()
    (material / "scores.parquet").write_bytes(b"")
    words = ["run", "--data", "load.csv", "--artefacts", str(tmp_path), "--no-serve"]
    told = report_of_training(build_parser().parse_args(words), "anomalies")
    assert alarm_parameters(told) == {"scores": material / "scores.parquet"}


def test_an_unknown_option_points_to_the_help_of_its_command(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--models-dir", "m"])
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert said == "smartgrid: unrecognized arguments: --models-dir m; see smartgrid train --help\n"
