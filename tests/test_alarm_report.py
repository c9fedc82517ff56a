"""Alarms in words and tables: runs, kinds and their names, the contest, and files of one's own."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from smartgrid_ai.alarm_files import alarm_artefacts, has_series, read_judged, read_scores
from smartgrid_ai.anomaly.detect import detect
from smartgrid_ai.cli import main
from smartgrid_ai.commands import report
from smartgrid_ai.evaluate import alarm_tables, alarms, contest, kinds
from smartgrid_ai.evaluate.alarm_plots import plot_anomalies, usual_deviation
from smartgrid_ai.evaluate.detection import detector_metrics
from smartgrid_ai.evaluate.style import figure_svg
from smartgrid_ai.readings import DataError, Place
from smartgrid_ai.workflow import Source

BERLIN = Place("Europe/Berlin", "DE")


def rows(count=200, faults=(), flagged=(), step="h", model="default"):
    "One series; `faults` and `flagged` are (first, last, kind)."
    time = pd.date_range("2024-03-04", periods=count, freq=step, tz="UTC").as_unit("us")
    table = pd.DataFrame({"model": model, "series": "shop", "timestamp": time, "score": 0.1})
    table = table.assign(consumption=900.0, fault="", alarm=False, kind="")
    for first, last, kind in faults:
        table.loc[first : last - 1, "fault"] = kind
    for first, last, kind in flagged:
        table.loc[first : last - 1, ["alarm", "kind", "score"]] = [True, kind, 0.9]
    return table.assign(label=table["fault"] != "")


# Runs and their windows


def test_a_run_lasts_as_long_as_its_clock_says():
    for step, hours in (("h", 5), ("15min", 1.25), ("s", 5 / 3600)):
        table = rows(faults=[(10, 15, "spike")], flagged=[(12, 13, "")], step=step)
        fault, alarm = alarms.fault_runs(table), alarms.alarm_runs(table)
        assert fault["hours"][0] == pytest.approx(hours)
        assert fault["delay"][0] == pytest.approx(2 * hours / 5)
        assert alarm["hours"][0] == pytest.approx(hours / 5) and alarm["real"][0]
    assert alarms.alarm_runs(rows(1, flagged=[(0, 1, "")]))["hours"][0] == 1


def test_runs_do_not_cross_from_one_series_to_the_next():
    table = rows(20, flagged=[(15, 20, "")])
    other = rows(20, flagged=[(0, 3, "")]).assign(series="zoo")
    runs = alarms.alarm_runs(pd.concat([other, table], ignore_index=True))
    assert sorted(runs["hours"]) == [3, 5] and set(runs["series"]) == {"shop", "zoo"}


def test_windows_stop_at_the_ends_of_a_series_and_long_faults_are_cut():
    table = rows(2000, faults=[(0, 1, "spike"), (500, 1900, "theft")])
    windows = alarm_tables.run_windows(alarms.missed_faults(table), table, BERLIN)
    assert [len(window) for _, window in windows] == [60 + 240 + 60, 61]
    assert windows[0][0].startswith("shop, theft: Sun 24 Mar 2024 21:00, 58 days")


def test_windows_of_any_number_of_seconds_can_be_cut():
    for length in range(1, 40):
        table = rows(100, flagged=[(20, 20 + length, "")], step="s")
        _, window = alarm_tables.run_windows(alarms.alarm_runs(table), table, BERLIN, margin=10)[0]
        assert len(window) == 10 + length + 10


def test_joining_keeps_what_the_scores_say_and_an_hour_shown_twice():
    time = pd.DatetimeIndex(["2024-10-27 00:00", "2024-10-27 01:00", "2024-10-27 01:00"], tz="UTC")
    readings = pd.DataFrame({"meter_id": "a", "timestamp": time, "consumption": [1.0, 2.0, 3.0], "fault": ["", "", "theft"], "expected": -1.0})  # fmt: skip
    scores = pd.DataFrame({"model": "m", "series": "a", "timestamp": time, "score": [0, 1, 2], "alarm": 0, "expected": 5.0})  # fmt: skip
    joined = alarms.join_readings(scores, readings)
    assert joined["consumption"].tolist() == [1, 2, 3] and (joined["expected"] == 5).all()
    assert joined["label"].tolist() == [False, False, True] and "order" not in joined


def test_labels_may_be_spelled_otherwise_and_sound_hours_may_have_a_word():
    time = pd.date_range("2024-10-01", periods=4, freq="h", tz="UTC")
    words = ["none", "Drop-out", "OK", "squirrel"]
    readings = pd.DataFrame({"meter_id": "a", "timestamp": time, "consumption": 1.0, "fault": words})  # fmt: skip
    scores = pd.DataFrame({"model": "m", "series": "a", "timestamp": time, "score": 1.0, "alarm": True, "kind": "drop_out"})  # fmt: skip
    joined = alarms.join_readings(scores, readings)
    assert joined["fault"].tolist() == ["", "drop_out", "", "squirrel"]
    assert joined["label"].tolist() == [False, True, False, True]
    told = kinds.confusion_findings(joined)
    assert "Of 1 faults found, **1** are called by their right name" in told[0]
    assert "squirrel" in told[-1] and "unit_error" in told[-1]


@pytest.mark.parametrize("faults, flagged, said", [
    ([], [], "every alarm is false"),
    ([(5, 9, "theft")], [], "It raises no alarm; it finds **0 of 1 faults**, and"),
    ([(5, 9, "theft")], [(7, 8, "")], "1 of the 1 alarm is real; it finds **1 of 1 faults**, after 2 hours"),
    ([(0, 200, "theft")], [(0, 200, "")], "it finds **1 of 1 faults**, at once in the median"),
])  # fmt: skip
def test_the_verdict_has_words_for_every_case(faults, flagged, said):
    verdict = alarms.alarm_verdict(rows(faults=faults, flagged=flagged), "default")
    assert said in " ".join(verdict.sentences) and "is not accuracy" in verdict.sentences[-1]
    assert "nan" not in " ".join(verdict.sentences) + str(verdict.tiles)


def test_a_picture_needs_neither_labels_nor_readings_and_is_reproducible():
    table = rows(faults=[(50, 55, "drop_out")], flagged=[(52, 53, "")])
    table.loc[50:54, "consumption"] = np.nan
    plain = table.drop(columns=["label", "fault"]).assign(expected=np.nan, scale=np.nan)
    first, again = (figure_svg(plot_anomalies([("x", plain)], BERLIN)) for _ in range(2))
    assert first == again and "known fault" not in first and ">expected<" not in first
    assert ">alarm<" in first
    assert "known fault" in figure_svg(plot_anomalies([("x", table)], BERLIN, "flow [l/min]"))


def test_the_band_is_drawn_from_the_scale_or_from_the_residual_in_scales():
    table = rows(flagged=[(52, 53, "")]).assign(expected=800.0, scale=50.0)
    told = table.drop(columns="scale").assign(residual=2.0)
    told.loc[20:30, ["consumption", "residual"]] = [800.0, 0.0]
    assert usual_deviation(told).to_numpy() == pytest.approx(50)
    assert "usual deviations" in figure_svg(plot_anomalies([("x", told)], BERLIN))
    assert usual_deviation(told.drop(columns="residual")) is None


def test_the_reason_of_a_run_is_that_of_its_last_row():
    table = rows(flagged=[(10, 12, "spike"), (12, 13, "theft"), (30, 31, "")])
    assert alarm_tables.reasons_of(alarms.alarm_runs(table), table) is None
    told = table.assign(because=np.where(table["alarm"], "It is " + table["kind"] + ".", ""))
    told.loc[30, "because"] = ""
    runs = alarms.alarm_runs(told).sort_values("start")
    assert alarm_tables.reasons_of(runs, told) == ["It is theft.", "–"]


# Kinds


def test_a_confusion_table_counts_every_fault_and_every_false_alarm_once():
    table = rows(
        faults=[(10, 20, "theft"), (20, 22, "spike"), (50, 60, "theft"), (80, 90, "stuck_value")],
        flagged=[(12, 14, "theft"), (20, 22, "spike"), (55, 56, "drop_out"), (120, 125, "spike"), (82, 84, "")],
    )  # fmt: skip
    crossed = kinds.confusion(table)
    assert crossed.to_numpy().sum() == 5
    assert crossed.loc["theft", "theft"] == crossed.loc["theft", "drop_out"] == 1
    assert crossed.loc["spike", "spike"] == crossed.loc[kinds.SOUND, "spike"] == 1
    assert crossed.loc["stuck_value", kinds.UNNAMED] == 1
    said = " ".join(kinds.confusion_findings(table))
    assert "Of 4 faults found, **2** are called by their right name (50.0 %)" in said
    assert "probability" not in said


def test_the_last_flagged_row_that_has_a_name_speaks_for_the_event():
    alarm = [(10, 12, "spike"), (12, 13, "theft"), (13, 14, "")]
    table = rows(faults=[(10, 20, "theft")], flagged=alarm)
    assert kinds.named_events(table)["kind"].tolist() == ["theft"]
    sure = table.assign(kind_probability=np.where(table["kind"] == "theft", 0.9, 0.2))
    named = kinds.named_events(sure).iloc[0]
    assert (named["kind"], named["probability"]) == ("theft", 0.9)
    assert "90.0 % on average" in kinds.confusion_findings(sure)[1]


@pytest.mark.parametrize("absent", ["kind", "fault", "label"])
def test_without_kinds_there_is_no_table_and_no_claim(absent):
    table = rows(faults=[(10, 20, "theft")], flagged=[(10, 12, "spike")]).drop(columns=absent)
    assert kinds.confusion(table).empty
    assert "nothing can be said" in kinds.confusion_findings(table)[0]


def test_kinds_that_were_never_found_are_named():
    table = rows(faults=[(10, 20, "theft"), (30, 31, "unit_error")], flagged=[(10, 12, "")])
    found = kinds.kind_recall(table)
    assert found["kind"].tolist() == ["theft", "unit_error"] and found["rows_found"][0] == 2
    assert kinds.kind_findings(found)[1] == "**Never found: unit error.**"
    assert kinds.kind_findings(kinds.kind_recall(rows())) == ["The kinds of fault are not known."]


# Contest


def test_the_textbook_ensemble_stands_in_the_table_and_its_absence_is_said():
    one = rows(faults=[(10, 20, "theft")], flagged=[(10, 12, "")])
    table = pd.concat([one, one.assign(model="vote", alarm=False), one.assign(model="lof")])
    metrics = detector_metrics(table, table)
    assert "majority vote" in contest.contest_table(metrics)["detector"].tolist()
    assert "ensemble of three votes reaches an event F1 of 0" in contest.contest_findings(metrics, "default")[-1]  # fmt: skip
    lonely = metrics[metrics["model"] != "vote"]
    assert "not among these scores" in contest.contest_findings(lonely, "default")[-1]
    assert contest.contest_findings(metrics, "vote")[-1].startswith("By AUC-PR")
    odds = contest.contest_odds(table, "default")
    assert len(odds) == 2 and all("level with" in text and "luck" in text for text in odds)
    alone = contest.contest_odds(table[table["model"] != "lof"], "default")
    assert len(alone) == 1 and "no single detector" in alone[0]


# Files of one's own


@pytest.fixture
def own(tmp_path):
    "Quarter hours by the wall clock of Berlin over the night when clocks are set back, with labels."
    time = pd.date_range("2024-10-26 12:00", periods=4 * 30, freq="15min", tz="UTC")
    wall = time.tz_convert("Europe/Berlin").tz_localize(None)
    table = pd.DataFrame({"meter_id": "shop", "timestamp": wall, "consumption": 1.5, "label": 0})
    table.loc[55, "label"] = 1
    scores = pd.DataFrame({"model": "default", "series": "shop", "timestamp": time[::4][10:], "score": 0.2, "alarm": False})  # fmt: skip
    files = SimpleNamespace(data=str(tmp_path / "own.csv"), scores=str(tmp_path / "scores.csv"))
    table.to_csv(files.data, index=False, sep=";")
    scores.to_csv(files.scores, index=False)
    files.source = Source(files.data, unit="kW", clock="local", timezone="Europe/Berlin")
    return files


def test_labels_go_the_way_of_the_readings(own):
    found = alarm_artefacts(own.scores, own.source)
    marked = found.readings[found.readings["label"]]
    assert marked["timestamp"].tolist() == [pd.Timestamp("2024-10-27 01:00", tz="UTC")]
    assert (found.readings["consumption"] == 1500).all() and found.quantity == ""
    assert len(alarms.join_readings(found.scores, found.readings)) == 20
    assert len(found.provenance["data"]["sha256 of the scores"]) == 64
    assert found.provenance["parameters"]["country"] == "not told"
    twice = pd.read_csv(own.scores)
    pd.concat([twice, twice.assign(model="other")]).to_csv(own.scores, index=False)
    assert alarm_artefacts(own.scores, own.source).provenance["data"]["rows"] == 20


def test_files_that_do_not_belong_together_are_refused(own):
    scores = pd.read_csv(own.scores)
    scores.loc[7:, "series"] = "zoo"
    scores.to_csv(own.scores, index=False)
    with pytest.raises(DataError, match=r"13 of 20 scored rows have no reading in .*zoo at 2024"):
        alarm_artefacts(own.scores, own.source)
    with pytest.raises(DataError, match=r"no scores at 'nowhere.parquet'"):
        read_scores("nowhere.parquet", own.source)
    with pytest.raises(DataError, match="scores lack the column 'model'"):
        read_scores(own.data, own.source)
    with pytest.raises(DataError, match="no such file"):
        read_judged(Source("nowhere.csv"))


def test_scores_of_another_unit_are_refused(own):
    scores = pd.read_csv(own.scores)
    watts = alarm_artefacts(own.scores, own.source).readings["consumption"].median()
    scores.assign(expected=1.1 * watts).to_csv(own.scores, index=False)
    assert len(alarm_artefacts(own.scores, own.source).scores) == 20
    with pytest.raises(DataError, match=r"read in W holds 0\.000909091 times what .*csv expected: give the --unit"):  # fmt: skip
        alarm_artefacts(own.scores, replace(own.source, unit="W"))


def test_words_for_labels_of_readings_are_named_with_what_to_write(own):
    table = pd.read_csv(own.data, sep=";")
    table.assign(label=np.where(table.index < 3, "bad", "ok")).to_csv(
        own.data, index=False, sep=";"
    )
    with pytest.raises(DataError, match="column 'label' holds 'bad': write 1 for yes and 0 for no"):
        read_judged(own.source)


@pytest.mark.parametrize("value", ["2", "maybe"])
def test_a_label_that_is_no_label_is_named(tmp_path, value):
    path = str(tmp_path / "pump.csv")
    time = pd.date_range("2024-01-01", periods=200, freq="s")
    pump = pd.DataFrame({"series": "p", "timestamp": time, "floor": 3, "flow": 60.0, "label": "0"})
    pump.assign(label=pump["label"].where(pump.index != 7, "True")).to_csv(path, index=False)
    table, quantity = read_judged(Source(path))
    assert has_series(path) and quantity == "flow [unit of the file]" and table["label"].sum() == 1
    in_watts, quantity = read_judged(Source(path, unit="kW", columns=(("consumption", "flow"),)))
    assert quantity == "" and (in_watts["consumption"] == 60_000).all()
    pump.assign(label=pump["label"].where(pump.index != 7, value)).to_csv(path, index=False)
    with pytest.raises(DataError, match=f"'label' holds .*{value}.*write 1 for yes"):
        read_judged(Source(path))
    with pytest.raises(DataError, match="no column 'level'; there are: series"):
        read_judged(Source(path, columns=(("consumption", "level"),)))


def test_the_command_hands_both_files_to_the_page(own, tmp_path, monkeypatch, capsys):
    seen = {}

    def page(name, parameters, output):
        seen.update(parameters, name=name, scores=pd.read_parquet(parameters["scores"]))
        return SimpleNamespace(path="page.html", verdict="said", failed=False)

    monkeypatch.setattr("smartgrid_ai.reports.run_report", page)
    here = ["--clock", "local", "--timezone", "Europe/Berlin", "--unit", "kW"]
    words = ["report", "anomalies", own.scores, "--data", own.data, *here, "--title", "Mine"]
    assert main([*words, "--output", str(tmp_path)]) == 0
    assert (seen["name"], seen["title"], len(seen["scores"])) == ("anomalies", "Mine", 20)
    assert "page.html" in capsys.readouterr().out


@pytest.mark.parametrize("words, hint", [
    (["scores.parquet"], "name --data FILE"),
    (["--data", "meters.csv"], "name SCORES"),
    (["--artefacts", "nowhere"], "run `smartgrid train` first"),
])  # fmt: skip
def test_half_a_wish_is_a_mistake_in_one_line(words, hint, tmp_path, capsys):
    assert main(["report", "anomalies", *words, "--output", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert hint in error and len(error.strip().splitlines()) == 1
    assert "anomalies" not in report.PAGES


def test_alarms_of_a_machine_are_shown_on_the_sensor_they_blame(tmp_path):
    random, time = np.random.default_rng(0), pd.date_range("2024-01-01", periods=900, freq="s")
    common = random.normal(size=900).cumsum() * 0.02
    pump = pd.DataFrame({"series": "pump", "timestamp": time, "flow_lpm": 60 + common})
    pump["pressure_bar"] = 4 + 0.1 * common + random.normal(0, 0.01, 900)
    pump["flow_lpm"] += random.normal(0, 0.05, 900)
    pump.loc[700:760, "pressure_bar"] += 1
    pump.to_csv(tmp_path / "pump.csv", index=False)
    scores = detect(pump, ("default",))
    assert list(scores)[-2:] == ["channel", "because"]
    scores.to_parquet(tmp_path / "scores.parquet")
    material = alarm_artefacts(str(tmp_path / "scores.parquet"), Source(str(tmp_path / "pump.csv")))
    table = alarms.join_readings(material.scores, material.readings)
    runs = alarms.alarm_runs(table)
    assert alarm_tables.blamed_sensors(runs, table)[0] == "pressure_bar"
    _, window = alarm_tables.run_windows(runs, table, BERLIN)[0]
    assert (window["quantity"] == "pressure_bar").all() and window["consumption"].max() < 6
    shown = alarm_tables.run_table(runs, table, BERLIN, material.quantity)
    name, value = shown["sensor"][0].split(": ")
    assert name == "pressure_bar" and float(value) > 4.8
    figure = plot_anomalies([("pump", window)], BERLIN, material.quantity)
    assert figure.axes[0].get_ylabel() == "pressure_bar"
