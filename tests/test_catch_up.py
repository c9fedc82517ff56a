"""Catching up: models learn from the validation hours at last, and from nothing after them."""

import os
import signal
import threading
import time

import numpy as np
import pandas as pd
import pytest
import torch
from loads import readings

from smartgrid_ai.forecast.baseline import StackedForests
from smartgrid_ai.forecast.expert import EpochProgress, catch_up_expert
from smartgrid_ai.forecast.families import MixtureFamily, RowFamily, TreeFamily
from smartgrid_ai.forecast.forecaster import Forecaster
from smartgrid_ai.forecast.gru import GRUNetwork
from smartgrid_ai.forecast.settings import CATCH_UP
from smartgrid_ai.readings import Place
from smartgrid_ai.windows import SequenceData, SequenceTable, chronological_split

QUICK = {"epochs": 1, "batches": 3, "trees": 2}
FEW = {1: ("gru", "dense", "tree"), 24: ("gru", "dense", "tree"), 168: ("dense", "tree")}
FAMILIES = {"baseline": TreeFamily, "lightgbm": RowFamily, "moe": MixtureFamily}
CASES = [
    ("baseline", 1),
    ("baseline", 24),
    ("baseline", 168),
    ("lightgbm", 1),
    ("moe", 1),
    ("moe", 24),
    ("moe", 168),
]


@pytest.fixture(scope="module")
def load():
    return readings(2000, gaps=0.02)


@pytest.fixture(scope="module")
def split(load):
    return chronological_split(load)


def sequences(hours: int = 96) -> SequenceData:
    torch.manual_seed(0)
    rows = torch.randn(2000, 4)
    table = SequenceTable(rows, rows[:, 0], torch.ones(2000), np.array([0, 2000]))
    known = np.ones(2000, bool)
    return SequenceData(table, known, known, slice(4, 4), hours=hours, batches=5)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def made(request, load, split, few_rows):
    "A family and horizon, its forecaster, and what it said before and after it caught up."
    family, horizon = request.param
    if family == "lightgbm":
        pytest.importorskip("lightgbm")
    kind = RowFamily if family == "baseline" and horizon > 1 else FAMILIES[family]
    noted, real = {}, kind.catch_up
    forecaster = untrained(family, horizon)

    def noting(self, frame, marks, progress=None):
        wanted = frame.wanted_in(~marks.known)
        noted["before"] = self.answer(frame, wanted).location
        noted["quantiles"] = {
            name: c.quantiles.copy() for name, c in forecaster.intervals.conformal.items()
        }
        real(self, frame, marks, progress)
        noted["after"] = self.answer(frame, wanted).location

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kind, "catch_up", noting)
        return family, horizon, forecaster.fit(load, split), noted


def untrained(family: str, horizon: int) -> Forecaster:
    return Forecaster(family, Place(), horizon=horizon, experts=FEW[horizon], **QUICK)


def test_models_catch_up_once_everything_is_chosen(made):
    *_, forecaster, noted = made
    for name in forecaster.models:
        assert not np.allclose(noted["before"][name], noted["after"][name]), name
        np.testing.assert_array_equal(
            noted["quantiles"][name], forecaster.intervals.conformal[name].quantiles
        )


def test_what_happens_after_the_test_begins_changes_nothing(made, load, split):
    family, horizon, forecaster, _ = made
    later = (load["timestamp"] >= split.test_start).to_numpy()
    spoilt = load.assign(consumption=np.where(later, 1e7, load["consumption"]))
    other = untrained(family, horizon).fit(spoilt, split)
    known = load[~later].reset_index(drop=True)
    pd.testing.assert_frame_equal(forecaster.predict(known), other.predict(known))


def test_the_latest_hours_matter():
    late = np.arange(3000) >= 2000
    inputs = np.random.default_rng(0).normal(size=(3000, 1)).astype(np.float32)
    target = np.where(late, -1.0, 1.0) * inputs[:, 0]
    forests = StackedForests().fit(inputs[~late], target[~late], trees=5)
    old = forests.predict(inputs[late])
    forests.catch_up(inputs[late], target[late], trees=5)
    new = forests.predict(inputs[late])
    error = lambda said: np.abs(said - target[late]).mean()  # noqa: E731
    assert error(new) < 0.2 * error(old)


def test_progress_names_the_training_error():
    notes = []
    tell = EpochProgress(lambda *told: notes.append(told), "gru, all hours")
    network = GRUNetwork(width=4).eval()
    assert catch_up_expert(network, sequences(), epochs=6, callbacks=(tell,))
    assert [told[:3] for told in notes] == [("gru, all hours", k, 2) for k in (1, 2)]
    assert all(told[3].startswith("training error 0.") for told in notes) and CATCH_UP * 6 == 2
    assert not network.training


def test_interrupting_leaves_the_expert_that_was_chosen():
    reached = threading.Event()

    def press_control_c():
        reached.wait(60)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press_control_c, daemon=True).start()
    network = GRUNetwork(width=4).eval()
    before = {name: values.clone() for name, values in network.state_dict().items()}
    tell = EpochProgress(lambda *_: reached.set(), "gru")
    assert not catch_up_expert(network, sequences(), epochs=30_000, callbacks=(tell,))
    assert not network.training
    for name, values in network.state_dict().items():
        torch.testing.assert_close(values, before[name], rtol=0, atol=0)
