"""Experts, mixture and forecaster: causal, free of units, deterministic, and safe on disk."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loads import readings

from smartgrid_ai import parallel
from smartgrid_ai.errors import DataError, ModelError
from smartgrid_ai.evaluate.backtest import DEFAULT_MODELS, backtest
from smartgrid_ai.features import FEATURE_NAMES
from smartgrid_ai.forecast import experts, training
from smartgrid_ai.forecast.calibration import GROUPS
from smartgrid_ai.forecast.expert import train_expert
from smartgrid_ai.forecast.experts import EXPERTS, NETWORKS
from smartgrid_ai.forecast.forecaster import Forecaster, load_forecaster
from smartgrid_ai.forecast.gate import GateNetwork, fit_gate, relative_errors
from smartgrid_ai.forecast.gru import GRUNetwork
from smartgrid_ai.forecast.intervals import Intervals, groups_of_meters
from smartgrid_ai.forecast.network import causal_bias
from smartgrid_ai.forecast.wanted import next_hours
from smartgrid_ai.hours import make_hours
from smartgrid_ai.readings import Place
from smartgrid_ai.scaling import feature_matrix
from smartgrid_ai.windows import SequenceData, SequenceTable, chronological_split

QUICK = {"epochs": 2, "batches": 6, "trees": 5}
PLACE = Place("Europe/Berlin", "DE", "BE")


@pytest.fixture(scope="module")
def load():
    return readings(1800, meters=2, gaps=0.01)


@pytest.fixture(scope="module")
def split(load):
    return chronological_split(load, PLACE)


@pytest.fixture(scope="module")
def fitted(load, split):
    return {name: Forecaster(name, PLACE, **QUICK).fit(load, split) for name in ("baseline", "moe")}


@pytest.mark.parametrize("name", NETWORKS)
@given(hours=st.integers(2, 60), spoilt=st.integers(1, 59), seed=st.integers(0, 100))
@settings(max_examples=15, deadline=None)
def test_experts_are_causal_at_any_length(name, hours, spoilt, seed):
    spoilt = min(spoilt, hours - 1)
    torch.manual_seed(seed)
    network = NETWORKS[name][0](width=7).eval()
    past = torch.randn(2, hours, 7)
    changed = past.clone()
    changed[:, spoilt:] = 50.0
    before, after = network(past)[:, :spoilt], network(changed)[:, :spoilt]
    torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_an_expert_learns_something_in_a_moment(name):
    torch.manual_seed(0)
    rows = torch.randn(1500, 4)
    table = SequenceTable(rows, rows[:, 0], torch.ones(1500), np.array([0, 1500]))
    early = np.arange(1500) < 1000
    data = SequenceData(table, early, ~early, slice(4, 4), hours=48, batches=20)
    assert train_expert(NETWORKS[name][0](width=4), data, epochs=2).error < 0.75


def test_attention_reaches_a_week_back_and_never_ahead():
    bias = causal_bias(400, heads=4)
    allowed = torch.isfinite(bias[0])
    assert allowed.sum(1).max() == 168 and not allowed.triu(1).any()


def test_a_gate_with_equal_experts_stays_balanced():
    torch.manual_seed(0)
    rows, target = torch.randn(800, 5), torch.randn(800)
    says, recent = target[:, None] + torch.randn(800, 3), 0.1 * torch.randn(800, 3)
    gate = GateNetwork(5, 3)
    fit_gate(gate, rows, recent, says, target, np.arange(800) % 2 == 0)
    assert gate(rows, recent).mean(0).min() > 0.15


def test_before_any_fitting_trust_falls_with_the_square_of_the_recent_error():
    gate, circumstances = GateNetwork(5, 3), torch.randn(4, 5)
    assert torch.allclose(gate(circumstances, torch.zeros(4, 3)), torch.tensor(1 / 3))
    recent = torch.from_numpy(relative_errors(np.array([[1.0, 2.0, 2.0]]))).repeat(4, 1)
    assert torch.allclose(gate(circumstances, recent), torch.tensor([4 / 6, 1 / 6, 1 / 6]))


def test_an_expert_that_goes_wrong_after_the_validation_loses_its_weight():
    "In validation the first is the better one, and by the gate's lights in every circumstance."
    torch.manual_seed(1)
    rows, target = torch.randn(2000, 5), torch.randn(2000)
    says = target[:, None] + torch.tensor([0.5, 1.0]) * torch.randn(2000, 2)
    recent = torch.tensor([[-0.4, 0.3]]).repeat(2000, 1) + 0.1 * torch.randn(2000, 2)
    gate = GateNetwork(5, 2)
    fit_gate(gate, rows, recent, says, target, np.arange(2000) // 168 % 2 == 0)
    assert gate(rows, recent)[:, 0].min() > 0.5
    later = torch.from_numpy(relative_errors(np.array([[4.0, 1.0]]))).repeat(2000, 1)
    assert gate(rows, later)[:, 0].max() < 0.4


def test_the_same_seed_gives_the_same_forecast(load, split, fitted):
    again = Forecaster("moe", PLACE, **QUICK).fit(load, split)
    pd.testing.assert_frame_equal(again.predict(load), fitted["moe"].predict(load))


@pytest.mark.parametrize("family", ["baseline", "moe"])
def test_forecasts_follow_the_unit(load, fitted, family):
    stranger = load.assign(meter_id="new " + load["meter_id"])  # of known ones, the size is learnt
    kilo = stranger.assign(consumption=stranger["consumption"] / 1000)
    plain, small = (fitted[family].predict(table) for table in (stranger, kilo))
    np.testing.assert_allclose(small["prediction"] * 1000, plain["prediction"], rtol=1e-4)
    np.testing.assert_allclose(small["confidence"], plain["confidence"], atol=1e-3)


@pytest.mark.parametrize("family", ["baseline", "moe"])
def test_no_forecast_uses_its_own_hour_or_later(load, fitted, family):
    hour = pd.Timestamp("2024-05-01 12:00", tz="UTC")
    spoilt = load.copy()
    spoilt.loc[spoilt["timestamp"] >= hour, "consumption"] = 1e6
    spoilt.loc[spoilt["timestamp"] > hour, "temperature"] = -80.0
    end = hour + pd.Timedelta(hours=1)
    before, after = (fitted[family].predict(table, start=hour, end=end) for table in (load, spoilt))
    pd.testing.assert_frame_equal(before, after)


@pytest.mark.parametrize("family", ["baseline", "moe"])
@pytest.mark.parametrize("hours", [1, 2, 30, 200])
def test_any_length_of_history_is_legal(fitted, family, hours):
    answer = fitted[family].predict(readings(hours, level=90.0, seed=5))
    assert np.isfinite(answer[["prediction", "q0.1", "q0.9"]].to_numpy()).all()


def test_a_row_of_an_unknown_meter_gets_a_sensible_forecast(fitted):
    stranger = readings(500, level=7e6, seed=9, temperature=False)
    table = fitted["moe"].features(stranger)
    rows = feature_matrix(table)[400:]
    answer = fitted["moe"].predict_rows(rows)
    error = np.abs(answer["prediction"] - table["target"][400:].to_numpy()).mean()
    naive = np.abs(rows[:, FEATURE_NAMES.index("lag_1")] - table["target"][400:]).mean()
    assert error < naive
    assert answer["confidence"].between(0, 1).all()


def test_a_meter_that_never_fed_in_gets_no_negative_forecast(fitted):
    still = readings(400)
    still["consumption"] = 0.0
    for forecaster in fitted.values():
        answer = forecaster.predict(still, start=pd.Timestamp("2024-03-10", tz="UTC"))
        assert (answer.select_dtypes("number") >= 0).all().all()


@pytest.mark.parametrize("family", ["baseline", "moe"])
def test_saved_and_loaded_it_says_the_same(load, fitted, family, tmp_path):
    fitted[family].save(tmp_path)
    again = load_forecaster(tmp_path)
    pd.testing.assert_frame_equal(again.predict(load), fitted[family].predict(load))
    assert again.models == fitted[family].models and again.place == PLACE


@pytest.mark.parametrize("damage", ["missing", "truncated", "format", "not json"])
def test_a_damaged_forecaster_refuses_to_load(fitted, damage, tmp_path):
    fitted["moe"].save(tmp_path)
    arrays, config = tmp_path / "arrays.safetensors", tmp_path / "config.json"
    if damage == "missing":
        arrays.unlink()
    elif damage == "truncated":
        arrays.write_bytes(arrays.read_bytes()[:1000])
    elif damage == "format":
        config.write_text(json.dumps(json.loads(config.read_text()) | {"format": 99}))
    else:
        config.write_text("{")
    with pytest.raises(ModelError, match=str(tmp_path)):
        load_forecaster(tmp_path)


def test_a_baseline_file_with_foreign_types_refuses_to_load(fitted, tmp_path):
    import skops.io

    fitted["baseline"].save(tmp_path)
    skops.io.dump({"stack": threading.Event}, tmp_path / "baseline.skops")
    with pytest.raises(ModelError, match="types that a baseline does not have"):
        load_forecaster(tmp_path)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda f: Forecaster("lstm"),
            ModelError,
            "unknown family 'lstm'.*baseline, lightgbm, moe",
        ),
        (lambda f: Forecaster("moe", horizon=12), ModelError, "horizon 12 h: choose 1 .*24 .*168"),
        (
            lambda f: f.predict_rows(np.zeros((1, 31)), model="tree"),
            ModelError,
            "tree does not forecast from bare rows: give it readings",
        ),
        (lambda f: f.predict_rows(np.zeros((1, 30))), DataError, r"shape \(1, 30\)"),
        (
            lambda f: f.predict(readings(50), model="baseline"),
            ModelError,
            "holds no model 'baseline'",
        ),
        (
            lambda f: f.predict(readings(50), start=pd.Timestamp("2030", tz="UTC")),
            DataError,
            "no hour to forecast",
        ),
    ],
)
def test_impossible_requests_are_explained(fitted, call, error, message):
    with pytest.raises(error, match=message):
        call(fitted["moe"])


def test_interrupting_keeps_the_best_so_far():
    rows = torch.randn(4000, 4)
    table = SequenceTable(rows, rows[:, 0], torch.ones(4000), np.array([0, 4000]))
    early = np.arange(4000) < 3000
    data = SequenceData(table, early, ~early, slice(4, 4), hours=96, batches=10)
    reached = threading.Event()

    class Notice:
        def __call__(self, *_):
            reached.set()

    def press_control_c():
        reached.wait(60)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    from smartgrid_ai.forecast.expert import EpochProgress

    threading.Thread(target=press_control_c, daemon=True).start()
    network = GRUNetwork(width=4)
    handler = signal.getsignal(signal.SIGINT)
    trained = train_expert(
        network, data, epochs=10_000, patience=10_000, callbacks=(EpochProgress(Notice(), "gru"),)
    )
    assert trained.interrupted and trained.epochs >= 1 and np.isfinite(trained.error)
    assert not network.training and signal.getsignal(signal.SIGINT) == handler


def test_sigterm_ends_the_process(tmp_path):
    program = """
