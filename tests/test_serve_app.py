"""Each endpoint's answers and refusals, on the whole application with real models and an inline lane."""

import asyncio
import contextlib
import json
import math
import re
import shutil
import uuid
from datetime import datetime, timedelta

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from serving import PLACE, shop

from smartgrid_ai.features import FEATURE_NAMES
from smartgrid_ai.forecast.forecaster import load_forecaster
from smartgrid_ai.readings import WEATHER_COLUMNS
from smartgrid_ai.registry import Registry
from smartgrid_ai.serve.app import build_app, example_curl
from smartgrid_ai.serve.engine import Engine, InlineLane
from smartgrid_ai.serve.problems import KINDS
from smartgrid_ai.serve.schemas import EXAMPLE_FEATURES
from smartgrid_ai.serve.settings import Settings


class Client:
    "Speaks to an application in this process, one request at a time."

    def __init__(self, app: FastAPI):
        self.app = app

    def __call__(
        self, method: str, path: str, host: str = "localhost", **options
    ) -> httpx.Response:
        async def ask():
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(
                transport=transport, base_url=f"http://{host}:8000"
            ) as client:
                return await client.request(method, path, **options)

        answer = asyncio.run(ask())
        assert answer.headers["x-request-id"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        if answer.status_code >= 400:
            problem = strict(answer)
            assert answer.headers["content-type"] == "application/problem+json"
            assert KINDS[problem["code"]].status == answer.status_code == problem["status"]
            assert problem["detail"] and problem["request_id"] == answer.headers["x-request-id"]
            assert "Traceback" not in answer.text
        return answer

    def post(self, path: str, body: object, **options) -> httpx.Response:
        return self("POST", path, json=body, **options)


def strict(answer: httpx.Response) -> dict:
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(answer.text, parse_constant=refuse)


@pytest.fixture(scope="module")
def registry(served):
    return served


@pytest.fixture(scope="module")
def lane(registry):
    return InlineLane(Engine(str(registry.root)))


@pytest.fixture(scope="module")
def client(registry, lane):
    return Client(build_app(Settings(model_dir=registry.root), lane, ready=lambda: True))


def readings(count: int, last: float | None = None) -> list[dict]:
    table = shop().iloc[-count:]
    values = table["consumption"].tolist()
    if last is not None:
        values[-1] = last
    stamps = [stamp.isoformat() for stamp in table["timestamp"]]
    return [
        {"timestamp": stamp, "consumption": value if math.isfinite(value) else None}
        for stamp, value in zip(stamps, values)
    ]


# forecasts


@pytest.mark.parametrize("model", ["moe", "gru", "attention", "baseline"])
def test_single_forecast(client, registry, model):
    row = registry.resolve("moe").manifest["parameters"]["example_features"]
    answer = strict(client.post("/predict/single", {"features": row, "model": model}))
    assert answer["model_used"] == model and answer["model_version"] == "1.0.0"
    assert answer["interval"]["lower"] < answer["prediction"] < answer["interval"]["upper"]
    assert answer["interval"]["level"] == 0.8 and 0 <= answer["confidence"] <= 1
    assert datetime.fromisoformat(answer["timestamp"]).tzinfo is not None
    last = row[FEATURE_NAMES.index("lag_1")]
    assert last / 5 < answer["prediction"] < last * 5, "a forecast in W, near the last hour"


def test_the_mixture_is_the_default(client):
    answer = client.post("/predict/single", {"features": EXAMPLE_FEATURES}).json()
    assert answer["model_used"] == "moe"
    for version in ("champion", "latest", "1.0.0"):
        body = {"features": EXAMPLE_FEATURES, "model_version": version}
        assert client.post("/predict/single", body).json()["prediction"] == answer["prediction"]


def test_a_batch_says_the_same_as_single_requests(client):
    rows = [[*EXAMPLE_FEATURES[:20], 300.0 + 50 * k, *EXAMPLE_FEATURES[21:]] for k in range(5)]
    batch = strict(client.post("/predict/batch", {"samples": [{"features": row} for row in rows]}))
    assert [item["index"] for item in batch["predictions"]] == list(range(5))
    assert len(batch["timestamps"]) == 5
    meta = batch["metadata"]
    assert (meta["model_used"], meta["count"], meta["failed"]) == ("moe", 5, 0)
    assert meta["latency_ms"] > 0
    for row, item in zip(rows, batch["predictions"]):
        single = client.post("/predict/single", {"features": row}).json()
        assert item["prediction"] == pytest.approx(single["prediction"], rel=1e-4)


def test_bad_samples_fail_alone(client):
    good = {"features": EXAMPLE_FEATURES}
    infinite = {"features": [*EXAMPLE_FEATURES[:20], 1e999, *EXAMPLE_FEATURES[21:]]}
    samples = [good, infinite, {"features": [1]}, good, {"x": 1}, None]
    body = json.dumps({"samples": samples})
    headers = {"Content-Type": "application/json"}
    batch = strict(client("POST", "/predict/batch", content=body, headers=headers))
    items = batch["predictions"]
    assert [i for i, item in enumerate(items) if "error" in item] == [1, 2, 4, 5]
    assert items[1] == {"index": 1, "error": "features[20] (lag_1): must be finite"}
    assert "31 numbers are needed, 1 were given" in items[2]["error"]
    assert items[0]["prediction"] == pytest.approx(items[3]["prediction"], rel=1e-6)
    assert batch["metadata"]["failed"] == 4 and batch["metadata"]["count"] == 6


def test_a_batch_of_nothing_but_errors_is_still_an_answer(client):
    batch = client.post("/predict/batch", {"samples": [{}, {}]}).json()
    assert batch["metadata"]["failed"] == 2 and batch["metadata"]["model_used"] == "moe"


def test_a_thousand_samples_pass_and_one_more_does_not(client):
    good = [{"features": EXAMPLE_FEATURES}] * 1000
    batch = client.post("/predict/batch", {"samples": good, "model": "baseline"})
    assert batch.status_code == 200 and len(batch.json()["predictions"]) == 1000
    refused = client.post("/predict/batch", {"samples": [*good, good[0]]})
    assert refused.status_code == 413 and refused.json()["code"] == "SG-VAL-004"
    assert "1000" in refused.json()["detail"]
    assert client.post("/predict/batch", {"samples": []}).status_code == 422


# forecasts from readings


def asked(count: int = 700, horizon: int = 24, **more) -> dict:
    return {"readings": readings(count), "horizon": horizon} | more


def predictions(answer: dict) -> list[float]:
    return [hour["prediction"] for hour in answer["forecast"]]


@pytest.mark.parametrize(
    ("horizon", "tier", "model", "degraded"),
    [
        (1, "auto", "moe", False),
        (1, "tree", "baseline", False),
        (6, "auto", "moe", False),
        (24, "moe", "moe", False),
        (25, "auto", "seasonal_naive", True),
        (168, "naive", "seasonal_naive", False),
    ],
)
def test_hours_behind_the_last_reading(client, horizon, tier, model, degraded):
    answer = strict(client.post("/forecast", asked(horizon=horizon, tier=tier, meter_id="shop-1")))
    assert (answer["model_used"], answer["degraded"]) == (model, degraded)
    stamps = [datetime.fromisoformat(hour["timestamp"]) for hour in answer["forecast"]]
    last = shop()["timestamp"].iloc[-1].to_pydatetime()
    assert stamps == [last + timedelta(hours=ahead) for ahead in range(1, horizon + 1)]
    for hour in answer["forecast"]:
        low, middle, high = (hour["quantiles"][level] for level in ("0.1", "0.5", "0.9"))
        assert low <= middle <= high and 0 <= hour["confidence"] <= 1
    assert 0 < answer["difficulty"] < 1 and answer["cost"] >= 0 and answer["latency_ms"] > 0
    assert bool(answer["gate_weights"]) == (model == "moe")
    if model == "moe":
        assert sum(answer["gate_weights"].values()) == pytest.approx(1, abs=1e-4)
    assert ("smartgrid train --horizon 168" in answer["routing_reason"]) == degraded
    assert degraded == any("--horizon 168" in warning for warning in answer["warnings"])


def test_the_service_forecasts_what_the_package_does(client, registry):
    table = shop().iloc[-700:].drop(columns=["voltage", "frequency"], errors="ignore")
    model = load_forecaster(registry.resolve("moe_24").path)
    right = model.predict(table.reset_index(drop=True))
    body = asked(meter_id="shop-1")
    weather = [name for name in WEATHER_COLUMNS if name in table]
    for reading, row in zip(body["readings"], table[weather].to_dict(orient="records")):
        reading |= {name: value for name, value in row.items() if math.isfinite(value)}
    answer = strict(client.post("/forecast", body | {"quantiles": [0.025, 0.2]}))
    np.testing.assert_allclose(predictions(answer), right["prediction"], rtol=1e-6)
    assert set(answer["forecast"][0]["quantiles"]) == {"0.025", "0.2"}
    between = right["q0.1"][0] + (right["q0.25"][0] - right["q0.1"][0]) * 2 / 3
    assert answer["forecast"][0]["quantiles"]["0.2"] == pytest.approx(between, rel=1e-6)


def test_energy_of_quarter_hours_is_answered_in_energy_of_hours(client):
    watts, energy = asked(), asked(unit="kWh")
    energy["readings"] = [
        {
            "timestamp": reading["timestamp"].replace(":00:00+", f":{minute}:00+"),
            "consumption": None
            if reading["consumption"] is None
            else reading["consumption"] / 4000,
        }
        for reading in energy["readings"]
        for minute in ("00", "15", "30", "45")
    ]
    left, right = (strict(client.post("/forecast", body)) for body in (watts, energy))
    np.testing.assert_allclose(predictions(left), np.array(predictions(right)) * 1000, rtol=1e-5)
    assert right["unit"] == "kWh"
    high, low = (a["forecast"][5]["quantiles"]["0.9"] for a in (left, right))
    assert high == pytest.approx(1000 * low, rel=1e-5)


def test_an_hour_that_is_not_over_is_the_first_to_be_forecast(client):
    body = asked(count=701, tier="naive")
    whole = strict(client.post("/forecast", body | {"readings": body["readings"][:-1]}))
    begun = body["readings"][-1]["timestamp"].replace(":00:00+", ":{}:00+")
    hours = body["readings"][:-1]
    quarters = [
        {
            "timestamp": r["timestamp"].replace(":00:00+", f":{m}:00+"),
            "consumption": r["consumption"],
        }
        for r in hours
        for m in ("00", "15", "30", "45")
    ]
    partly = [{"timestamp": begun.format(minute), "consumption": 9e5} for minute in ("00", "15")]
    answer = strict(client.post("/forecast", body | {"readings": quarters + partly}))
    assert predictions(answer) == pytest.approx(predictions(whole))
    assert "is not over" in answer["warnings"][0] and not whole["warnings"]


def test_weather_to_come_is_used_and_missed(client):
    bare = strict(client.post("/forecast", asked()))
    assert any("temperature" in warning for warning in bare["warnings"])
    body = asked()
    for reading in body["readings"]:
        reading["temperature"] = 15.0
    last = datetime.fromisoformat(body["readings"][-1]["timestamp"])
    hot, cold = (
        [
            {"timestamp": (last + timedelta(hours=h)).isoformat(), "temperature": degrees}
            for h in range(1, 25)
        ]
        for degrees in (38.0, -4.0)
    )
    answers = [
        strict(client.post("/forecast", body | {"weather_forecast": w})) for w in (hot, cold)
    ]
    for answer in answers:
        assert not any("temperature" in warning for warning in answer["warnings"])
    assert predictions(answers[0]) != predictions(answers[1])


def test_calendars_of_other_places(client):
    own = strict(client.post("/forecast", asked()))
    same = strict(client.post("/forecast", asked(timezone=PLACE["timezone"])))
    assert predictions(own) == predictions(same)
    assert same["forecast"][0]["timestamp"][-6:] != own["forecast"][0]["timestamp"][-6:]
    other = strict(client.post("/forecast", asked(timezone="America/Lima", country="PE")))
    assert predictions(other) != predictions(own)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"readings": [], "horizon": 1}, 422, "readings"),
        ({"readings": readings(30)}, 422, "horizon: is needed"),
        (asked(horizon=0), 422, "horizon: must be ≥ 1"),
        (asked(horizon=169), 422, "horizon: must be ≤ 168"),
        (asked(quantiles=[0.01]), 422, "quantiles[0]: must be ≥ 0.025"),
        (asked(unit="kwh"), 422, "unit"),
        (asked(tier="gold"), 422, "tier"),
        (asked(tier="tree"), 404, "smartgrid train --horizon 24"),
        (asked(count=100, tier="naive"), 422, "eight days"),
        (asked(count=100, horizon=168), 422, "eight days"),
        (asked(timezone="Mars/Base"), 422, "unknown time zone"),
        (asked(country="XX"), 422, "no holiday calendar"),
        ({"readings": readings(60)[::3], "horizon": 1}, 422, "3 hours apart"),
        ({"readings": readings(30) + readings(1), "horizon": 1}, 422, "two readings for"),
        (
            {"readings": [readings(1)[0] | {"consumption": None}], "horizon": 1},
            422,
            "not one whole",
        ),
        (asked(weather_forecast=[{"timestamp": "2024-05-01"}]), 422, "weather_forecast[0].timest"),
        (asked(weather_forecast=[{"consumption": 1.0}]), 422, "weather_forecast[0]"),
    ],
)
def test_forecast_refusals(client, body, status, message):
    refused = client.post("/forecast", body)
    assert refused.status_code == status and message in refused.json()["detail"]


