"""Reports: what a page says in good and bad cases, what becomes of failures, and that a wheel carries them."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import report_data

pytest.importorskip("papermill", reason="the extra [report] is not installed")

import nbformat

from smartgrid_ai import reports
from smartgrid_ai.artefacts import (
    read_forecast_artefacts,
    write_anomaly_artefacts,
    write_forecast_artefacts,
)
from smartgrid_ai.evaluate import alarm_tables, alarms, findings, plots, verdict
from smartgrid_ai.evaluate.metrics import forecast_metrics
from smartgrid_ai.evaluate.style import figure_svg
from smartgrid_ai.pages import list_reports, page_html, write_index
from smartgrid_ai.readings import DataError

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def run():
    return report_data.forecast_artefacts()


@pytest.fixture(scope="module")
def train_page(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    parameters = write_forecast_artefacts(run, folder / "artefacts") | {"title": "Town & <country>"}
    return reports.run_report("train", parameters, folder / "reports", progress=False)


def headings(text):
    return re.findall(r"<h2[^>]*>(.*?)</h2>", text)


def assert_stands_alone(path):
    text = path.read_text()
    assert len(text.encode()) < 1_000_000
    assert "<script" not in text and "<img" not in text and "<link" not in text
    linked = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert [link for link in linked if not link.startswith("#") and link != "index.html"] == []


def test_the_training_report_stands_alone_and_shows_no_code(train_page):
    assert not train_page.failed and train_page.error is None
    assert_stands_alone(train_page.path)
    text = train_page.path.read_text()
    assert "read_forecast_artefacts" not in text and "Traceback" not in text
    assert "Town &amp; &lt;country&gt;" in text and "<country>" not in text
    assert 5 <= text.count("<figure") <= 7


def test_the_training_report_starts_with_the_verdict_and_ends_with_its_origin(train_page, run):
    text = train_page.path.read_text()
    assert headings(text)[0] == "Verdict" and headings(text)[-1] == "Where this report comes from"
    rows = run.metrics.set_index("model")
    skill = 100 * (1 - rows.wape["moe"] / rows.wape[["persistence", "seasonal_naive"]].min())
    assert f"{skill:.1f} % less than the best baseline" in train_page.verdict
    assert f"{rows.wape['moe']:.2f} %" in train_page.verdict
    assert "Weather known to the models: none" in text
    for origin in (run.provenance["data"]["sha256"], "seed=0", "numpy=", "simulator, preset small"):
        assert origin in text[text.index("Where this report comes from") :]


def test_the_index_lists_a_run_with_its_verdict(train_page):
    index = (train_page.path.parent / "index.html").read_text()
    assert f'href="{train_page.path.name}"' in index and train_page.verdict in index.replace(
        "&#x27;", "'"
    )
    assert sorted(p.name for p in train_page.path.parent.iterdir()) == [
        "index.html",
        train_page.path.name,
    ]


def test_a_mixture_that_loses_is_said_to_lose(run):
    names = {"moe": "persistence", "persistence": "moe"}
    table = run.forecasts.assign(model=run.forecasts["model"].replace(names))
    lost = verdict.forecast_verdict(table, forecast_metrics(table), run.floor | {"models": None})
    assert (
        "does not beat the baseline" in lost.sentences[0]
        and "worse than its best expert" in lost.sentences[1]
    )
    assert lost.tones["skill"] == "bad"
    assert {label: value for label, value, _ in lost.tiles}["skill"].startswith("-")


def test_two_equal_forecasts_cannot_be_told_apart(run):
    twin = run.forecasts[run.forecasts["model"] == "persistence"]
    random = np.random.default_rng(0)
    noise = twin.assign(
        model="moe",
        prediction=twin["actual"] + random.permutation(twin["prediction"] - twin["actual"]),
    )
    table = pd.concat([twin, noise])
    said = verdict.forecast_verdict(table, forecast_metrics(table))
    assert "cannot be told apart" in said.sentences[0] and said.tones["skill"] == "bad"


def test_skill_is_the_share_removed_and_needs_four_weeks_for_an_interval(run):
    rows = run.metrics.set_index("model").wape
    value, low, high = verdict.skill(run.forecasts, "moe", "persistence")
    assert value == pytest.approx(1 - rows["moe"] / rows["persistence"]) and low < value < high
    short = run.forecasts[
        run.forecasts["timestamp"] < run.forecasts["timestamp"].min() + pd.Timedelta(days=20)
    ]
    assert np.isnan(verdict.skill(short, "moe", "persistence")[1])


def test_without_a_baseline_there_is_no_verdict(run):
    table = run.forecasts[run.forecasts["model"] == "moe"]
    with pytest.raises(DataError, match="no baseline"):
        verdict.forecast_verdict(table, forecast_metrics(table))


def test_the_typical_week_is_whole_and_of_one_meter(run):
    week = findings.typical_week(run.forecasts[run.forecasts["model"] == "moe"])
    assert week["meter_id"].nunique() == 1 and 150 < len(week) <= 168
    assert week["timestamp"].is_monotonic_increasing


def test_figures_are_the_same_bytes_twice(run):
    figures = [plots.plot_error_by_clock(run.forecasts, run.place, ["moe"]) for _ in range(2)]
    assert figure_svg(figures[0]) == figure_svg(figures[1])


def test_a_failing_notebook_leaves_a_page_marked_failed(tmp_path, capsys):
    result = reports.run_report(
        "train", {"forecasts": "nowhere.parquet", "metrics": "nowhere.json"}, tmp_path
    )
    assert result.failed and "nowhere.json" in result.error and "cell 5" in result.error
    printed = capsys.readouterr().err
    assert (
        "train.ipynb" in printed
        and "DataError" in printed
        and "report train: Training report" in printed
    )
    text = result.path.read_text()
    assert (
        "This report failed" in text
        and "read_forecast_artefacts" in text
        and "<h1>train</h1>" in text
    )
    assert [entry["state"] for entry in list_reports(tmp_path)] == ["failed"]
    assert ">failed<" in (tmp_path / "index.html").read_text()


def test_unknown_reports_and_parameters_are_errors_before_anything_runs(tmp_path):
    with pytest.raises(DataError, match="there are anomalies, backtest, train"):
        reports.run_report("weather", {}, tmp_path / "reports")
    with pytest.raises(DataError, match="no parameter 'forecast'"):
        reports.run_report("train", {"forecast": "x"}, tmp_path / "reports")
    assert not (tmp_path / "reports").exists()


@pytest.fixture
def small_report(tmp_path, monkeypatch):
    "Put a notebook of one code cell in place of the reports."

    def make(source):
        notebook = nbformat.v4.new_notebook()
        notebook.cells = [
            nbformat.v4.new_markdown_cell("# Small"),
            nbformat.v4.new_code_cell(source),
        ]
        nbformat.write(notebook, tmp_path / "small.ipynb")
        monkeypatch.setattr(reports, "report_folder", lambda: tmp_path)
        return tmp_path / "reports"

    return make


def test_the_kernel_is_this_python_whatever_kernels_are_installed(
    small_report, tmp_path, monkeypatch
):
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(
        '{"argv": ["/nowhere/python"], "display_name": "no", "language": "python"}'
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    output = small_report("import sys; print(sys.executable)")
    result = reports.run_report("small", output=output, progress=False)
    assert not result.failed and sys.executable in result.path.read_text()


def test_a_kernel_that_dies_is_a_failed_report(small_report):
    output = small_report("import os; os._exit(3)")
    result = reports.run_report("small", output=output, progress=False)
    assert result.failed and "cell 2" in result.error and result.path.exists()


@pytest.fixture(scope="module")
def alarm_run():
    return report_data.anomaly_artefacts()


@pytest.fixture(scope="module")
def alarm_page(alarm_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alarms")
    written = write_anomaly_artefacts(alarm_run, folder)
    return reports.run_report("anomalies", written, folder / "reports", progress=False)


@pytest.fixture(scope="module")
def own_alarms(alarm_run):
    "What the default detector thought, beside the readings."
    joined = alarms.join_readings(alarm_run.scores, alarm_run.readings)
    return joined[joined["model"] == "default"]


def test_the_anomaly_report_states_what_is_known(alarm_page, own_alarms):
    assert not alarm_page.failed, alarm_page.error
    assert_stands_alone(alarm_page.path)
    text = alarm_page.path.read_text()
    faults, false = alarms.fault_runs(own_alarms), alarms.false_alarms(own_alarms)
    assert f"{faults['found'].sum()} of {len(faults)} faults" in alarm_page.verdict
    plain = re.sub("</?b>", "", text)
    assert "is not accuracy" in plain and f"False alarms: {len(false)} of" in plain
    assert f"Missed faults: {(~faults['found'].astype(bool)).sum()} of {len(faults)}" in plain
    for title in ("AUC-PR", "VUS-PR", "event F1", "FAR", "MAR", "best F1 with labels"):
        assert f">{title}</th>" in text
    assert "majority vote" in text and "no result but an upper bound" in plain
    assert plain.count("best single detector, the ") == 2 and "whether that is luck" in plain
    assert headings(text)[0] == "Verdict" and headings(text)[-1] == "Where this report comes from"


def test_the_anomaly_report_shows_its_failures_as_pictures(alarm_page, alarm_run, own_alarms):
    figures = alarm_page.path.read_text().split("<figure")[1:]
    missed, false = alarms.missed_faults(own_alarms), alarms.false_alarms(own_alarms)
    for runs, figure in zip((false, missed), figures):
        windows = alarm_tables.run_windows(runs, own_alarms, alarm_run.place)
        assert len(windows) == min(3, len(runs)) > 0
        for word in (*(title for title, _ in windows), "load [", "civil time, Europe/Berlin"):
            assert word in figure
        assert "expected" in figure and "usual deviations" in figure
    assert "known fault" in figures[1]


def test_the_anomaly_report_says_whether_names_are_right(alarm_page, own_alarms):
    text = re.sub("</?b>", "", alarm_page.path.read_text())
    found = alarms.fault_runs(own_alarms)["found"].sum()
    assert f"Of {found} faults found, {found} are called by their right name" in text
    assert "no fault (false alarm)" in text and "probability of 80.0 % on average" in text


def test_without_labels_the_anomaly_report_claims_nothing(tmp_path):
    run = replace(report_data.anomaly_artefacts(labelled=False), contributions=None)
    result = reports.run_report(
        "anomalies", write_anomaly_artefacts(run, tmp_path), tmp_path / "reports", progress=False
    )
    assert not result.failed, result.error
    text = result.path.read_text().replace("<b>", "")
    assert "cannot be said" in text and "Without labels nobody can say" in text
    for claim in ("AUC-PR", "event F1", "Missed faults", "False alarms:", "right name"):
        assert claim not in text
    assert "not recorded" in text and text.count("<figure") == 1


def test_artefacts_that_lack_a_column_are_named(run, tmp_path):
    written = write_forecast_artefacts(run, tmp_path)
    run.forecasts.drop(columns="actual").to_parquet(written["forecasts"])
    with pytest.raises(DataError, match="forecasts lack the column 'actual'"):
        read_forecast_artefacts(**written)


def test_artefacts_in_other_units_become_watts(run, tmp_path):
    written = write_forecast_artefacts(run, tmp_path)
    facts = Path(written["metrics"]).read_text().replace('"unit": "W"', '"unit": "kW"')
    Path(written["metrics"]).write_text(facts)
    pd.testing.assert_series_equal(
        read_forecast_artefacts(**written).forecasts["q0.1"], 1000 * run.forecasts["q0.1"]
    )


def test_an_empty_folder_has_an_index_too(tmp_path):
    assert "No report yet" in write_index(tmp_path).read_text()


def test_what_comes_from_data_is_escaped(tmp_path):
    made = pd.Timestamp("2026-01-31 12:00", tz="UTC").to_pydatetime()
    page = page_html("", name="x", title='"<b>', made=made, verdict="<script>")
    (tmp_path / "x.html").write_text(page)
    assert "<script>" not in page and "<script>" not in write_index(tmp_path).read_text()
    assert list_reports(tmp_path)[0]["verdict"] == "<script>"


def test_a_wheel_carries_the_report_notebooks(tmp_path):
    build = [
        "setup.py",
        "-q",
        "egg_info",
        "--egg-base",
        str(tmp_path),
        "build_py",
        "--build-lib",
        str(tmp_path / "lib"),
    ]
    subprocess.run([sys.executable, *build], cwd=ROOT, check=True, capture_output=True)
    code = "from smartgrid_ai import reports; print(reports.__file__, reports.find_report('train'))"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "lib")}
    answer = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    module, notebook = answer.stdout.split()
    assert module.startswith(str(tmp_path)) and notebook.startswith(str(tmp_path))
    assert Path(notebook).read_bytes() == (ROOT / "nbs" / "reports" / "train.ipynb").read_bytes()
