"""Tree models over rows of any horizon: the same answer every time, from any file, at any number of threads."""

import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from threadpoolctl import threadpool_limits

from smartgrid_ai.errors import DataError, ModelError
from smartgrid_ai.forecast.lightgbm import LightGBMPeer
from smartgrid_ai.forecast.rows import RegressionRows
from smartgrid_ai.forecast.stack import ForestStack
from smartgrid_ai.forecast.tree import TreeExpert, _most_rows

MODELS = {"tree": TreeExpert, "lightgbm": LightGBMPeer, "stack": ForestStack}
QUICK = {"tree": 60, "lightgbm": 40, "stack": 6}  # trees


def rows(count: int, seed: int = 0, meters: int = 2, gaps: float = 0.05) -> RegressionRows:
    "A residual that follows hour and temperature, some of both unknown."
    rng = np.random.default_rng(seed)
    hour, meter = np.arange(count) % 24, rng.integers(0, meters, count)
    temperature = rng.normal(10, 6, count)
    noise = rng.laplace(0, 0.05, count)
    target = 0.3 * (hour > 7) + 0.04 * np.clip(15 - temperature, 0, None) + noise
    target[rng.random(count) < gaps] = np.nan
    temperature[rng.random(count) < gaps] = np.nan
    size = 100.0 * 10**meter
    inputs = np.column_stack([hour, temperature, rng.normal(size=(count, 2))])
    return RegressionRows(
        inputs=inputs.astype(np.float32),
        names=("hour", "temperature", "idle", "idler"),
        target=target,
        anchor=2 * size,
        size=size,
        hour=hour,
        horizon=1 + hour,
        meter=meter,
    )


def fit(name: str, **changes):
    return MODELS[name]().fit(rows(1500), rows(600, 1), trees=QUICK[name], **changes)


@pytest.fixture(scope="module")
def fitted():
    return {name: fit(name) for name in MODELS}


# Rows