@pytest.mark.parametrize("tier", ["naive", "moe"])
@pytest.mark.parametrize("load", [0.0, -500.0, 1e13, 1e-300])
def test_odd_loads_get_finite_answers(client, load, tier):
    body = asked(tier=tier)
    body["readings"] = [reading | {"consumption": load} for reading in body["readings"]]
    answer = strict(client.post("/forecast", body))
    assert np.isfinite(predictions(answer)).all()
    for hour in answer["forecast"]:
        assert list(hour["quantiles"].values()) == sorted(hour["quantiles"].values())


def test_stray_times_cost_nothing(client):
    far = {"temperature": 1.0}
    strays = [{"timestamp": f"{year}-01-01T00:00:00Z"} | far for year in (1901, 2199)]
    old = {"timestamp": "1901-01-01T00:00:00Z", "consumption": 1.0}
    body = asked(count=1500, tier="naive")
    plain = strict(client.post("/forecast", body))
    body["readings"].append(old)
    answer = strict(client.post("/forecast", body | {"weather_forecast": strays}))
    assert predictions(answer) == predictions(plain)


def test_a_meter_known_for_a_day_is_forecast_with_warnings(client):
    answer = strict(client.post("/forecast", asked(count=24)))
    assert answer["model_used"] == "moe" and len(answer["forecast"]) == 24
    assert answer["difficulty"] is None
    assert any("less than four weeks" in warning for warning in answer["warnings"])


