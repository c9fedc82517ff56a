"""Export: the same numbers outside of Python, int8 only where it holds, and nothing half-written."""

import json
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from loads import readings
from safetensors.numpy import load_file
from torch import nn

pytest.importorskip("onnxscript", reason="the extra [onnx] is not installed")
pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")

from smartgrid_ai import export
from smartgrid_ai.cli import main
from smartgrid_ai.data.tables import write_table
from smartgrid_ai.descriptor import origin_columns
from smartgrid_ai.errors import DataError, ModelError
from smartgrid_ai.export import accept_int8, export_forecaster, quantise
from smartgrid_ai.forecast.experts import NETWORKS
from smartgrid_ai.forecast.forecaster import Forecaster, fit_path, load_forecaster
from smartgrid_ai.forecast.gate import GateNetwork
from smartgrid_ai.forecast.paths import new_path
from smartgrid_ai.forecast.wanted import next_days
from smartgrid_ai.portable import OnnxNetwork, example_inputs, export_network
from smartgrid_ai.readings import Place
from smartgrid_ai.registry import Registry
from smartgrid_ai.windows import chronological_split

PLACE = Place("Europe/Berlin", "DE")
SIZES = [(1, 1), (1, 9), (64, 1), (3, 250)]


class PastAndFuture(nn.Module):
    "Reads a past with two kinds of memory, both ways, and decodes a future from where they ended."

    def __init__(self):
        super().__init__()
        self.past = nn.GRU(3, 8, 2, batch_first=True, bidirectional=True)
        self.long = nn.LSTM(16, 8, 2, batch_first=True, bidirectional=True)
        self.future = nn.LSTM(2, 8, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(16, 3)

    def example_inputs(self, batch, hours):
        return {"past": torch.zeros(batch, hours, 3), "future": torch.zeros(batch, 24, 2)}

    def forward(self, past, future):
        seen, last = self.past(past)
        _, state = self.long(seen)
        return self.head(self.future(future, state)[0]) + last.mean()


class Restless(nn.Module):
    "Never says the same twice."

    def example_inputs(self, batch, hours):
        return {"rows": torch.zeros(batch, hours, 2)}

    def forward(self, rows):
        return rows + torch.rand_like(rows)


def same(network, file, batch, hours):
    torch.manual_seed(batch * hours)
    inputs = [torch.randn(v.shape) for v in example_inputs(network)(batch, hours).values()]
    with torch.inference_mode():
        torch.testing.assert_close(file(*inputs), network(*inputs), rtol=1e-4, atol=1e-4)


def expert(name, kind):
    "A small network with something to hide and a shortcut."
    small = {"width": 7, "hidden": 16} | (
        {"layers": 1} if (name, kind) == ("transformer", 0) else {}
    )
    network = NETWORKS[name][kind](**small, **({"channels": 4} if kind else {}))
    network.view.set(slice(1, 3), (5, 0.7, -0.2))
    return network


def recurrent_nodes(path):
    from onnx import load

    return sum(node.op_type in ("GRU", "LSTM") for node in load(path).graph.node)


ALL = {
    **{name: lambda name=name: expert(name, 0) for name in NETWORKS},
    **{f"{name} ahead": lambda name=name: expert(name, 1) for name in NETWORKS},
    "gate": lambda: GateNetwork(7, 3),
    "two inputs": PastAndFuture,
}


@pytest.mark.parametrize("name", ALL)
def test_a_file_says_what_its_network_says(name, tmp_path):
    torch.manual_seed(1)
    network = ALL[name]().eval()
    nn.init.normal_(list(network.parameters())[-2])
    written = export_network(network, tmp_path / "network.onnx")
    assert written.difference < 1e-4
    file = OnnxNetwork(tmp_path / "network.onnx")
    for batch, hours in SIZES:
        same(network, file, batch, hours)
    assert [path.name for path in tmp_path.iterdir()] == ["network.onnx"]
    content = (tmp_path / "network.onnx").read_bytes()
    assert b"smartgrid" not in content and b"site-packages" not in content
    assert recurrent_nodes(tmp_path / "network.onnx") == sum(
        part.num_layers for part in network.modules() if isinstance(part, nn.RNNBase)
    ), "one node for each layer, not one for each hour"


def test_a_file_that_differs_is_not_written(tmp_path):
    (tmp_path / "old.onnx").write_text("kept")
    with pytest.raises(ModelError, match="differs from PyTorch"):
        export_network(Restless(), tmp_path / "old.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["old.onnx"]
    assert (tmp_path / "old.onnx").read_text() == "kept"


def test_a_network_has_to_say_what_it_reads(tmp_path):
    with pytest.raises(ModelError, match="example_inputs"):
        export_network(nn.Linear(2, 2), tmp_path / "network.onnx")


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "network.onnx").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"network\.onnx"):
        OnnxNetwork(tmp_path / "network.onnx")


