"""The server over real HTTP on the loopback: answers, refusals, load, nothing kept."""

import asyncio
import gc
import logging
import re
import resource
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from conftest import REAL

pytest.importorskip("gradio", "6.16", reason="the serve extra is not installed")
httpx = pytest.importorskip("httpx")

from serving import huge_png, served  # noqa: E402

from lesions.data.patients import Patient  # noqa: E402
from lesions.errors import InputError  # noqa: E402
from lesions.inference.predictor import Predictor  # noqa: E402
from lesions.serving.server import listen  # noqa: E402
from lesions.serving.service import Limits, RefusedError, Service, example  # noqa: E402

LIMITS = Limits(max_bytes=400_000, max_pixels=1_000_000, header_seconds=1, body_seconds=2)
JPEG = example(1)


@pytest.fixture(scope="module")
def outside() -> Iterator[list[str]]:
    """Addresses beyond this machine that anything in this process tried to reach."""
    called: list[str] = []
    connect = socket.socket.connect

    def watched(self: socket.socket, address) -> None:
        own = address[0] == "::1" or address[0].startswith("127.0.0.")
        if self.family != socket.AF_UNIX and not own:
            called.append(str(address))
            raise OSError("no network in tests")
        return connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", watched)
        yield called


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder for temporary files: whatever the server writes would be here."""
    folder = tmp_path_factory.mktemp("disk")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        # One without a name would not be seen.
        kept = partial(tempfile.NamedTemporaryFile, delete=False)
        patch.setattr(tempfile, "TemporaryFile", kept)
        yield folder


@pytest.fixture(scope="module")
def url(calibrated: Path, outside: list[str], disk: Path) -> Iterator[str]:
    with served(Predictor.load("calibrated"), LIMITS) as address:
        yield address


def post(url: str, content: bytes, **fields: object):
    return httpx.post(f"{url}/api/predict", content=content, params=fields, timeout=60)


def test_raw_bytes_and_a_form_get_the_same_answer(url):
    told = Predictor.load("calibrated").predict(JPEG, Patient(55, "female", "back"))
    raw = post(url, JPEG, age=55, sex="female", site="back")
    form = httpx.post(
        f"{url}/api/predict", files={"photo": ("../../etc/passwd", JPEG)}, timeout=60,
        data={"age": "55", "sex": "female", "site": "back", "explain": "true"},
    )  # fmt: skip
    assert (raw.status_code, form.status_code) == (200, 200)
    for answer in (raw.json(), form.json()):
        assert answer["probs"] == pytest.approx(told.probs, abs=1e-6)
        assert answer["calibrated"] and "not a medical device" in answer["notice"]
    assert raw.json()["cam"] is None
    assert form.json()["cam"].startswith("data:image/png;base64,iVBOR")
    assert raw.headers["x-request-id"] == raw.json()["request_id"]


def test_health_card_and_manual(url):
    assert httpx.get(f"{url}/api/health").json() == {"status": "ok", "busy": 0, "queue": 32}
    card = httpx.get(f"{url}/api/info").json()
    assert card == httpx.get(f"{url}/api/model").json()
    assert card["members"][0]["scores"][1]["auc"] <= 1 and card["card"] is None
    assert card["task"] == "melanoma" and card["members"][0]["folds"] == [0, 1, 2]
    assert card["threshold"]["rule"].startswith("recall") and card["missing"] == []
    manual = httpx.get(f"{url}/docs").text
    assert "POST /api/predict" in manual and "src=" not in manual
    assert httpx.get(f"{url}/card").status_code == 404


def test_a_released_model_shows_its_card(calibrated, tmp_path):
    folder = Path(shutil.copytree(calibrated, tmp_path / "released"))
    (folder / "README.md").write_text("# <released>")
    with served(Predictor.load(folder)) as address:
        shown = httpx.get(address + httpx.get(f"{address}/api/info").json()["card"])
    assert shown.text == "# <released>" and shown.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    ("content", "fields", "status", "reason"),
    [
        (b"", {}, 422, "empty"),
        (b"<?php no picture", {}, 415, "no JPEG, PNG or WebP"),
        (b"GIF89a" + bytes(100), {}, 415, "no JPEG, PNG or WebP"),
        (JPEG[: len(JPEG) // 2], {}, 422, "broken: .*truncated"),
        (JPEG[:20], {}, 422, "broken: its header"),
        (huge_png(), {}, 413, "50000 x 50000 = .* pixels, more than 1,000,000"),
        (JPEG + bytes(500_000), {}, 413, "too large: at most 0.4 MB"),
        (JPEG, {"age": "-1"}, 422, "age"),
        (JPEG, {"age": "inf"}, 422, "age"),
        (JPEG, {"site": "moon"}, 422, "site"),
        (JPEG, {"path": "/etc/passwd"}, 422, "path"),
    ],
)
def test_a_bad_request_is_told_why(url, content, fields, status, reason):
    answer = post(url, content, **fields)
    assert answer.status_code == status
    assert re.search(reason, answer.text), answer.text


def test_bad_forms_are_told_why(url):
    def form(**given):
        return httpx.post(f"{url}/api/predict", timeout=60, **given)

    multipart = {"content-type": "multipart/form-data; boundary=x"}
    assert form(files={"photo": ("a", JPEG)}, data={"age": "old"}).status_code == 422
    assert form(files={"photo": ("a", JPEG)}, data={"path": "/etc"}).status_code == 422
    assert form(files=[("photo", ("a", JPEG))] * 2).status_code == 400
    assert form(files={"age": (None, "5")}).status_code == 422
    assert form(content=b"no form", headers=multipart).status_code in (400, 422)
    assert form(content=b"", headers={"content-type": "multipart/form-data"}).status_code == 400


def test_closed_routes_are_turned_away(url):
    files = "file=/etc/passwd", "proxy=http://x", "upload_progress", "info/", "call/answer"
    for path in (*files, "queue/data", "heartbeat/x", "reset/stream/x"):
        assert httpx.get(f"{url}/gradio_api/{path}").status_code == 404
    for path in ("upload", "queue/join", "call/answer", "process_recording", "run/predict"):
        assert httpx.post(f"{url}/gradio_api/{path}", content=b"{}").status_code == 404
    assert httpx.get(f"{url}/api/predict").status_code == 405
    assert httpx.delete(f"{url}/api/model").status_code == 405


def test_the_log_has_ids_and_nothing_of_the_request(url, caplog):
    with caplog.at_level(logging.INFO, "lesions.serving"):
        name = post(url, JPEG, age=54.321, sex="male").headers["x-request-id"]
        httpx.get(f"{url}/secret%0Aforged line")
        time.sleep(0.1)
    assert f"{name} POST /api/predict 200" in caplog.text
    assert "54.321" not in caplog.text and "secret" not in caplog.text


def test_nothing_is_written_or_remembered_and_nobody_is_called(url, outside, disk):
    mark = b"seen by nobody else"[::-1]
    large = {"photo": ("kept.jpg", JPEG + bytes(350_000) + mark[::-1])}
    assert httpx.post(f"{url}/api/predict", files=large, timeout=60).status_code == 200
    del large
    assert post(url, JPEG, explain=True).status_code == 200
    assert [path for path in disk.rglob("*") if path.is_file()] == []
    assert outside == []
    gc.collect()
    held = [each for whole in gc.get_objects() for each in gc.get_referents(whole)]
    kept = [each for each in held if type(each) in (bytes, bytearray) and len(each) > 300_000]
    assert not any(mark[::-1] in each for each in kept)


def test_twenty_photographs_of_six_megabytes_leave_no_memory_behind(calibrated):
    photo = JPEG + bytes(6_000_000)
    with served(Predictor.load("calibrated", [0])) as address:
        for number in range(21):
            assert post(address, photo, age=number).status_code == 200
            if number == 0:
                before = memory()
        assert memory() - before < 40e6  # of the 120e6 sent


def memory() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def test_fifty_posts_at_once_are_answered_or_sent_away(url):
    begun = time.monotonic()
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: post(url, JPEG), range(50)))
    codes = [answer.status_code for answer in answers]
    assert set(codes) <= {200, 429} and codes.count(200) >= LIMITS.queue / 2
    assert all(a.headers["retry-after"] == "1" for a in answers if a.status_code == 429)
    assert max(answer.elapsed.total_seconds() for answer in answers) < LIMITS.answer_seconds
    assert time.monotonic() - begun < 60
    assert httpx.get(f"{url}/api/health").json()["busy"] == 0


def test_slow_clients_are_cut_off_and_keep_nobody_out(url):
    host, port = url.removeprefix("http://").split(":")
    slow = [socket.create_connection((host, int(port)), 10) for _ in range(30)]
    for number, line in enumerate(slow):
        line.sendall(b"POST /api/predict HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        if number % 2:
            line.sendall(b"Content-Length: 1000\r\n\r\n\xff\xd8")
    assert post(url, JPEG).status_code == 200
    begun = time.monotonic()
    for number, line in enumerate(slow):
        line.settimeout(20)
        told = line.recv(4096)
        assert (b" 408 " in told) if number % 2 else (told == b"")
        line.close()
    assert time.monotonic() - begun < 20


def test_one_client_cannot_shut_out_the_others(url):
    host, port = url.removeprefix("http://").split(":")

    def connect(address: str) -> socket.socket:
        return socket.create_connection((host, int(port)), 10, (address, 0))

    def status(line: socket.socket) -> bytes:
        line.settimeout(20)
        return line.recv(4096)[9:12]

    def upload(address: str, content: bytes = JPEG, sent: int = 10**9) -> socket.socket:
        line, head = connect(address), "POST /api/predict HTTP/1.1\r\nHost: localhost\r\n"
        line.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content[:sent])
        return line

    slow = [upload("127.0.0.2", sent=10) for _ in range(LIMITS.queue // 2)]
    time.sleep(0.2)
    assert status(upload("127.0.0.2")) == b"429"
    assert status(upload("127.0.0.3")) == b"200"
    idle = [connect("127.0.0.2") for _ in range(LIMITS.connections)]
    assert b"429" in {status(line) for line in idle}
    assert status(upload("127.0.0.3")) == b"200"
    assert {status(line) for line in slow} == {b"408"}
    for line in slow + idle:
        line.close()


def test_a_late_answer_is_given_up():
    class Slow:
        def predict_many(self, *_: object) -> None:
            time.sleep(0.3)

    service = Service(Slow(), Limits(answer_seconds=0.1))  # type: ignore[arg-type]
    with pytest.raises(RefusedError) as refused:
        asyncio.run(service.answer(JPEG, Patient(), False))
    assert refused.value.status == 503


@pytest.mark.parametrize(
    ("host", "bound", "names"),
    [
        ("LOCALHOST", "127.0.0.1|::1", ["localhost"]),
        ("127.0.0.2", "127.0.0.2", ["127.0.0.2", "[::1]:7860"]),
        ("::1", "::1", ["[::1]", "LOCALHOST"]),
    ],
)
def test_a_host_is_bound_and_answers_as_printed(calibrated, host, bound, names):
    with served(Predictor.load("calibrated"), host=host) as address:
        assert urlsplit(address).hostname in bound.split("|")
        assert httpx.get(f"{address}/api/health").status_code == 200
        for name in names:
            told = httpx.get(f"{address}/api/health", headers={"host": name})
            assert told.status_code == 200
        rebound = httpx.get(f"{address}/api/health", headers={"host": "evil.example:7860"})
        assert rebound.status_code == 421


def test_a_host_that_means_nothing_is_refused():
    for host, port in (("", 0), ("no.such.host.invalid", 0), ("127.0.0.1", 99_999)):
        with pytest.raises(InputError, match="--host"):
            listen(host, port)
    with listen("127.0.0.1", 0) as taken, pytest.raises(InputError, match="in use.*give others"):
        listen("127.0.0.1", taken.getsockname()[1])


@pytest.mark.filterwarnings("ignore")
def test_the_openapi_document_holds_whatever_is_sent(url):
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, Phase, given, settings
    from schemathesis import checks

    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    tried: list[int] = []
    for operation in schema.get_all_operations():
        bodies = operation.ok()

        @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck),
                  phases=[Phase.explicit, Phase.generate], database=None)  # fmt: skip
        @given(case=bodies.as_strategy())
        def holds(case) -> None:
            answer = case.call(timeout=60)
            case.validate_response(
                answer,
                checks=[
                    checks.not_a_server_error, checks.status_code_conformance,
                    checks.content_type_conformance, checks.response_schema_conformance,
                ],
            )  # fmt: skip
            tried.append(answer.status_code)

        holds()
    assert 200 in tried and set(tried) <= {200, 400, 413, 415, 422}


@pytest.mark.real
def test_every_bad_input_is_answered_or_refused_with_a_reason(url):
    found = sorted(path for path in (REAL / "bad_inputs").iterdir() if path.is_file())
    codes = {}
    for path in found:
        answer = post(url, path.read_bytes())
        codes[path.name] = answer.status_code
        assert answer.status_code == 200 or answer.json()["detail"]
    assert codes["truncated_jpeg.jpg"] == 422 and codes["PILLOW_LICENSE"] == 415
    assert set(codes.values()) <= {200, 413, 415, 422}