def test_a_damaged_model_degrades_and_says_so(tmp_path, lane):
    registry = train_copy(tmp_path, lane)
    path = registry.resolve("moe_24").path / "arrays.safetensors"
    fresh = InlineLane(Engine(str(tmp_path)))
    client = Client(build_app(Settings(model_dir=tmp_path), fresh, ready=lambda: True))
    fresh.engine.predictor._loaded.clear()
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    answer = strict(client.post("/forecast", asked()))
    assert answer["degraded"] and answer["model_used"] == "seasonal_naive"
    assert "arrays.safetensors" in " ".join(answer["warnings"])
    assert client.post("/forecast", asked(tier="moe")).json()["code"] == "SG-MODEL-003"


# refusals


def changed(name: str, value: object) -> dict:
    row = list(EXAMPLE_FEATURES)
    row[FEATURE_NAMES.index(name)] = value
    return {"features": row}


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        (changed("lag_1", "402"), "features[20] (lag_1)", "must be a number"),
        (changed("lag_1", True), "features[20] (lag_1)", "must be a number"),
        (changed("lag_1", None), "features[20] (lag_1)", "must be a number"),
        (changed("hour", 24), "features[0] (hour)", "must be ≤ 23"),
        (changed("hour", 7.5), "features[0] (hour)", "must be a whole number"),
        (changed("month", 0), "features[2] (month)", "must be ≥ 1"),
        (changed("is_weekend", 2), "features[4] (is_weekend)", "must be ≤ 1"),
        (changed("trend", 1e14), "features[27] (trend)", "must be ≤ 1e+13"),
        ({"features": EXAMPLE_FEATURES[:30]}, "features", "30 were given"),
        ({"features": "abc"}, "features", "list of 31 numbers"),
        ({}, "features", "is needed"),
        (changed("hour", 7) | {"modle": "moe"}, "modle", "no known field"),
        (changed("hour", 7) | {"model_version": "1.0"}, "model_version", "pattern"),
        ([1, 2], "body", "must be a JSON object"),
        (None, "body", "must be a JSON object"),
    ],
)
def test_wrong_values_are_named(client, body, field, message):
    headers = {"Content-Type": "application/json"}
    refused = client("POST", "/predict/single", content=json.dumps(body), headers=headers)
    assert refused.status_code == 422 and refused.json()["code"] == "SG-VAL-002"
    error = refused.json()["errors"][0]
    assert error["field"] == field and message in error["message"]
    assert error["field"] in refused.json()["detail"]


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite(client, text):
    body = json.dumps({"features": EXAMPLE_FEATURES}).replace("402.0", text)
    headers = {"Content-Type": "application/json"}
    refused = client("POST", "/predict/single", content=body, headers=headers)
    assert refused.json()["errors"] == [
        {"field": "features[20] (lag_1)", "message": "must be finite"}
    ]