@given(count=st.integers(1, 60), most=st.integers(1, 60), seed=st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_thinned_rows_keep_their_order_and_belong_together(count, most, seed):
    whole = replace(rows(count), target=np.arange(count, dtype=float))
    part = whole.thin(most, seed)
    assert len(part) == min(count, most)
    assert (np.diff(part.target) > 0).all()
    kept = part.target.astype(int)
    for name in ("inputs", "anchor", "size", "hour", "horizon", "meter"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[kept])


def test_thinning_depends_on_the_seed_alone():
    whole = replace(rows(500), target=np.arange(500.0))
    assert (whole.thin(50, 3).target == whole.thin(50, 3).target).all()
    assert (whole.thin(50, 3).target != whole.thin(50, 4).target).any()


@given(
    sizes=st.lists(st.floats(1e-3, 1e9), min_size=1, max_size=20),
    unit=st.sampled_from([1.0, 1e3, 1e6]),
    squared=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_weights_put_the_loss_in_watts_in_any_unit(sizes, unit, squared):
    some = replace(rows(len(sizes)), size=np.array(sizes))
    weight = some.weight(squared)
    assert np.isclose(weight.mean(), 1)
    np.testing.assert_allclose(
        weight / weight.max(), (some.size / some.size.max()) ** (1 + squared)
    )
    np.testing.assert_allclose(replace(some, size=some.size * unit).weight(squared), weight)


def test_observed_rows_single_meters_and_no_rows_at_all():
    some = rows(300)
    known = some.take(some.observed)
    assert 0 < len(known) < 300 and known.observed.all()
    assert not some.single and some.take(some.meter == 1).single
    assert len(some.take(slice(0, 0)).weight()) == 0


@pytest.mark.parametrize(
    "change, message",
    [
        ({"target": np.zeros(4)}, "target has 4 rows, inputs have 5"),
        ({"names": ("hour",)}, "4 columns of inputs, 1 names"),
        ({"size": np.zeros(5)}, "size must be positive"),
        ({"size": np.full(5, np.nan)}, "size must be positive"),
    ],
)
def test_rows_that_do_not_fit_together_are_refused(change, message):
    with pytest.raises(DataError, match=message):
        replace(rows(5), **change)


# Models


@pytest.mark.parametrize("name", MODELS)
def test_they_learn_and_say_how_far_they_miss(fitted, name):
    judge = rows(2000, 2, gaps=0.0)
    location, log_below, log_above = fitted[name].predict(judge).T
    assert np.abs(judge.target - location).mean() < 0.1 < np.abs(judge.target).mean() / 3
    beyond = (
        judge.target < location - np.exp(log_below),
        judge.target > location + np.exp(log_above),
    )
    assert all(0.05 < side.mean() < 0.2 for side in beyond)


@pytest.mark.parametrize("name", MODELS)
def test_threads_change_nothing(fitted, name):
    judge = rows(300, 3)
    with threadpool_limits(2):
        assert (fit(name).predict(judge) == fitted[name].predict(judge)).all()


@pytest.mark.parametrize("name", MODELS)
def test_the_seed_decides(fitted, name):
    judge = rows(300, 3)
    assert (fit(name, seed=1).predict(judge) != fitted[name].predict(judge)).any()


@pytest.mark.parametrize("name", MODELS)
def test_saved_and_loaded_they_say_the_same(fitted, name, tmp_path):
    fitted[name].save(tmp_path)
    judge = rows(300, 3)
    again = MODELS[name].load(tmp_path)
    assert (again.predict(judge) == fitted[name].predict(judge)).all()
    assert not list(tmp_path.glob(".*"))
    again.save(tmp_path)
    assert (MODELS[name].load(tmp_path).predict(judge) == again.predict(judge)).all()


@pytest.mark.parametrize("name", MODELS)
def test_unknown_inputs_and_strangers_get_a_forecast(fitted, name):
    judge = rows(50, 4)
    blank = replace(judge, inputs=np.full_like(judge.inputs, np.nan))
    stranger = replace(judge, meter=np.full(50, -1))
    for some in (blank, stranger, replace(judge, meter=judge.meter + 99)):
        answer = fitted[name].predict(some)
        assert answer.shape == (50, 3) and answer.dtype == float and np.isfinite(answer).all()


@pytest.mark.parametrize("name", MODELS)
def test_a_column_that_is_never_known_is_no_obstacle(name):
    learn, later = (
        replace(part, inputs=np.where(np.arange(4) == 1, np.nan, part.inputs).astype(np.float32))
        for part in (rows(400), rows(200, 1))
    )
    model = MODELS[name]().fit(learn, later, trees=3)
    assert np.isfinite(model.predict(rows(20, 2))).all()


@pytest.mark.parametrize("name", MODELS)
def test_forecasts_follow_the_unit(fitted, name):
    kilo = MODELS[name]().fit(
        *(
            replace(part, size=part.size / 1024, anchor=part.anchor / 1024)
            for part in (rows(1500), rows(600, 1))
        ),
        trees=QUICK[name],
    )
    judge = rows(300, 3)
    assert (kilo.predict(judge) == fitted[name].predict(judge)).all()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("learn, later", [(99, 500), (500, 19), (0, 500), (500, 0)])
def test_too_few_rows_are_explained(name, learn, later):
    parts = (rows(count, gaps=0.0) for count in (learn, later))
    with pytest.raises(DataError, match="observed"):
        MODELS[name]().fit(*parts, trees=2)


def test_big_meters_count_more():
    "Two meters pull one constant input apart; the loss in watts follows the big one."
    some = rows(2000)
    idle = np.zeros_like(some.inputs)
    pulled = replace(some, inputs=idle, target=np.where(some.meter == 1, 0.5, -0.5))
    for squared in (False, True):
        model = TreeExpert().fit(pulled, pulled, trees=40, squared=squared)
        assert model.predict(pulled)[0, 0] > 0.3


def test_columns_cut_beforehand_give_the_trees_that_boosting_gives_by_itself():
    some, later = rows(3000), rows(500, 1)
    some.inputs[::7, 2], later.inputs[::5, 2] = np.nan, np.nan
    model = TreeExpert().fit(some, later, trees=30)
    known = some.take(some.observed)
    squared = model.location.loss == "squared_error"
    plain = clone(model.location).fit(known.learnable, known.target, known.weight(squared))
    np.testing.assert_allclose(model.predict(later)[:, 0], plain.predict(later.inputs), atol=1e-9)


def test_ctrl_c_while_trees_catch_up_leaves_the_old_ones(monkeypatch):
    some, later = rows(600), rows(300, 1)
    model = TreeExpert().fit(some, later, trees=5)
    before = model.predict(later)

    def pressed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(model.location), "fit", pressed)
    with pytest.raises(KeyboardInterrupt):
        model.catch_up(rows(600, 2))
    np.testing.assert_array_equal(model.predict(later), before)


def test_the_tails_of_the_residuals_decide_the_loss_and_not_the_number_of_meters():
    some, later = rows(600), rows(300, 1)
    wild = replace(some, target=some.target * np.where(np.arange(600) % 100 == 7, 100.0, 1.0))
    assert some.tame and not wild.tame and not some.take(slice(0, 0)).tame
    assert some.take(some.meter == 0).tame
    assert TreeExpert().fit(some, later, trees=2).location.loss == "squared_error"
    assert TreeExpert().fit(wild, later, trees=2).location.loss == "absolute_error"
    assert LightGBMPeer().fit(some, later, trees=2).squared
    assert not LightGBMPeer().fit(wild, later, trees=2).squared


def test_lightgbm_is_told_the_meter_where_there_are_several():
    some, later = rows(600), rows(300, 1)
    alone = [part.take(part.meter == 0) for part in (some, later)]
    assert LightGBMPeer().fit(some, later, trees=2).meters
    assert not LightGBMPeer().fit(*alone, trees=2).meters


@pytest.mark.parametrize(("meters", "expected"), [(1, 40_000), (3, 50_000), (1000, 200_000)])
def test_more_meters_are_learned_from_more_rows(meters, expected):
    assert _most_rows(meters) == expected


def test_long_records_are_tuned_on_a_part_and_learned_whole(monkeypatch):
    counts = []
    data = LightGBMPeer._data
    monkeypatch.setattr("smartgrid_ai.forecast.lightgbm.TUNED_ROWS", 300)
    monkeypatch.setattr(
        LightGBMPeer, "_data", lambda self, part: counts.append(len(part)) or data(self, part)
    )
    LightGBMPeer().fit(rows(500, gaps=0.0), rows(100, 1, gaps=0.0), trees=3)
    assert counts == [300, 100, 500, 100]


# Files


def test_without_lightgbm_one_line_says_what_to_install(fitted, monkeypatch, tmp_path):
    fitted["lightgbm"].save(tmp_path)
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    for call in (lambda: fit("lightgbm"), lambda: LightGBMPeer.load(tmp_path)):
        with pytest.raises(ModelError, match=r"pip install 'smartgrid_ai\[lightgbm\]'"):
            call()


@pytest.mark.parametrize("name", MODELS)
def test_a_file_with_foreign_types_is_refused(fitted, name, tmp_path):
    import skops.io

    fitted[name].save(tmp_path)
    skops.io.dump({"spread": threading.Event}, tmp_path / f"{name}.skops")
    with pytest.raises(ModelError, match=r"holds types that a .* does not have"):
        MODELS[name].load(tmp_path)


FILES = [("tree", "tree.skops"), ("stack", "stack.skops")]
FILES += [("lightgbm", "lightgbm.skops"), ("lightgbm", "lightgbm.txt")]


@pytest.mark.parametrize("name, file", FILES)
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "other"])
def test_damaged_files_are_named(fitted, name, file, damage, tmp_path):
    import skops.io

    fitted[name].save(tmp_path)
    path = tmp_path / file
    if damage == "missing":
        path.unlink()
    elif damage == "other":
        skops.io.dump({"weights": np.zeros(3)}, path)
    else:
        path.write_bytes(path.read_bytes()[: 0 if damage == "empty" else path.stat().st_size // 2])
    with pytest.raises(ModelError, match=file):
        MODELS[name].load(tmp_path)
