"""A bundle is whole or absent, and no changed byte goes unnoticed."""

import hashlib
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smartgrid_ai.provenance import describe_data, plain
from smartgrid_ai.readings import ModelError
from smartgrid_ai.registry import Registry, verify

ABOUT = {
    "family": "anomaly",
    "features": ["hour"],
    "data": {"rows": 3},
    "metrics": {"f1": float("nan")},
    "parameters": {},
}


def save(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "weights.bin").write_bytes(bytes(range(256)))
    (folder / "deep" / "scaler.json").write_text("{}")


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path)


def leftovers(registry):
    return [p.name for p in registry.root.glob("*/.*")]


def test_manifest_lists_every_file_with_its_digest(registry):
    bundle = registry.publish("anomaly", save, ABOUT)
    assert set(bundle.manifest["files"]) == {"card.md", "deep/scaler.json", "weights.bin"}
    for name, entry in bundle.manifest["files"].items():
        content = (bundle.path / name).read_bytes()
        assert entry == {
            "sha256": hashlib.sha256(content).hexdigest(),
            "size_bytes": len(content),
        }
    assert bundle.sha256 == hashlib.sha256((bundle.path / "manifest.json").read_bytes()).hexdigest()
    assert bundle.size_bytes == sum(e["size_bytes"] for e in bundle.manifest["files"].values())
    wanted = {"name", "version", "family", "created", "features", "data", "metrics", "parameters"}
    assert wanted | {"files", "packages", "git_revision"} <= set(bundle.manifest)
    assert bundle.manifest["metrics"] == {"f1": None}
    assert pd.Timestamp(bundle.manifest["created"]).tzinfo is not None


def test_versions_count_up_in_the_order_of_numbers(registry):
    for _ in range(12):
        registry.publish("anomaly", save, ABOUT)
    assert registry.versions("anomaly")[-2:] == ["1.10.0", "1.11.0"]
    assert registry.resolve("anomaly", "latest").version == "1.11.0"


def test_a_candidate_is_published_without_becoming_champion(registry):
    registry.publish("anomaly", save, ABOUT)
    registry.publish("anomaly", save, ABOUT, activate=False)
    assert registry.resolve("anomaly").version == "1.0.0"
    assert registry.resolve("anomaly", "latest").version == "1.1.0"