@pytest.mark.parametrize(
    "content", ["{", "", "{'a': 1}", '{"a":}', "[" * 100_000, b"\xff\xfe{", '{"a": 1} x']
)
def test_malformed_json(client, content):
    headers = {"Content-Type": "application/json"}
    refused = client("POST", "/predict/single", content=content, headers=headers)
    assert refused.status_code == (422 if content == "" else 400)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "json"])
def test_other_content_types(client, kind):
    headers = {"Content-Type": kind}
    refused = client("POST", "/predict/single", content=b"{}", headers=headers)
    assert refused.status_code == 415 and "Content-Type" in refused.json()["detail"]


def test_json_with_a_charset_is_json(client):
    headers = {"Content-Type": "application/json; charset=utf-8"}
    body = json.dumps({"features": EXAMPLE_FEATURES})
    assert client("POST", "/predict/single", content=body, headers=headers).status_code == 200


def test_unknown_models_and_versions_list_the_known_ones(client):
    for model in ("unknown", "persistence", "../moe", "tree", "moe_24"):
        refused = client.post("/predict/single", {"features": EXAMPLE_FEATURES, "model": model})
        assert refused.status_code == 404 and refused.json()["code"] == "SG-MODEL-001"
        assert "baseline" in refused.json()["detail"] and "moe" in refused.json()["detail"]
    body = {"features": EXAMPLE_FEATURES, "model": "transformer"}
    assert client.post("/predict/single", body).json()["detail"].endswith("gru, attention, moe")
    body = {"features": EXAMPLE_FEATURES, "model_version": "9.9.9"}
    refused = client.post("/predict/single", body)
    assert refused.status_code == 404 and refused.json()["code"] == "SG-MODEL-002"
    assert "1.0.0" in refused.json()["detail"]


