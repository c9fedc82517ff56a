"""The real server as a subprocess: it comes up, survives what can be survived, and leaves nothing behind."""

import inspect
import os
import signal
import socket
import threading
import time

import httpx
import litserve
import pytest
from litserve import LitServer
from litserve.server import BaseRequestHandler
from litserve.transport.factory import TransportConfig
from litserve.utils import LitAPIStatus, ResponseBufferItem
from serving import Service, free_port

from smartgrid_ai.features import FEATURE_NAMES
from smartgrid_ai.serve.schemas import EXAMPLE_FEATURES, EXAMPLE_READINGS

BODY = {"features": EXAMPLE_FEATURES}


@pytest.fixture
def start(served, tmp_path):
    started = []

    def starter(**environment: str) -> Service:
        variables = {"MODEL_DIR": str(served.root)} | environment
        folder = variables.pop("MODEL_DIR")
        started.append(Service(folder, tmp_path / f"log-{len(started)}", **variables))
        return started[-1]

    yield starter
    for service in started:
        service.clean_up()


class Later(threading.Thread):
    "A request in flight."

    def __init__(self, service: Service):
        super().__init__(daemon=True)
        self.service, self.answer = service, None
        self.start()

    def run(self) -> None:
        url = f"http://127.0.0.1:{self.service.port}/predict/single"
        self.answer = httpx.post(url, json=BODY, timeout=30)

    def status(self) -> int:
        self.join(30)
        return self.answer.status_code


def in_flight(service: Service, count: int) -> list[Later]:
    requests = [Later(service) for _ in range(count)]
    time.sleep(0.5)
    return requests


def test_a_day_in_the_life(start):
    service = start(SMARTGRID_DEADLINE="3", SMARTGRID_MAX_IN_FLIGHT="3").wait_ready()
    client = service.client

    # it says where it is, with a command that works
    while "curl" not in (log := service.log.read_text()):
        time.sleep(0.1)
    assert f"http://127.0.0.1:{service.port}" in log
    curl = next(line for line in log.splitlines() if line.startswith("curl"))
    assert '"prediction"' in os.popen(curl).read()

    # the endpoints
    single = client.post("/predict/single", json=BODY)
    assert single.status_code == 200 and single.headers["x-request-id"]
    batch = client.post("/predict/batch", json={"samples": [BODY] * 1000, "model": "baseline"})
    assert len(batch.json()["predictions"]) == 1000 and batch.json()["metadata"]["failed"] == 0
    assert "content-encoding" not in batch.headers
    assert client.post("/anomaly-detect", json=BODY).json()["label"] in ("NORMAL", "ANOMALY")
    asked = {"readings": EXAMPLE_READINGS, "horizon": 24, "unit": "kWh"}
    tomorrow = client.post("/forecast", json=asked).json()
    assert (tomorrow["model_used"], len(tomorrow["forecast"])) == ("moe", 24)
    assert [m["name"] for m in client.get("/models").json()["models"]] == [
        "anomaly",
        "baseline",
        "moe",
        "moe_24",
    ]
    assert client.get("/models/moe").json()["features"] == list(FEATURE_NAMES)
    assert client.get("/health").json()["status"] == "ok"
    assert client.get("/docs").status_code == 200
    assert client.post("/predict/single", json={}).json()["code"] == "SG-VAL-002"
    assert client.post("/lane/engine", json={}).status_code == 404
    assert not os.path.exists("client.py")

    # more than it may hold: the rest is told to come back, the held are answered
    worker = service.worker()
    worker.suspend()
    held = in_flight(service, 3)
    refused = client.post("/predict/single", json=BODY)
    assert refused.status_code == 503 and refused.headers["retry-after"] == "1"
    assert client.get("/livez").status_code == 200
    worker.resume()
    assert [request.status() for request in held] == [200] * 3

    # a worker is killed while it is busy: nobody hangs, and it comes back
    worker.suspend()
    unlucky = in_flight(service, 1)[0]
    worker.kill()
    begun = time.monotonic()
    assert unlucky.status() in (200, 504)
    assert time.monotonic() - begun < 10
    end = time.monotonic() + 30
    while client.post("/predict/single", json=BODY).status_code != 200:
        assert time.monotonic() < end, service.log.read_text()
    service.look()
    assert service.worker().pid != worker.pid

    # told to stop while a request is in flight: it is answered first
    worker = service.worker()
    worker.suspend()
    last = in_flight(service, 1)[0]
    service.look()
    service.process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    worker.resume()
    assert last.status() == 200
    assert service.end() == 0
    assert "Traceback" not in service.log.read_text()