import sys, numpy as np, torch
from smartgrid_ai.forecast.expert import EpochProgress, train_expert
from smartgrid_ai.forecast.gru import GRUNetwork
from smartgrid_ai.windows import SequenceData, SequenceTable
rows = torch.randn(4000, 4)
table = SequenceTable(rows, rows[:, 0], torch.ones(4000), np.array([0, 4000]))
early = np.arange(4000) < 3000
data = SequenceData(table, early, ~early, slice(4, 4), hours=96, batches=10)
tell = EpochProgress(lambda *_: print("epoch", flush=True), "gru")
train_expert(GRUNetwork(width=4), data, epochs=10_000, patience=10_000, callbacks=(tell,))
print("went on")
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "epoch\n"
    process.terminate()
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 143 and "went on" not in rest


def test_backtest_puts_all_models_on_the_same_hours(load, split):
    result = backtest(load, split, PLACE, **QUICK)
    assert set(result.metrics["model"]) == set(DEFAULT_MODELS)
    assert set(EXPERTS) < set(DEFAULT_MODELS) and "lightgbm" not in DEFAULT_MODELS
    assert set(result.metrics["task"]) == set(result.forecasts["task"]) == {"h1"}
    assert result.metrics["hours"].nunique() == 1
    assert result.weather == "observed (perfect forecast)"
    counts = result.forecasts.groupby("model").size()
    assert counts.nunique() == 1
    assert result.forecasts["timestamp"].min() >= split.test_start
    quantiles = result.forecasts.filter(like="q0.").to_numpy()
    assert (np.diff(quantiles, axis=1) >= 0).all()