def test_paths_and_methods(client):
    assert client("GET", "/nothing").json()["code"] == "SG-VAL-006"
    refused = client("GET", "/predict/single")
    assert refused.status_code == 405 and refused.headers["allow"] == "POST"
    for path in ("/lane/engine", "/litserve/health", "/litserve/info", "/info", "/shutdown"):
        assert client("GET", path).status_code == 404
        assert client.post(path, {}).status_code == 404


# anomalies


def test_usual_and_unusual_hours(client):
    answer = strict(client.post("/anomaly-detect", {"readings": readings(400)}))
    assert answer["label"] == "NORMAL" and answer["is_anomaly"] is False
    broken = strict(client.post("/anomaly-detect", {"readings": readings(400, last=60000.0)}))
    assert broken["label"] == "ANOMALY" and broken["is_anomaly"] is True
    assert broken["anomaly_score"] > answer["anomaly_score"]
    assert broken["probability"] > 0.9
    assert set(broken["votes"]) == {"isolation_forest", "one_class_svm", "autoencoder"}
    objecting = sum(vote == -1 for vote in broken["votes"].values())
    assert broken["models_agreement"] == f"{objecting}/3"
    assert broken["confidence"] == pytest.approx(objecting / 3)
    assert datetime.fromisoformat(broken["judged"]) == shop()["timestamp"].iloc[-1]
    part = broken["contributions"][0]
    assert set(part) == {"feature", "value", "expected", "share"}
    assert part["feature"] in FEATURE_NAMES and part["feature"] in broken["explanation"]


def test_features_are_judged_too(client, registry):
    row = registry.resolve("moe").manifest["parameters"]["example_features"]
    answer = client.post("/anomaly-detect", {"features": row}).json()
    assert answer["label"] == "NORMAL" and "judged" not in answer


