"""The paired bootstrap: same seed, same answer; what it refuses, and what it says of few series."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smartgrid_ai.evaluate.paired import (
    best_single,
    paired_bootstrap,
    paired_sentence,
    paired_values,
)
from smartgrid_ai.readings import DataError


def table(count, gap=0.0, seed=0, noise=0.1):
    random = np.random.default_rng(seed)
    ease = random.uniform(size=count)
    names = [f"s{n}" for n in range(count)]
    values = {"default": ease + gap + noise * random.normal(size=count), "lof": ease}
    return pd.concat(pd.DataFrame({"model": model, "series": names, "value": value}) for model, value in values.items())  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(st.integers(5, 40), st.integers(0, 1000), st.floats(-0.3, 0.3))
def test_the_interval_holds_the_mean_and_turns_with_the_names(count, seed, gap):
    values = table(count, gap, seed)
    out = paired_bootstrap(values, "default", "lof", seed, 500)
    assert out["low"] <= out["high"] and 0 <= out["wins"] <= 1 and out["series"] == count
    assert out["low"] <= out["difference"] + 0.05 and out["high"] >= out["difference"] - 0.05
    turned = paired_bootstrap(values, "lof", "default", seed, 500)
    names = ("difference", "low", "high", "wins")
    expected = (-out["difference"], -out["high"], -out["low"], 1 - out["wins"])
    assert [turned[name] for name in names] == pytest.approx(expected)


def test_the_same_seed_gives_the_same_answer_and_the_order_of_rows_does_not_matter():
    values = table(12, 0.02)
    first = paired_bootstrap(values, "default", "lof", seed=3)
    assert first == paired_bootstrap(
        values.sample(frac=1, random_state=0), "default", "lof", seed=3
    )
    assert first != paired_bootstrap(values, "default", "lof", seed=4)


def test_the_width_of_the_interval_is_that_of_the_textbook():
    values = table(200, 0.0, seed=1)
    out = paired_bootstrap(values, "default", "lof", draws=4000)
    error = 0.1 / np.sqrt(200)
    assert out["high"] - out["low"] == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_equal_models_tie_and_nobody_is_ahead():
    values = table(30, 0.0, noise=0.0)
    out = paired_bootstrap(values, "default", "lof")
    assert (out["difference"], out["low"], out["high"], out["wins"]) == (0, 0, 0, 0.5)
    said = paired_sentence(out, "default", "lof", "F1")
    assert "level with" in said and "cannot be told apart" in said


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_few_series_have_no_interval_and_the_sentence_says_so(count):
    values = table(count, 0.5) if count else table(1).assign(value=np.nan)
    out = paired_bootstrap(values, "default", "lof")
    assert out["series"] == count and np.isnan([out["low"], out["high"], out["wins"]]).all()
    said = paired_sentence(out, "default", "lof", "F1")
    assert ("cannot be compared" in said) if count == 0 else ("luck" in said)
    assert ("one series" in said) == (count == 1)


def test_between_five_and_twenty_series_the_sentence_warns():
    assert "narrower" in paired_sentence(paired_bootstrap(table(8, 1), "default", "lof"), "default", "lof", "F1")  # fmt: skip
    sure = paired_sentence(paired_bootstrap(table(25, 1), "default", "lof"), "default", "lof", "F1")
    assert "narrower" not in sure and "100 % of the draws" in sure


def test_series_without_a_value_for_anybody_are_left_out_and_half_a_pair_is_refused():
    values = table(10)
    values.loc[values["series"] == "s3", "value"] = np.nan
    assert paired_bootstrap(values, "default", "lof")["series"] == 9
    half = table(10)
    half.iloc[0, 2] = np.nan
    with pytest.raises(DataError, match="'s0' has no value of some model"):
        paired_bootstrap(half, "default", "lof")
    with pytest.raises(DataError, match="'s0'"):
        paired_values(table(10).iloc[1:], ["default", "lof"])


def test_a_wrong_table_is_named():
    with pytest.raises(DataError, match="lacks the column 'value'"):
        paired_bootstrap(table(5).drop(columns="value"), "default", "lof")
    with pytest.raises(DataError, match="no values of 'vote'; there are those of default, lof"):
        paired_bootstrap(table(5), "default", "vote")
    with pytest.raises(DataError, match="two values"):
        paired_bootstrap(pd.concat([table(5), table(5)]), "default", "lof")


def test_the_best_single_detector_is_no_vote_and_not_the_subject():
    values = pd.concat([table(6, 0.5), table(6).query("model == 'lof'").assign(model="vote", value=9.0)])  # fmt: skip
    assert best_single(values) == "lof"
    assert best_single(values, composed=("vote",)) == "default"
    with pytest.raises(DataError, match="no single detector"):
        best_single(values[values["model"] != "lof"])
