"""Export: the same numbers outside of Python, int8 only where it holds, and nothing half-written."""

import json
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from loads import readings
from torch import nn

pytest.importorskip("onnxscript", reason="the extra [onnx] is not installed")
pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")

from smartgrid_ai import export
from smartgrid_ai.cli import main
from smartgrid_ai.data.tables import write_table
from smartgrid_ai.errors import DataError, ModelError
from smartgrid_ai.export import accept_int8, export_forecaster, quantise
from smartgrid_ai.forecast.forecaster import Forecaster, load_forecaster
from smartgrid_ai.forecast.moe import EXPERTS, GateNetwork
from smartgrid_ai.portable import OnnxNetwork, example_inputs, export_network
from smartgrid_ai.readings import Place
from smartgrid_ai.registry import Registry
from smartgrid_ai.windows import chronological_split

PLACE = Place("Europe/Berlin", "DE")
SIZES = [(1, 1), (1, 9), (64, 1), (3, 250)]


class PastAndFuture(nn.Module):
    "Reads a past with two kinds of memory, and decodes a future from where they ended."

    def __init__(self):
        super().__init__()
        self.past = nn.GRU(3, 8, 2, batch_first=True)
        self.long = nn.LSTM(8, 8, 2, batch_first=True)
        self.future, self.head = nn.LSTM(2, 8, 2, batch_first=True), nn.Linear(8, 3)

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


@pytest.mark.parametrize("name", [*EXPERTS, "gate", "two inputs"])
def test_a_file_says_what_its_network_says(name, tmp_path):
    torch.manual_seed(1)
    small = {"width": 7, "hidden": 16} | ({"layers": 1} if name == "transformer" else {})
    makers = {"gate": lambda: GateNetwork(7, 3), "two inputs": PastAndFuture}
    network = (EXPERTS[name](**small) if name in EXPERTS else makers[name]()).eval()
    nn.init.normal_(list(network.parameters())[-2])
    written = export_network(network, tmp_path / "network.onnx")
    assert written.difference < 1e-4
    file = OnnxNetwork(tmp_path / "network.onnx")
    for batch, hours in SIZES:
        same(network, file, batch, hours)
    assert [path.name for path in tmp_path.iterdir()] == ["network.onnx"]
    content = (tmp_path / "network.onnx").read_bytes()
    assert b"smartgrid" not in content and b"site-packages" not in content


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
    assert facts["networks"]["gate"]["outputs"]["weights"] == ["batch", 2]
    medians = forecaster.family.mixture.encoder.state["medians"]
    np.testing.assert_allclose(facts["encoder"]["medians"], medians)
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
    monkeypatch.setattr(forecaster.family.mixture, "networks", {"tree": object()})
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "export.json").write_text("{}")  # of an earlier export
    (tmp_path / "export" / "gru.onnx").write_bytes(b"old")
    facts, _ = export_forecaster(forecaster, tmp_path / "export")
    assert "no network" in facts["skipped"]["tree"] and list(facts["networks"]) == ["gate"]
    assert sorted(state(tmp_path / "export")) == ["export.json", "gate.onnx"]


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