def test_quarter_hours_in_local_time_are_the_same_readings(client):
    hourly = readings(300, last=60000.0)
    finer = []
    for reading in hourly:
        stamp = datetime.fromisoformat(reading["timestamp"])
        for minute in (0, 15, 30, 45):
            local = stamp.replace(minute=minute).isoformat().replace("+00:00", "-00:00")
            finer.append(reading | {"timestamp": local, "temperature": 3.0})
    body = {"readings": finer[::-1], "timezone": PLACE["timezone"], "country": PLACE["country"]}
    left, right = (
        client.post("/anomaly-detect", body),
        client.post("/anomaly-detect", {"readings": hourly}),
    )
    assert left.json()["anomaly_score"] == pytest.approx(right.json()["anomaly_score"])
    assert left.json()["judged"] == right.json()["judged"]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({}, 422, "either features or readings"),
        ({"features": EXAMPLE_FEATURES, "readings": readings(200)}, 422, "either"),
        ({"features": EXAMPLE_FEATURES, "country": "AU"}, 422, "place"),
        ({"readings": []}, 422, "168 hours of readings are needed"),
        ({"readings": readings(24)}, 422, "168 hours of readings are needed"),
        ({"readings": readings(400)[::5]}, 422, "observed"),
        ({"readings": readings(200) + readings(1)}, 422, "two readings for"),
        ({"readings": readings(200), "timezone": "Mars/Base"}, 422, "unknown time zone"),
        ({"readings": readings(200), "country": "XX"}, 422, "no holiday calendar"),
        ({"readings": [{"timestamp": "2024-01-01T00:00:00", "consumption": 1.0}]}, 422, "offset"),
        (
            {"readings": [{"timestamp": 1700000000, "consumption": 1.0}]},
            422,
            "readings[0].timestamp",
        ),
        ({"readings": [{"timestamp": "0001-01-01T00:00:00Z", "consumption": 1.0}]}, 422, "1900"),
        ({"readings": [{"timestamp": "2024-01-01T00:00:00Z", "consumption": "1"}]}, 422, "number"),
        ({"features": EXAMPLE_FEATURES, "model_version": "3.0.0"}, 404, "versions there"),
    ],
)
def test_anomaly_refusals(client, body, status, message):
    refused = client.post("/anomaly-detect", body)
    assert refused.status_code == status and message in refused.json()["detail"]


def test_a_reading_from_long_ago_costs_nothing(client):
    stray = {"timestamp": "1901-01-01T00:00:00Z", "consumption": 1.0}
    with_stray = client.post("/anomaly-detect", {"readings": [stray, *readings(420)]}).json()
    without = client.post("/anomaly-detect", {"readings": readings(420)}).json()
    assert with_stray["anomaly_score"] == without["anomaly_score"]


# models and health


def test_models(client, registry):
    listed = strict(client("GET", "/models"))["models"]
    assert [entry["name"] for entry in listed] == ["anomaly", "baseline", "moe", "moe_24"]
    for entry in listed:
        bundle = registry.resolve(entry["name"])
        assert entry["status"] == "active" and entry["features"] == list(FEATURE_NAMES)
        assert (entry["sha256"], entry["size_bytes"]) == (bundle.sha256, bundle.size_bytes)
        assert datetime.fromisoformat(entry["training_date"]).tzinfo is not None


def test_model_card(client):
    card = strict(client("GET", "/models/moe"))
    assert card["status"] == "active" and card["versions"] == ["1.0.0"]
    assert card["card"].startswith("# moe 1.0.0") and card["data"] == {"rows": 4800}
    for name in ("nothing", "%2e%2e%2fmoe", "MOE"):
        assert client("GET", f"/models/{name}").status_code == 404


def test_a_damaged_bundle_is_listed_as_such(tmp_path, lane):
    registry = train_copy(tmp_path, lane)
    client = Client(build_app(Settings(model_dir=tmp_path), lane, ready=lambda: True))
    (registry.resolve("moe").path / "config.json").write_text("{}")
    refused = client("GET", "/models/moe")
    assert refused.status_code == 503 and "config.json" in refused.json()["detail"]
    (registry.root / "moe" / "1.0.0" / "manifest.json").write_text("{}")
    states = {entry["name"]: entry["status"] for entry in client("GET", "/models").json()["models"]}
    good = dict.fromkeys(("anomaly", "baseline", "moe_24"), "active")
    assert states == good | {"moe": "damaged"}


def train_copy(target, lane):
    shutil.copytree(lane.engine.model_dir, target, dirs_exist_ok=True)
    return Registry(target)