@pytest.mark.parametrize("horizon", [1, 24])
def test_helpers_change_nothing_but_the_time(load, split, monkeypatch, horizon):
    names, told, quick = ("gru", "dense", "tree"), [], {"epochs": 2, "batches": 3, "trees": 3}
    alone = backtest(load, split, PLACE, names, horizon=horizon, **quick)
    monkeypatch.setattr(parallel, "cores", lambda: 2)
    monkeypatch.setattr(training, "WORTH_A_PROCESS", 1)
    with parallel.every_core():
        helped = backtest(
            load, split, PLACE, names, horizon=horizon, progress=lambda *m: told.append(m), **quick
        )
    pd.testing.assert_frame_equal(helped.forecasts, alone.forecasts)
    stages = {stage for stage, *_ in told}
    assert stages == {*names, *(f"{name}, all hours" for name in names)}


def test_ctrl_c_while_trees_grow_keeps_the_networks(load, split, monkeypatch):
    def pressed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(experts, "grow_tree", pressed)
    forecaster, told = Forecaster("moe", PLACE, experts=("dense", "tree"), epochs=1, batches=3), []
    forecaster.fit(load, split, progress=lambda *message: told.append(message))
    assert ("Ctrl-C", 1, 1, "goes on with dense") in told
    assert forecaster.models == ("dense", "moe") and forecaster.parameters["interrupted"]


