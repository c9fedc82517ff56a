"""The search of settings: it can be stopped and taken up again, it sees no test part, and its outcome is tried where it was not found."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

from smartgrid_ai.cli import main
from smartgrid_ai.data.simulate import SIMULATED_PLACE, simulate
from smartgrid_ai.errors import DataError, ModelError
from smartgrid_ai.forecast.experts import NETWORKS
from smartgrid_ai.forecast.forecaster import Forecaster, load_forecaster
from smartgrid_ai.forecast.settings import ExpertSettings
from smartgrid_ai.reports import find_report
from smartgrid_ai.tuning import confirm, study
from smartgrid_ai.tuning.findings import (
    importance_findings,
    importance_of,
    search_findings,
    trials_table,
)
from smartgrid_ai.tuning.space import (
    DEFAULT,
    RANGES,
    SIZES,
    TunedSettings,
    apply_factors,
    join_settings,
    read_settings,
    usual_settings,
    write_settings,
)
from smartgrid_ai.tuning.trials import Bench, mean_error, train_trial, weekly_errors
from smartgrid_ai.windows import chronological_split

optuna = pytest.importorskip("optuna")
PROGRAM = Path(sys.executable).with_name("smartgrid")
SPLIT = {"val_start": "2014-12-20", "test_start": "2015-02-01"}
LINE = ("--unit", "W", "--timezone", "Europe/Berlin", "--expert", "dense", "--horizon", "1")
DATES = ("--val-start", "2014-12-20", "--test-start", "2015-02-01", "--epochs", "1")


@pytest.fixture(scope="module")
def office() -> pd.DataFrame:
    readings = simulate("small")
    mine = readings["meter_id"] == "office-1"
    columns = ["meter_id", "timestamp", "consumption", "temperature"]
    return readings.loc[mine, columns].iloc[: 24 * 135].reset_index(drop=True)


def small_bench(office: pd.DataFrame, **options) -> Bench:
    split = chronological_split(office, SIMULATED_PLACE, **SPLIT)
    chosen = {"target": "dense", "horizon": 1, "epochs": 2} | options
    bench = Bench(office, split, SIMULATED_PLACE, **chosen)
    bench.batches = 3
    return bench


@pytest.fixture(scope="module")
def bench(office) -> Bench:
    return small_bench(office)


def bowl(factors: dict[str, float]) -> float:
    "An error that is smallest away from the default."
    return 0.4 + 0.05 * np.log(factors["learning_rate"] / 2) ** 2 + 0.02 * factors["dropout"]


@pytest.fixture
def instant(monkeypatch):
    "Trials that train nothing; the list of what was tried, and the number at which Ctrl-C comes."
    tried, stop = [], {"at": None}

    def train(bench, factors, seed=None, watch=None):
        tried.append(factors)
        if stop["at"] == len(tried):
            watch(0, 0.4)
            raise KeyboardInterrupt
        for step in range(bench.epochs):
            watch(step, bowl(factors) + 0.1 / (step + 1))
        return factors

    def weeks(bench, factors, part):
        return pd.DataFrame({"week": [0], "error": [bowl(factors)], "wape": [1.0], "hours": [168]})

    monkeypatch.setattr(study, "train_trial", train)
    monkeypatch.setattr(study, "weekly_errors", weeks)
    return tried, stop


def outcome(opened) -> list[tuple]:
    return [(t.state.name, t.value, t.params) for t in study.finished_trials(opened)]


# The search


def test_a_search_in_pieces_equals_one_in_a_single_go(bench, instant, tmp_path):
    once = study.open_study(tmp_path / "once.sqlite", bench.facts)
    assert study.search(once, bench, 11)
    for trials in (1, 9, 11):
        again = study.open_study(tmp_path / "in pieces?.sqlite", bench.facts)
        assert study.search(again, bench, trials)
    assert outcome(once) == outcome(again) and len(outcome(once)) == 11
    assert outcome(once)[0][2] == DEFAULT and study.best_trial(once).value < bowl(DEFAULT)
    assert len({json.dumps(params) for _, _, params in outcome(once)}) == 11


def test_an_interrupted_search_keeps_what_is_finished_and_goes_on(bench, instant, tmp_path):
    tried, stop = instant
    once = study.open_study(tmp_path / "once.sqlite", bench.facts)
    study.search(once, bench, 5)
    tried.clear()
    stop["at"] = 3
    path = tmp_path / "again.sqlite"
    again = study.open_study(path, bench.facts)
    with pytest.raises(KeyboardInterrupt):
        study.search(again, bench, 5)
    assert len(study.finished_trials(study.open_study(path))) == 2
    again = study.open_study(path, bench.facts)
    again.ask()  # a process that was killed leaves a trial without an end
    study.search(again, bench, 5)
    assert outcome(again) == outcome(once)


def test_a_search_killed_before_its_first_trial_still_begins_with_the_default(
    bench, instant, tmp_path
):
    opened = study.open_study(tmp_path / "a.sqlite", bench.facts)
    opened.enqueue_trial(DEFAULT)
    study.search(opened, bench, 2)
    assert [study.is_default(t) for t in study.finished_trials(opened)] == [True, False]


def test_a_hopeless_or_broken_trial_is_given_up_and_counts(bench, instant, tmp_path, monkeypatch):
    seen = []

    def train(bench, factors, seed=None, watch=None):
        seen.append(factors)
        errors = {7: (9.0, 9.0), 8: (0.4, float("nan"))}.get(len(seen), (0.4, 0.4))
        for step, error in enumerate(errors):
            watch(step, error)
        return factors

    monkeypatch.setattr(study, "train_trial", train)
    opened = study.open_study(tmp_path / "a.sqlite", bench.facts)
    assert study.search(opened, bench, 9)
    states = [state for state, _, _ in outcome(opened)]
    assert states == ["COMPLETE"] * 6 + ["PRUNED"] * 2 + ["COMPLETE"]
    table = trials_table(opened)
    assert table["error"].isna().sum() == 2 and table["best"].notna().all()


def test_a_time_limit_begins_no_new_trial(bench, instant, tmp_path):
    opened = study.open_study(tmp_path / "a.sqlite", bench.facts)
    assert not study.search(opened, bench, 5, minutes=0)
    assert study.search(opened, bench, 1, minutes=60) and len(instant[0]) == 1


# What it sees


def test_the_test_part_cannot_leak(office, bench, tmp_path):
    split = chronological_split(office, SIMULATED_PLACE, **SPLIT)
    spoilt = office.copy()
    later = spoilt["timestamp"] >= split.test_start
    spoilt.loc[later, ["consumption", "temperature"]] = [1e9, -80.0]
    other = small_bench(spoilt)
    found = []
    for number, one in enumerate((bench, other)):
        opened = study.open_study(tmp_path / f"{number}.sqlite", one.facts)
        study.search(opened, one, 2)
        found.append(outcome(opened))
    assert other.facts == bench.facts and found[0] == found[1]
    assert bench.frame.hours.timestamp.max() < split.test_start


def test_weeks_choose_or_confirm_or_gate_and_trials_stop_on_the_choosing_ones(office, bench):
    weeks = bench.weeks
    assert (
        not (weeks.choosing & weeks.confirming).any() and not (bench.train & weeks.choosing).any()
    )
    assert (weeks.judging == weeks.choosing).all()
    assert (bench.data(None, 0).validation == weeks.choosing).all()
    with pytest.raises(
        DataError, match=r"validation part has . weeks; tuning moe needs 8.* --val-start"
    ):
        small_bench(office, target="moe")


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"target": "lstm"}, ModelError, "cannot tune 'lstm'.*gru"),
        ({"horizon": 168}, ModelError, "168 h: choose 1 or 24"),
    ],
)
def test_what_cannot_be_tuned_is_said(office, options, error, words):
    with pytest.raises(error, match=words):
        small_bench(office, **options)


def test_default_factors_are_the_training_as_it_was(bench):
    mixture = train_trial(bench, DEFAULT, seed=5)
    plain = Forecaster("moe", SIMULATED_PLACE, path=bench.path).family.mixture
    plain.fit_network("dense", bench.frame, bench.data(3, 5), bench.epochs, 5)
    for one, other in zip(*(m.networks["dense"].state_dict().values() for m in (mixture, plain))):
        assert (one == other).all()
    error = mean_error(weekly_errors(bench, mixture, bench.weeks.judging))
    assert error == pytest.approx(mixture.trained["dense"].error, rel=1e-5)


# Confirmation


def test_the_outcome_is_measured_with_fresh_seeds_and_kept(bench, tmp_path, monkeypatch):
    opened = study.open_study(tmp_path / "a.sqlite", bench.facts)
    study.search(opened, bench, 1)
    assert len(confirm.confirm(opened, bench)) == 0
    space = {
        n: optuna.distributions.FloatDistribution(*RANGES[n], log=RANGES[n][0] > 0) for n in RANGES
    }
    space["hidden"] = optuna.distributions.CategoricalDistribution(SIZES)
    won = DEFAULT | {"learning_rate": 2.0, "hidden": 0.5}
    settings = {"dense": vars(apply_factors(bench.settings(DEFAULT)["dense"], won))}
    opened.add_trial(
        optuna.trial.create_trial(
            params=won, distributions=space, value=0.0, user_attrs={"settings": settings}
        )
    )
    table = confirm.confirm(opened, bench, seeds=1)
    assert set(table["seed"]) == {bench.seed + 1} and set(table["part"]) == {
        "choosing",
        "confirming",
    }
    own = bench.weeks.number
    assert set(table.loc[table["part"] == "confirming", "week"]) <= set(own[bench.weeks.confirming])
    monkeypatch.setattr(confirm, "train_trial", None)  # nothing is trained a second time
    pd.testing.assert_frame_equal(confirm.confirm(opened, bench, seeds=1), table, check_dtype=False)
    judged = confirm.judge(table)
    assert (
        judged.recommended == "default" and "too few" in confirm.sentences_of(judged, 2)[-1]
    ) or judged.difference >= 0
    written = confirm.write_tuned(opened, judged, tmp_path / "a.json")
    assert read_settings(tmp_path / "a.json") == written and written.recommended == "default"


def test_importance_needs_enough_trials(bench, instant, tmp_path):
    opened = study.open_study(tmp_path / "a.sqlite", bench.facts)
    study.search(opened, bench, 3)
    assert "too few" in importance_findings(importance_of(opened), 3)[0]


def test_a_default_that_nothing_beats_is_said_to_be_best():
    space = {n: optuna.distributions.FloatDistribution(*RANGES[n]) for n in RANGES}
    space["hidden"] = optuna.distributions.CategoricalDistribution(SIZES)
    opened = optuna.create_study()
    for error, own in ((0.4, {}), (0.5, {"learning_rate": 2.0}), (0.6, {"hidden": 0.5})):
        made = {"params": DEFAULT | own, "distributions": space, "value": error}
        opened.add_trial(optuna.trial.create_trial(**made))
    told = search_findings(opened)
    assert told[1] == "None of 3 finished trials beats the default on the weeks that choose."


# Files


def bad_files(folder: Path, bench: Bench) -> dict[str, tuple[Path, str]]:
    text, empty, foreign = (
        folder / name for name in ("text.sqlite", "empty.sqlite", "foreign.sqlite")
    )
    text.write_text("not a database, but long enough to be taken for one" * 20)
    empty.touch()
    with sqlite3.connect(foreign) as database:
        database.execute("create table mine (a int)")
    return {
        "text": (text, "is no study of smartgrid tune"),
        "empty": (empty, "is no study of smartgrid tune"),
        "foreign": (foreign, "is no study of smartgrid tune"),
        "folder": (folder, "is no study of smartgrid tune"),
    }


@pytest.mark.parametrize("kind", ["text", "empty", "foreign", "folder"])
def test_a_bad_study_file_is_named_and_left_alone(kind, bench, tmp_path):
    path, words = bad_files(tmp_path, bench)[kind]
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(DataError, match=f"{re.escape(str(path))} {words}"):
        study.open_study(path, bench.facts)
    assert before is None or path.read_bytes() == before


def test_a_study_of_something_else_is_refused(bench, tmp_path):
    path = tmp_path / "a.sqlite"
    study.open_study(path, bench.facts)
    with pytest.raises(DataError, match="another horizon \\(1, now 24\\): name another file"):
        study.open_study(path, bench.facts | {"horizon": 24})
    with pytest.raises(DataError, match="another readings"):
        study.open_study(path, bench.facts | {"data": "0" * 64})
    with pytest.raises(DataError, match="no finished trial yet"):
        study.best_trial(study.open_study(path))
    with pytest.raises(DataError, match="no such study"):
        study.open_study(tmp_path / "none.sqlite")


@pytest.mark.parametrize(
    "change, words",
    [
        ({"format": 9}, "format 9"),
        ({"horizon": 5}, "horizon 5"),
        ({"experts": {"tree": {}}}, "no network 'tree'"),
        ({"experts": {"gru": {"speed": 1}}}, "no setting 'speed'"),
        ({"experts": {"gru": {"dropout": 1.5}}}, "dropout is 1.5"),
        ({"experts": {"gru": {"hidden": 33}}}, "multiple of 4"),
        ({"experts": {"gru": {"hidden": 32.0}}}, "hidden is 32.0"),
        ({"experts": {"gru": {"learning_rate": None}}}, "learning_rate is None"),
        ({"experts": ["gru"]}, "no settings file"),
    ],
)
def test_a_bad_settings_file_is_named(change, words, tmp_path):
    path = tmp_path / "a.json"
    tuned = TunedSettings(24, {"gru": ExpertSettings()}, "tuned", {})
    facts = json.loads(write_settings(path, tuned).read_text())
    assert read_settings(path) == tuned
    path.write_text(json.dumps(facts | change))
    with pytest.raises((DataError, ModelError), match=words):
        read_settings(path)


def test_settings_of_several_searches_join_unless_they_contradict(tmp_path):
    files = []
    for horizon in (1, 24):
        tuned = TunedSettings(horizon, {"gru": ExpertSettings(hidden=32)}, "default", {})
        files.append(write_settings(tmp_path / f"{horizon}.json", tuned))
    joined, remarks = join_settings(files)
    assert {h: e["gru"]["hidden"] for h, e in joined.items()} == {1: 32, 24: 32} and len(
        remarks
    ) == 2
    with pytest.raises(DataError, match="set by another file"):
        join_settings([files[0], files[0]])


# In a bundle


def test_a_bundle_remembers_the_size_of_its_networks(office, bench, tmp_path):
    split = chronological_split(office, SIMULATED_PLACE, **SPLIT)
    own = replace(usual_settings("dense", 1, 1, 3), hidden=64, dropout=0.1)
    made = Forecaster(
        "moe", SIMULATED_PLACE, path=bench.path, experts=("gru", "dense"), epochs=1, batches=3, tuned={"dense": own}
    ).fit(office, split, bench.frame)  # fmt: skip
    made.save(tmp_path)
    again = load_forecaster(tmp_path)
    assert again.family.mixture.settings == {"dense": own}
    assert again.family.mixture.networks["dense"].embed[0].out_features == 64
    assert again.parameters["tuned"]["dense"]["hidden"] == 64
    days = office.iloc[-24 * 50 :]
    pd.testing.assert_frame_equal(made.predict(days), again.predict(days))
    with pytest.raises(ModelError, match="no network 'tree' to tune"):
        Forecaster(tuned={"tree": own})


@pytest.mark.parametrize("name", NETWORKS)
def test_the_default_of_every_network_is_in_the_space(name):
    usual = usual_settings(name, 24, 12, 80)
    assert apply_factors(usual, DEFAULT) == usual and usual.hidden % 8 == 0


@pytest.mark.parametrize("name", NETWORKS)
def test_an_hour_ahead_a_search_may_drop_what_the_default_keeps(name):
    usual = usual_settings(name, 1, 12, 80)
    more, less = (apply_factors(usual, DEFAULT | {"dropout": factor}) for factor in (2.0, 0.0))
    assert usual.dropout == less.dropout == 0 and more.dropout == pytest.approx(0.15)


# The command


@pytest.fixture(scope="module")
def desk(office, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tune")
    office.to_csv(folder / "office.csv", index=False)
    return folder


def test_ctrl_c_and_the_same_command_again(desk, monkeypatch, capsys):
    line = [
        "tune",
        "office.csv",
        *LINE,
        *DATES,
        "--study",
        "dense.sqlite",
        "--confirm-seeds",
        "1",
        "--trials",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(
        [str(PROGRAM), *line, "500"], cwd=desk, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )  # fmt: skip
    said = ""
    while "trials: 1/500" not in said:
        said += (heard := running.stderr.readline())
        assert heard, said
    running.send_signal(signal.SIGINT)
    shown, rest = running.communicate(timeout=60)
    assert (
        running.returncode == 130 and "Traceback" not in rest and shown.startswith("best trial 1")
    )
    kept = int(re.search(r"interrupted; (\d+) finished trials are kept", rest)[1])
    monkeypatch.chdir(desk)
    assert main([*line, str(kept)]) == 0
    assert "Recommended" in capsys.readouterr().out
    assert read_settings("dense.json").horizon == 1


def shown_on_the_page(path: Path, monkeypatch) -> str:
    "What the cells of the report display, run in this process."
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda html: shown.append(html.data))
    notebook = find_report("tune")
    known = {}
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "code":
            exec(cell.source, known)
        if "parameters" in cell.metadata.get("tags", []):
            known["study"] = str(path)
    return "".join(shown)


def test_the_page_says_what_held(bench, instant, tmp_path, monkeypatch):
    opened = study.open_study(tmp_path / "a.sqlite", bench.facts)
    study.search(opened, bench, 11)
    assert "is not confirmed yet" in shown_on_the_page(tmp_path / "a.sqlite", monkeypatch)
    best = study.best_trial(opened)
    rows = [
        dict(zip(confirm.COLUMNS, (setting, seed, part, week, error + 0.01 * (week % 3), 2.0, 168)))
        for setting, error in (("tuned", 0.39), ("default", 0.4))
        for seed in (1, 2, 3)
        for week in range(12)
        for part in [("choosing", "confirming")[week % 2]]
    ]
    opened.set_user_attr("confirmation", {"trial": best.number, "seeds": 3, "rows": rows})
    page = shown_on_the_page(tmp_path / "a.sqlite", monkeypatch)
    assert "Recommended: <b>the tuned settings</b>" in page and page.count("<svg") >= 2


def test_the_command_hands_a_study_to_the_page(bench, instant, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "smartgrid_ai.reports.run_report", lambda *given: asked.append(given) or 1 / 0
    )
    path = tmp_path / "a.sqlite"
    study.search(study.open_study(path, bench.facts), bench, 1)
    with pytest.raises(ZeroDivisionError):
        main(["report", "tune", str(path), "--output", str(tmp_path)])
    assert asked == [("tune", {"study": str(path)}, str(tmp_path))]


def test_backtest_builds_experts_by_the_settings_of_their_horizon(desk, monkeypatch, capsys):
    from smartgrid_ai.evaluate import backtest

    def build(*arguments, tuned, **options):
        raise DataError(f"{sorted(tuned)} {tuned['dense'].hidden}")

    for horizon, hidden in ((1, 32), (24, 64)):
        experts = {"dense": ExpertSettings(hidden=hidden), "gru": ExpertSettings()}
        tuned = TunedSettings(horizon, experts, "tuned", {})
        write_settings(desk / f"{horizon}.json", tuned)
    monkeypatch.chdir(desk)
    monkeypatch.setattr(backtest, "Forecaster", build)
    line = "backtest office.csv --unit W --models dense --horizon 1 --settings 24.json --settings 1.json"
    assert main(line.split()) == 2
    assert "['dense'] 32" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line, words",
    [
        ("tune office.csv --study office.csv", "office.csv is no study"),
        ("tune office.csv --study a.sqlite --out a.txt", "end its name in .json"),
        ("tune none.csv --study a.sqlite", "none.csv: no such file"),
        ("report tune none.sqlite", "no such study"),
        (
            "backtest office.csv --unit W --models persistence --settings office.csv",
            "no settings file",
        ),
    ],
)
def test_a_mistake_is_one_line(line, words, desk, monkeypatch, capsys):
    monkeypatch.chdir(desk)
    assert main(line.split()) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("smartgrid: ") and words in error


def test_without_its_library_the_extra_is_named(desk, monkeypatch, capsys):
    monkeypatch.chdir(desk)
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["tune", "office.csv", *LINE, "--study", "b.sqlite"]) == 2
    assert "pip install 'smartgrid_ai[tune]'" in capsys.readouterr().err