def test_a_model_activated_on_disk_is_used_from_the_next_request_on(tmp_path, lane):
    registry = train_copy(tmp_path, lane)
    fresh = InlineLane(Engine(str(tmp_path)))
    client = Client(build_app(Settings(model_dir=tmp_path), fresh, ready=lambda: True))
    body = {"features": EXAMPLE_FEATURES, "model": "baseline"}
    assert client.post("/predict/single", body).json()["model_version"] == "1.0.0"
    first = registry.resolve("baseline")
    files = [n for n in first.manifest["files"] if n != "card.md"]

    def copy(folder):
        for name in files:
            (folder / name).write_bytes((first.path / name).read_bytes())

    registry.publish("baseline", copy, first.manifest)
    assert client.post("/predict/single", body).json()["model_version"] == "1.1.0"
    (registry.root / "baseline" / "1.2.0").mkdir()
    body["model_version"] = "1.2.0"
    assert client.post("/predict/single", body).json()["code"] == "SG-MODEL-003"


def test_health(client):
    health = strict(client("GET", "/health"))
    assert health["status"] == "ok" and health["preprocessor_loaded"] is True
    loaded = {"anomaly 1.0.0", "baseline 1.0.0", "moe 1.0.0", "moe_24 1.0.0"}
    assert loaded <= set(health["models_loaded"])
    assert health["uptime"] > 0 and health["dependencies"]["engine"] == "ok"
    assert client("GET", "/livez").json() == {"status": "alive"}
    assert client("GET", "/readyz").json() == {"status": "ready"}


def test_not_ready(registry, lane):
    client = Client(build_app(Settings(model_dir=registry.root), lane, ready=lambda: False))
    refused = client("GET", "/readyz")
    assert refused.status_code == 503 and refused.headers["retry-after"]
    assert client("GET", "/livez").status_code == 200


# documentation


def test_documentation_is_our_own(client):
    for page in ("/docs", "/redoc"):
        text = client("GET", page).text
        assert "//" not in text.replace("<!--", "")
        for path in re.findall(r'(?:src|href)="([^"]+)"', text):
            asset = client("GET", path)
            assert asset.status_code == 200 and len(asset.content) > 50
            plain = client("GET", path, headers={"Accept-Encoding": "identity"})
            assert plain.content == asset.content and "content-encoding" not in plain.headers
    policy = client("GET", "/docs").headers["content-security-policy"]
    assert "default-src 'none'" in policy and "http" not in policy
    assert client("GET", "/static/..%2fsettings.ini").status_code == 404


def test_openapi_names_every_code_and_resolves_its_references(client):
    schema = client("GET", "/openapi.json").json()
    wanted = {"/health", "/predict/single", "/predict/batch", "/anomaly-detect", "/models"}
    assert wanted | {"/models/{name}", "/forecast"} <= set(schema["paths"])
    assert all(code in schema["info"]["description"] for code in KINDS)
    for path, body in schema["paths"].items():
        if "post" in body:
            reference = body["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
            example = schema["components"]["schemas"][reference.split("/")[-1]]["examples"][0]
            assert client.post(path, example).status_code == 200, "what *try it out* sends"
    for reference in re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(schema)):
        assert reference in schema["components"]["schemas"]


# what every request passes


def test_request_ids(client):
    given = client("GET", "/livez", headers={"X-Request-ID": "abc-1.2_3"})
    assert given.headers["x-request-id"] == "abc-1.2_3"
    for bad in ("", "a b", "x" * 129, "a\tb", "<script>"):
        answer = client("GET", "/livez", headers={"X-Request-ID": bad})
        assert uuid.UUID(answer.headers["x-request-id"])


def test_large_bodies(registry, lane):
    small = Settings(model_dir=registry.root, max_body_bytes=1000)
    client = Client(build_app(small, lane, ready=lambda: True))
    refused = client.post("/predict/single", {"features": [1.0] * 500})
    assert refused.status_code == 413 and "1000 bytes" in refused.json()["detail"]

    async def chunks():
        for _ in range(50):
            yield b" " * 100

    headers = {"Content-Type": "application/json"}
    assert client("POST", "/predict/single", content=chunks(), headers=headers).status_code == 413


def test_only_loopback_names_without_insecure(registry, lane, client):
    assert client("GET", "/models", host="evil.example").json()["code"] == "SG-AUTH-001"
    opened = Settings(model_dir=registry.root, insecure=True)
    opened = Client(build_app(opened, lane, ready=lambda: True))
    assert opened("GET", "/models", host="evil.example").status_code == 200


class Stuck:
    async def ask(self, task, **arguments):
        await asyncio.sleep(60)