@pytest.mark.parametrize("name", ["weights.bin", "deep/scaler.json", "card.md", "manifest.json"])
def test_any_changed_byte_is_refused_by_name(registry, name):
    bundle = registry.publish("anomaly", save, ABOUT)
    content = bytearray((bundle.path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle.path / name).write_bytes(content)
    with pytest.raises(ModelError, match=name):
        registry.resolve("anomaly")


def test_a_changed_digest_is_refused(registry):
    bundle = registry.publish("anomaly", save, ABOUT)
    (bundle.path / "manifest.sha256").write_text("0" * 64)
    with pytest.raises(ModelError, match=r"manifest\.json"):
        verify(bundle.path)


@settings(max_examples=30, deadline=None)
@given(position=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_every_position_of_a_file_counts(tmp_path_factory, position, flip):
    bundle = Registry(tmp_path_factory.mktemp("models")).publish("anomaly", save, ABOUT)
    content = bytearray((bundle.path / "weights.bin").read_bytes())
    content[int(position * len(content))] ^= flip
    (bundle.path / "weights.bin").write_bytes(content)
    with pytest.raises(ModelError, match=r"weights\.bin"):
        verify(bundle.path)


def test_missing_extra_and_linked_files_are_refused(registry):
    bundle = registry.publish("anomaly", save, ABOUT)
    (bundle.path / "extra.py").write_text("")
    with pytest.raises(ModelError, match=r"extra\.py"):
        registry.resolve("anomaly")
    (bundle.path / "extra.py").unlink()
    (bundle.path / "weights.bin").rename(registry.root / "weights.bin")
    with pytest.raises(ModelError, match=r"weights\.bin is missing"):
        registry.resolve("anomaly")
    (bundle.path / "weights.bin").symlink_to(registry.root / "weights.bin")
    with pytest.raises(ModelError, match="not a plain file"):
        registry.resolve("anomaly")


def test_a_moved_bundle_is_refused(registry):
    bundle = registry.publish("anomaly", save, ABOUT)
    bundle.path.rename(bundle.path.with_name("2.0.0"))
    with pytest.raises(ModelError, match="moved"):
        registry.resolve("anomaly", "2.0.0")


def test_a_damaged_version_does_not_become_champion(registry):
    registry.publish("anomaly", save, ABOUT)
    second = registry.publish("anomaly", save, ABOUT, activate=False)
    (second.path / "weights.bin").write_bytes(b"")
    with pytest.raises(ModelError):
        registry.activate("anomaly", "1.1.0")
    assert registry.resolve("anomaly").version == "1.0.0"


def test_a_failing_save_leaves_the_last_good_model(registry):
    registry.publish("anomaly", save, ABOUT)

    def half(folder):
        save(folder)
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        registry.publish("anomaly", half, ABOUT)
    assert registry.resolve("anomaly").version == "1.0.0" and leftovers(registry) == []


@pytest.mark.parametrize("taken", ["manifest.json", "card.md", "manifest.sha256"])
def test_a_model_may_not_write_the_registry_s_own_files(registry, taken):
    with pytest.raises(ModelError, match=taken):
        registry.publish("anomaly", lambda folder: (folder / taken).write_text("x"), ABOUT)
    with pytest.raises(ModelError, match="nothing"):
        registry.publish("anomaly", lambda folder: None, ABOUT)
    assert registry.names() == [] and leftovers(registry) == []


def slow_save(folder: Path) -> None:
    save(folder)
    (folder.parent.parent / "started").touch()
    time.sleep(60)


def test_a_killed_publisher_is_swept_and_a_living_one_is_not(registry):
    fork = multiprocessing.get_context("fork")
    publisher = fork.Process(target=registry.publish, args=("anomaly", slow_save, ABOUT))
    publisher.start()
    while not (registry.root / "started").exists():
        time.sleep(0.01)
    registry.publish("anomaly", save, ABOUT)
    assert len(leftovers(registry)) == 1, "the living publisher's folder must stay"
    os.kill(publisher.pid, signal.SIGKILL)
    publisher.join()
    assert registry.resolve("anomaly").version == "1.0.0"
    registry.publish("anomaly", save, ABOUT)
    assert leftovers(registry) == []


def publish_some(root: str) -> None:
    for _ in range(5):
        Registry(root).publish("anomaly", save, ABOUT)


def test_publishers_at_once_do_not_collide(registry):
    fork = multiprocessing.get_context("fork")
    publishers = [fork.Process(target=publish_some, args=(registry.root,)) for _ in range(4)]
    for publisher in publishers:
        publisher.start()
    for publisher in publishers:
        publisher.join()
    assert [p.exitcode for p in publishers] == [0] * 4
    assert registry.versions("anomaly") == [f"1.{k}.0" for k in range(20)]
    assert registry.active("anomaly") == "1.19.0" and leftovers(registry) == []
    for number in registry.versions("anomaly"):
        assert registry.resolve("anomaly", number).manifest["version"] == number


@pytest.mark.parametrize("name", ["../evil", "a/b", "", ".", "Moe", "moe\n", "x" * 65, "/etc"])
def test_names_that_are_paths_are_refused(registry, name):
    with pytest.raises(ModelError, match="no model name"):
        registry.publish(name, save, ABOUT)
    with pytest.raises(ModelError, match="no model name"):
        registry.resolve(name)


@pytest.mark.parametrize("number", ["../moe", "1.0", "1.0.0/..", "", "9.9.9", "1.0.0\n"])
def test_unknown_versions_list_the_known_ones(registry, number):
    registry.publish("anomaly", save, ABOUT)
    with pytest.raises(ModelError, match=r"versions there: 1\.0\.0"):
        registry.resolve("anomaly", number)


def test_an_empty_registry_says_how_to_train(registry):
    with pytest.raises(ModelError, match="smartgrid train"):
        registry.resolve("moe")
    assert registry.names() == []


def test_a_damaged_active_file_is_an_error_not_a_path(registry):
    registry.publish("anomaly", save, ABOUT)
    (registry.root / "anomaly" / "ACTIVE").write_text("../../etc")
    with pytest.raises(ModelError, match="no version"):
        registry.resolve("anomaly")


def test_roll_back(registry):
    registry.publish("anomaly", save, ABOUT)
    with pytest.raises(ModelError, match="first version"):
        registry.rollback("anomaly")
    registry.publish("anomaly", save, ABOUT)
    assert registry.rollback("anomaly").version == "1.0.0" == registry.active("anomaly")


@pytest.mark.parametrize(
    "manifest", [{}, ABOUT | {"family": "x"}, ABOUT | {"parameters": {1: {2}}}]
)
def test_incomplete_manifests_are_refused(registry, manifest):
    with pytest.raises(ModelError):
        registry.publish("anomaly", save, manifest)
    assert not (registry.root / "anomaly").exists()


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(json_like)
def test_plain_values_survive_strict_json(value):
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == plain(value)


def test_the_fingerprint_sees_values_times_and_meters():
    readings = pd.DataFrame(
        {
            "meter_id": "a",
            "timestamp": pd.date_range("2024", periods=3, freq="h", tz="UTC").as_unit("us"),
            "consumption": [1.0, float("nan"), 3.0],
        }
    )
    changed = [
        readings.assign(meter_id="b"),
        readings.assign(consumption=[1.0, 2.0, 3.0]),
        readings.assign(timestamp=readings["timestamp"] + pd.Timedelta("1h")),
        readings.assign(temperature=20.0),
    ]
    digests = {describe_data(table)["sha256"] for table in [readings, *changed]}
    assert len(digests) == 5
