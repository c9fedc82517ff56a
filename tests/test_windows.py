"""Splits by the clock and chunks that never cross a border."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loads import readings

from smartgrid_ai.readings import DataError, Place
from smartgrid_ai.windows import (
    SequenceData,
    SequenceTable,
    chronological_split,
    chunk_starts,
    covering_chunks,
    parse_instant,
)


def test_default_split_is_70_30_and_in_order():
    table = readings(2400)
    split = chronological_split(table)
    parts = [split.part(table["timestamp"], name) for name in ("train", "validation", "test")]
    assert (np.sum(parts, axis=0) == 1).all()
    assert parts[2].mean() == pytest.approx(0.3, abs=0.02)
    assert [np.flatnonzero(part)[0] for part in parts] == sorted(
        np.flatnonzero(part)[0] for part in parts
    )


def test_dates_are_civil_days_and_the_last_one_is_included():
    place = Place("Australia/Melbourne")
    split = chronological_split(
        readings(2400), place, test_start="2024-05-01", test_end="2024-05-03"
    )
    assert split.test_start == pd.Timestamp("2024-04-30 14:00", tz="UTC")
    assert split.test_end == pd.Timestamp("2024-05-03 14:00", tz="UTC")


def test_an_instant_with_offset_is_taken_as_it_is():
    assert parse_instant("2014-01-01T00:00+10:00", Place("Europe/Paris")) == pd.Timestamp(
        "2013-12-31 14:00", tz="UTC"
    )


@pytest.mark.parametrize(
    ("dates", "message"),
    [
        ({"test_start": "soon"}, "cannot read 'soon' as a date"),
        (
            {"test_start": "2030-01-01"},
            "test_end .* does not come after test_start 2030-01-01.*readings cover.*move the dates",
        ),
        (
            {"val_start": "2024-06-01", "test_start": "2024-05-01"},
            "test_start 2024-05-01.* does not come after val_start 2024-06-01",
        ),
        (
            {"train_start": "2024-05-01", "val_start": "2024-05-01"},
            "val_start .* does not come after train_start",
        ),
    ],
)
def test_impossible_dates_are_explained(dates, message):
    with pytest.raises(DataError, match=message):
        chronological_split(readings(2400), **dates)


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    hours=st.integers(2, 30),
    context=st.integers(0, 20),
    data=st.data(),
)
@settings(max_examples=100, deadline=None)
def test_every_wanted_row_is_covered_once_with_its_context(lengths, hours, context, data):
    bounds = np.r_[0, np.cumsum(lengths)]
    wanted = np.array(
        data.draw(st.lists(st.booleans(), min_size=sum(lengths), max_size=sum(lengths)))
    )
    context = min(context, hours // 2)
    seen = []
    for index, counts in covering_chunks(wanted, bounds, hours, context):
        meter = np.searchsorted(bounds, index, side="right")
        assert (meter == meter[:, :1]).all()
        for rows, scored in zip(index, counts):
            seen += rows[scored].tolist()
            start = (
                bounds[meter[0, 0] - 1]
                if len(index) == 1
                else bounds[np.searchsorted(bounds, rows[0], side="right") - 1]
            )
            first = rows[scored][0]
            assert first - rows[0] >= min(context, first - start)
    assert sorted(seen) == np.flatnonzero(wanted).tolist()


@given(st.lists(st.booleans(), min_size=5, max_size=60), st.integers(1, 5))
def test_chunks_touch_only_usable_rows(usable, hours):
    usable, bounds = np.array(usable), np.array([0, len(usable) // 2, len(usable)])
    for start in chunk_starts(usable, bounds, hours):
        assert usable[start : start + hours].all()
        assert not start < bounds[1] < start + hours


def test_training_batches_never_touch_validation():
    table = SequenceTable(
        torch.arange(1000.0)[:, None], torch.zeros(1000), torch.ones(1000), np.array([0, 1000])
    )
    train = np.arange(1000) < 600
    data = SequenceData(table, train, ~train, slice(1, 1), hours=48, batches=50)
    assert max(float(inputs.max()) for inputs, _, _ in data.train_dataloader()) < 600


def test_a_meter_shorter_than_a_chunk_still_trains():
    table = SequenceTable(
        torch.randn(90, 2), torch.zeros(90), torch.ones(90), np.array([0, 40, 90])
    )
    data = SequenceData(table, np.ones(90, bool), np.ones(90, bool), slice(2, 2), batches=1)
    inputs, _, _ = next(iter(data.train_dataloader()))
    assert inputs.shape == (16, 50, 2)


def test_more_context_than_a_chunk_holds_is_cut_down():
    chunks = covering_chunks(np.ones(100, bool), np.array([0, 100]), hours=10, context=50)
    assert sum(int(counts.sum()) for _, counts in chunks) == 100


def test_heavy_tails_are_noticed_where_training_hours_have_them():
    noise = np.random.default_rng(0).normal(size=1000)
    spiky = np.where(np.arange(1000) % 97 == 0, 200 * noise, noise)
    train = np.arange(1000) < 600
    for residual, tame in ((noise, True), (spiky, False), (np.where(train, noise, spiky), True)):
        table = SequenceTable(
            torch.zeros(1000, 2), torch.from_numpy(residual), torch.ones(1000), np.array([0, 1000])
        )
        assert SequenceData(table, train, ~train, slice(0, 1)).tame == tame


def test_a_tenth_of_the_chunks_follow_a_meter_from_its_first_hour():
    hours, known, added = 24, 1000, 240
    rows = torch.arange(float(known + added))[:, None]
    bounds = np.r_[0, np.arange(known, known + added + 1, hours)]
    table = SequenceTable(rows, torch.zeros(len(rows)), torch.ones(len(rows)), bounds)
    train = np.arange(len(rows)) < known
    begun = bounds[1:-1]
    data = SequenceData(
        table, train, ~train, slice(1, 1), hours, batches=200, burn_in=6, begun=begun
    )
    first, counted = [], []
    for inputs, _, weight in data.train_dataloader():
        first += inputs[:, 0, 0].long().tolist()
        counted += weight[:, 0].tolist()
    begins = np.array(first) >= known
    assert set(np.array(first)[begins]) == set(begun) and 0.07 < begins.mean() < 0.13
    np.testing.assert_allclose(counted, np.where(begins, 1.0, 0.1), rtol=1e-6)