def test_deadline_and_saturation(registry):
    tight = Settings(model_dir=registry.root, deadline=0.3, max_in_flight=2)
    app = build_app(tight, Stuck(), ready=lambda: True)

    async def crowd():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            body = {"features": EXAMPLE_FEATURES}
            return await asyncio.gather(
                *(client.post("/predict/single", json=body) for _ in range(3))
            )

    answers = sorted(asyncio.run(crowd()), key=lambda answer: answer.status_code)
    assert [answer.status_code for answer in answers] == [503, 504, 504]
    assert answers[0].headers["retry-after"] == "1"
    assert answers[0].json()["code"] == "SG-SYS-002" and answers[1].json()["code"] == "SG-SYS-003"


def test_a_body_that_never_comes(registry, lane):
    tight = Settings(model_dir=registry.root, deadline=0.2)
    client = Client(build_app(tight, lane, ready=lambda: True))

    async def dripping():
        yield b"{"
        await asyncio.sleep(30)

    headers = {"Content-Type": "application/json"}
    assert client("POST", "/predict/single", content=dripping(), headers=headers).status_code == 408


def test_an_unexpected_error_keeps_its_secrets(registry):
    class Broken:
        async def ask(self, task, **arguments):
            raise KeyError("/secret/path")

    client = Client(build_app(Settings(model_dir=registry.root), Broken(), ready=lambda: True))
    refused = client.post("/predict/single", {"features": EXAMPLE_FEATURES})
    assert refused.status_code == 500 and "secret" not in refused.text


finite = st.floats(-1e13, 1e13, allow_subnormal=False)
rows = st.tuples(
    st.integers(0, 23), st.integers(0, 6), st.integers(1, 12), st.integers(1, 4), st.integers(0, 1),
    st.integers(0, 1), st.integers(0, 3), st.integers(0, 365), *[finite] * 23,
)  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(row=rows, model=st.sampled_from(["moe", "baseline"]))
@example(
    row=(0, 0, 1, 1, 0, 0, 0, 0, 0.0, 7e-230, *17 * (0.0,), 1.0, *3 * (0.0,)), model="baseline"
)
def test_any_legal_row_gets_a_finite_answer(client, row, model):
    answer = client.post("/predict/single", {"features": list(row), "model": model})
    assert answer.status_code == 200 and np.isfinite(strict(answer)["prediction"])
    assert client.post("/anomaly-detect", {"features": list(row)}).status_code == 200


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    body=json_values,
    key=st.sampled_from(["features", "samples", "readings", "model", "weather_forecast", None]),
)
@pytest.mark.parametrize(
    "path", ["/predict/single", "/predict/batch", "/anomaly-detect", "/forecast"]
)
def test_no_body_makes_the_service_stumble(client, path, body, key):
    usual = {"readings": readings(30), "horizon": 1} if path == "/forecast" else {}
    usual = usual or {"features": EXAMPLE_FEATURES}
    content = json.dumps(body if key is None else usual | {key: body})
    headers = {"Content-Type": "application/json"}
    with contextlib.suppress(UnicodeEncodeError):
        answer = client("POST", path, content=content.encode(), headers=headers)
        assert answer.status_code < 500


def test_the_curl_is_a_request_that_works(client, registry):
    curl = example_curl(Settings(model_dir=registry.root))
    assert "/predict/single" in curl
    body = json.loads(re.search(r"-d '(.*)'$", curl)[1])
    assert client.post("/predict/single", body).status_code == 200


def test_a_service_of_days_ahead_alone(tmp_path, lane):
    registry = train_copy(tmp_path, lane)
    for name in ("moe", "baseline", "anomaly"):
        shutil.rmtree(registry.root / name)
    alone = InlineLane(Engine(str(tmp_path)))
    client = Client(build_app(Settings(model_dir=tmp_path), alone, ready=lambda: True))
    curl = example_curl(Settings(model_dir=tmp_path))
    assert "/forecast" in curl
    answer = client.post("/forecast", json.loads(re.search(r"-d '(.*)'$", curl)[1])).json()
    assert answer["model_used"] == "moe" and len(answer["forecast"]) == 24
    assert client.post("/forecast", asked(horizon=1)).json()["model_used"] == "moe"
    refused = client.post("/predict/single", {"features": EXAMPLE_FEATURES})
    assert refused.json()["code"] == "SG-MODEL-001"


def test_codes_are_unique_and_of_four_families():
    families = {code.split("-")[1] for code in KINDS}
    assert families == {"VAL", "AUTH", "MODEL", "SYS"}
    assert all(re.fullmatch(r"SG-(VAL|AUTH|MODEL|SYS)-\d{3}", code) for code in KINDS)
    assert len({kind.title for kind in KINDS.values()}) == len(KINDS)