def test_backtest_says_when_there_is_no_weather(load, split):
    bare = load.drop(columns="temperature")
    names = ("persistence",)
    assert backtest(bare, split, PLACE, names).weather == "none (not in the data)"
    assert backtest(load, split, PLACE, names, weather="none").weather == "none (withheld)"


def test_backtest_fits_only_what_is_asked_for(load, split):
    result = backtest(load, split, PLACE, ("gru", "persistence"), **QUICK)
    assert set(result.metrics["model"]) == {"persistence", "gru"}
    assert result.forecasters["moe"].models == ("gru", "moe")


def test_unknown_models_are_listed(load, split):
    with pytest.raises(ModelError, match=r"unknown model 'prophet'.*persistence, .*moe"):
        backtest(load, split, PLACE, ("prophet",))


# Meters apart


def test_from_nine_meters_on_the_calm_and_the_wild_are_calibrated_apart():
    meter = np.repeat(np.arange(9), 50)
    misses = np.random.default_rng(0).normal(size=450) * 2.0**meter
    misses[:3] = np.nan
    names = [f"m{number}" for number in range(9)]
    groups = groups_of_meters(misses, meter, names)
    assert [groups[name] for name in names] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    few = meter < 8
    assert groups_of_meters(misses[few], meter[few], names[:8]) == {}


def test_a_stranger_is_calibrated_like_everyone():
    hours = make_hours(readings(48, meters=2), Place())
    wanted = next_hours(np.arange(96))
    group = Intervals(None, meter_groups={"meter-0": 2}).groups(hours, wanted)
    assert set(group[hours.meter == 0] // GROUPS) == {2}
    assert set(group[hours.meter == 1] // GROUPS) == {0}
    assert (group % 24 == hours.civil_hour).all()