# A forecaster, exported once from the command line


@pytest.fixture(scope="module")
def load():
    return readings(1200, gaps=0.01)


@pytest.fixture(scope="module")
def home(load, tmp_path_factory):
    "A folder with a published mixture, its readings, and its export."
    home = tmp_path_factory.mktemp("export")
    write_table(load, home / "load.parquet")
    forecaster = Forecaster("moe", PLACE, epochs=1, batches=3, experts=("gru", "cnn_lstm"))
    forecaster.fit(load, chronological_split(load, PLACE))
    parts = {
        name: getattr(forecaster, name if name != "features" else "feature_names")
        for name in ("features", "data", "metrics", "parameters")
    }
    Registry(home / "models").publish("moe", forecaster.save, {"family": "forecast"} | parts)
    return home


@pytest.fixture(scope="module")
def forecaster(home):
    return load_forecaster(Registry(home / "models").resolve("moe").path)


@pytest.fixture(scope="module")
def exported(home):
    arguments = ["export", "moe", "--models", home / "models", "--output", home / "exported"]
    arguments += ["--int8", home / "load.parquet", "--unit", "W"]
    assert main([str(argument) for argument in arguments]) == 0
    return home / "exported"


@pytest.fixture
def facts(exported):
    return json.loads((exported / "export.json").read_text())