@pytest.mark.parametrize("part", ["API", "manager"])
def test_without_a_part_the_service_ends_with_an_error(start, part):
    service = start().wait_ready()
    service.helper(part).kill()
    assert service.process.wait(20) == 1
    assert service.left() == []
    assert f"the {part} process died" in service.log.read_text()


def test_nothing_outlives_a_killed_main_process(start):
    service = start().wait_ready()
    assert len(service.seen) >= 4, "main, manager, API process and worker"
    service.process.kill()
    service.process.wait()
    assert service.left() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])  # a terminal, systemd
def test_a_signal_that_reaches_every_process_ends_cleanly(start, number):
    service = start().wait_ready()
    os.killpg(service.process.pid, number)
    assert service.process.wait(20) == 0
    assert service.left() == []
    assert "Traceback" not in service.log.read_text()


def test_stopping_while_it_starts(start):
    service = start()
    while len(service.look()) == 1:  # nobody but the first process, which is still importing
        assert service.process.poll() is None
        time.sleep(0.1)
    assert service.end() == 0


def refused(service: Service) -> str:
    assert service.process.wait(30) == 2
    lines = service.log.read_text().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_mistakes_are_one_line(start, tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", free_port()))
        other.listen()
        port = str(other.getsockname()[1])
        taken = start(API_PORT=port)
        empty = start(MODEL_DIR=str(tmp_path / "empty"))
        exposed = start(API_HOST="0.0.0.0")
        misspelt = start(SMARTGRID_DEADLNE="1")
        keyed = start(LIT_SERVER_API_KEY="secret")
        assert port in refused(taken)
    assert "smartgrid train" in refused(empty)
    assert "--insecure" in refused(exposed)
    assert "SMARTGRID_DEADLNE" in refused(misspelt)
    assert "LIT_SERVER_API_KEY" in refused(keyed)


def test_a_damaged_model_is_not_served(start, served, tmp_path):
    import shutil

    copy = shutil.copytree(served.root, tmp_path / "copy")
    weights = copy / "moe" / "1.0.0" / "arrays.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    assert "arrays.safetensors" in refused(start(MODEL_DIR=str(copy)))


def test_what_we_rely_on_in_litserve():
    """LitServe is pinned because the service leans on names that it does not promise to keep.

    After an upgrade: read its server.py again, compare with nbs/75_serve.app.ipynb, then change this test.
    """
    assert litserve.__version__ == "0.2.19"
    source = inspect.getsource(BaseRequestHandler)
    assert "request_queue.put((response_queue_id, uid, time.monotonic(), payload))" in source
    assert next(iter(inspect.signature(ResponseBufferItem).parameters)) == "event"
    watch = inspect.getsource(LitServer._start_worker_monitoring)
    assert 'name="litserve-monitoring"' in watch and "self.monitor_internal" in watch
    assert LitAPIStatus.OK == "OK"
    assert TransportConfig(transport_config="mp").transport_type == "mp"
    assert "self._shutdown_event.wait()" in inspect.getsource(LitServer.run)
    for name in ("_get_request_queue", "_start_server", "_perform_graceful_shutdown", "lifespan"):
        assert callable(getattr(LitServer, name))