def state(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_folder_holds_every_network_and_its_constants(exported, facts, forecaster):
    names = {path.name for path in exported.iterdir()}
    assert {"gru.onnx", "cnn_lstm.onnx", "gate.onnx", "export.json"} <= names
    assert (facts["name"], facts["version"], facts["experts"]) == (
        "moe",
        "1.0.0",
        ["gru", "cnn_lstm"],
    )
    assert facts["networks"]["gru"]["inputs"]["rows"] == ["batch", "hours", len(facts["columns"])]
    assert facts["networks"]["gate"]["outputs"]["weights"] == ["batch", "hours", 2]
    assert facts["networks"]["gate"]["inputs"] == {
        "circumstances": ["batch", "hours", len(facts["gate_columns"])],
        "recent": ["batch", "hours", 2],
    }
    np.testing.assert_allclose(
        facts["encoder"]["medians"], forecaster.path.encoder.state["medians"]
    )
    arrays = load_file(exported / facts["arrays"]["file"])
    assert {name: list(value.shape) for name, value in arrays.items()} == facts["arrays"]["shapes"]
    np.testing.assert_array_equal(
        arrays["structure.weights"], forecaster.path.structure.state["weights"]
    )
    np.testing.assert_array_equal(
        arrays["grouped.moe"], forecaster.intervals.conformal["moe"].grouped
    )
    assert len(facts["conformal"]["factors"]["moe"]["quantiles"]) == len(
        facts["conformal"]["levels"]
    )


def test_worked_examples_are_what_the_files_say(exported, facts):
    for part in facts["networks"].values():
        example = part["example"]
        said = OnnxNetwork(exported / part["file"])(*map(torch.tensor, example["inputs"].values()))
        (expected,) = map(torch.tensor, example["outputs"].values())
        torch.testing.assert_close(said, expected, rtol=1e-5, atol=1e-6)


def test_int8_keeps_what_it_promises(exported, facts):
    for name in ("gru", "cnn_lstm"):
        note = facts["networks"][name]["int8"]
        assert note["accepted"] == (note["int8"] <= 1.005 * note["torch"])
        assert (exported / f"{name}.int8.onnx").exists() == ("file" in note)
        assert note["onnx"] == pytest.approx(note["torch"], rel=1e-4)
        assert note["accepted"] or "file" not in note
    some = any(facts["networks"][name]["int8"]["accepted"] for name in ("gru", "cnn_lstm"))
    assert ("int8" in facts) == some  # the mixture, judged with what is left


def test_int8_that_loses_too_much_is_removed(exported, forecaster, load, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(exported, folder)
    for name in ("gru", "cnn_lstm"):
        quantise(folder / f"{name}.onnx")
    verdicts = accept_int8(forecaster, folder, load, tolerance=-1.0)
    assert [verdict.name for verdict in verdicts] == ["gru", "cnn_lstm"]
    assert not any(verdict.accepted for verdict in verdicts)
    assert not list(folder.glob("*.int8.onnx")) and (folder / "gru.onnx").exists()
    assert all(
        "refused" in str(verdict) and " W with torch" in str(verdict) for verdict in verdicts
    )
    assert list(forecaster.family.mixture.networks) == ["gru", "cnn_lstm"]
    assert all(isinstance(net, nn.Module) for net in forecaster.family.mixture.networks.values())


def test_int8_that_spoils_the_mixture_is_removed_altogether(
    exported, forecaster, load, tmp_path, monkeypatch
):
    folder = tmp_path / "copy"
    shutil.copytree(exported, folder)
    for name in ("gru", "cnn_lstm"):
        quantise(folder / f"{name}.onnx")

    def errors(_, files, *rest):
        small = any("int8" in path.name for path in files.values())
        return {"gru": 100.0, "cnn_lstm": 100.0, "moe": 91.0 if small else 90.0}

    monkeypatch.setattr(export, "_errors", errors)
    verdicts = accept_int8(forecaster, folder, load)
    assert [v.accepted for v in verdicts] == [True, True, False] and verdicts[2].name == "moe"
    assert not list(folder.glob("*.int8.onnx"))


def test_int8_is_not_judged_on_hours_of_the_training(exported, forecaster, load):
    start = pd.Timestamp(forecaster.data["split"]["val_start"])
    with pytest.raises(DataError, match="no hour to judge"):
        accept_int8(forecaster, exported, load[load["timestamp"] < start].reset_index(drop=True))


@pytest.mark.parametrize("how", ["a network that cannot be exported", "anything else"])
def test_a_failed_export_leaves_the_old_folder(how, exported, forecaster, monkeypatch):
    before, beside = state(exported), sorted(exported.parent.iterdir())
    if how == "anything else":
        monkeypatch.setattr(export.OnnxNetwork, "__call__", lambda *_: 1 / 0)
        monkeypatch.setattr(forecaster.family.mixture, "networks", {})
    else:
        monkeypatch.setattr(forecaster.family.mixture, "networks", {"odd": nn.Identity()})
    with pytest.raises((ModelError, ZeroDivisionError)):
        export_forecaster(forecaster, exported)
    assert state(exported) == before and sorted(exported.parent.iterdir()) == beside


def test_an_expert_that_is_no_network_is_left_out_and_said(forecaster, monkeypatch, tmp_path):
    monkeypatch.setattr(forecaster.family.mixture, "networks", {})
    monkeypatch.setattr(forecaster.family.mixture, "tree", object())
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "export.json").write_text("{}")  # of an earlier export
    (tmp_path / "export" / "gru.onnx").write_bytes(b"old")
    facts, _ = export_forecaster(forecaster, tmp_path / "export")
    assert "no network" in facts["skipped"]["tree"] and list(facts["networks"]) == ["gate"]
    assert facts["experts"] == ["tree"]
    assert sorted(state(tmp_path / "export")) == [
        "constants.safetensors",
        "export.json",
        "gate.onnx",
    ]


# Days ahead


@pytest.fixture(scope="module")
def days(load):
    "A forecaster of the day ahead, whose experts walk both ways."
    long = readings(2000, gaps=0.01)
    experts = ("gru", "cnn_lstm")
    made = Forecaster("moe", PLACE, horizon=24, epochs=1, batches=3, experts=experts)
    return made.fit(long, chronological_split(long, PLACE)), long


@pytest.fixture(scope="module")
def ahead(days, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ahead") / "exported"
    facts, verdicts = export_forecaster(days[0], folder, days[1])
    return folder, json.loads(json.dumps(facts)), verdicts


def test_a_forecaster_of_the_day_ahead_is_exported(ahead, days):
    folder, facts, verdicts = ahead
    width, forecaster = len(facts["columns"]), days[0]
    assert facts == json.loads((folder / "export.json").read_text()) and facts["horizon"] == 24
    for name in ("gru", "cnn_lstm"):
        part = facts["networks"][name]
        assert part["inputs"] == {
            "past": ["batch", 168, width + 4],
            "future": ["batch", 24, width],
        }
        assert part["outputs"] == {"forecast": ["batch", 24, 3]} and part["difference"] < 1e-4
        assert (folder / f"{name}.int8.onnx").exists() == ("file" in part["int8"])
    np.testing.assert_allclose(facts["encoder"]["mean"], forecaster.path.encoder.state["mean"])
    arrays = load_file(folder / facts["arrays"]["file"])
    assert arrays["grouped.moe"].shape == (len(forecaster.intervals.conformal["moe"].grouped), 199)
    assert {verdict.name for verdict in verdicts} >= {"gru", "cnn_lstm"}
    for verdict in verdicts:
        assert verdict.onnx == pytest.approx(verdict.torch, rel=1e-4) and verdict.hours > 100


def test_the_day_ahead_can_be_forecast_from_the_files_alone(ahead, days):
    "Readings of the worked example, encoded in Python, through the files to watts."
    folder, facts, _ = ahead
    forecaster, worked = days[0], facts["worked_origin"]
    count = len(worked["readings"]["temperature"])
    clock = pd.date_range(worked["start"], periods=count, freq="h").as_unit("us")
    load = pd.Series(worked["readings"]["consumption"]).reindex(range(count))
    table = pd.DataFrame({"meter_id": "example", "timestamp": clock, "consumption": load})
    table["temperature"] = worked["readings"]["temperature"]
    frame = forecaster.path.frame(table)
    batch = frame.encode(np.array([count - 24]), np.array([1]))
    np.testing.assert_allclose(batch.future[0], worked["future"], atol=1e-3)
    np.testing.assert_allclose(batch.past[0, -1], worked["last_past_hour"], atol=1e-3)
    network, now = OnnxNetwork(folder / "gru.onnx"), count - 24
    said = network(batch.past, batch.future)[0].numpy()[:, 0]
    misses = []  # of the forecasts issued one day before, two days …
    for origin in now - 24 * np.arange(1, 15):
        past = frame.encode(np.array([origin]), np.array([1]))
        answer = network(past.past, past.future)[0].numpy()[:, 0]
        forecast = past.anchor[0].numpy() + past.scale[0].item() * answer
        misses.append(load[origin : origin + 24].to_numpy() - forecast)
    rule, misses = facts["correction"], np.array(misses) / worked["scale"][0]
    weights = 0.5 ** (np.arange(14) / rule["half_life_days"])
    parts = {"latest": misses[0, -1].repeat(24), "yesterday": misses[0], "last_week": misses[6]}
    parts["usual"] = weights @ misses / weights.sum()
    number = weights.sum() ** 2 / np.square(weights).sum()
    variance = weights @ np.square(misses - parts["usual"]) / weights.sum()
    beyond = np.abs(parts["usual"]) - rule["doubt"] * np.sqrt(variance / (number - 1))
    parts["habit"] = np.sign(parts["usual"]) * np.maximum(beyond, 0)
    largest, own = rule["largest"], rule["coefficients"][0][facts["experts"].index("gru")]
    added = sum(c * np.clip(parts[p], -largest, largest) for c, p in zip(own, rule["parts"]))
    location = np.array(worked["anchor"]) + worked["scale"][0] * (said + added)
    expected = forecaster.predict(table, "gru")
    assert (expected["timestamp"] == clock[-24:]).all()
    np.testing.assert_allclose(location, expected["prediction"], rtol=1e-3)


def test_quantiles_follow_from_the_files(ahead, days):
    "As `meaning` says: the factor of the group, times the distance on its side."
    folder, facts, _ = ahead
    forecaster, load = days
    frame = forecaster.path.frame(load, 24)
    wanted = next_days(np.array([len(load)]))
    answers = forecaster.family.answer(frame, wanted)
    location, below, above = (
        part["moe"].to_numpy() for part in (answers.location, answers.below, answers.above)
    )
    bands, level = facts["conformal"]["bands"], facts["conformal"]["levels"].index(0.9)
    band = np.searchsorted(bands, np.arange(1, 25))
    group = 24 * band + frame.hours.civil_hour[wanted.target]
    factor = load_file(folder / facts["arrays"]["file"])["grouped.moe"][group, level]
    expected = forecaster.predict(load)["q0.9"]
    np.testing.assert_allclose(
        location + factor * np.where(factor < 0, below, above), expected, rtol=1e-6
    )


def test_columns_of_every_kind_of_weather_have_names(load):
    long = readings(2000)
    humid = long.assign(humidity=50.0 + 10 * np.sin(np.arange(2000) / 5))
    for table in (long, humid, humid.drop(columns="temperature"), humid.iloc[:, :3]):
        path = new_path(24, PLACE)
        fit_path(path, table, chronological_split(table, PLACE))
        names = origin_columns(path.encoder.structure.names, path.encoder.width)
        assert len(set(names)) == len(names) == path.encoder.width
    with pytest.raises(ModelError, match="the encoder changed"):
        origin_columns((), 3)


def test_a_folder_of_something_else_is_never_replaced(forecaster, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match="left alone"):
        export_forecaster(forecaster, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_forests_are_refused(tmp_path):
    with pytest.raises(ModelError, match="has no networks"):
        export_forecaster(Forecaster("baseline"), tmp_path / "export")
    assert not (tmp_path / "export").exists()


@pytest.mark.parametrize("library", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_extra_is_named(library, home, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, library, None)
    arguments = ["export", "moe", "--models", str(home / "models"), "--output"]
    assert main([*arguments, str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "pip install 'smartgrid_ai[onnx]'" in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("model", ["nothing", "no/folder"])
def test_a_model_that_is_not_there_is_one_line(model, home, tmp_path, capsys):
    arguments = ["export", model, "--models", str(home / "models"), "--output"]
    assert main([*arguments, str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
