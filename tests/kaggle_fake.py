"""A local stand-in for Kaggle's server, for the genuine `kaggle` client, with faults to order.

The client has no option for its address: with KAGGLE_API_ENVIRONMENT=LOCALHOST it calls
http://localhost, and HTTP_PROXY leads that, and every other http address, to this server. An
https address would leave the machine, so HTTPS_PROXY leads nowhere.

    def test_x(kaggle):                      # the fixture; sets credentials and addresses
        kaggle.files["train.csv"] = b"..."
        kaggle.fail("ListDataFiles", 429, headers={"Retry-After": "3"})   # the next call of it
        kaggle.fail("/blob", "cut", times=2, after=1000)                  # path of a plain address
        ...
        kaggle.asked("CreateSubmission")     # the bodies it was called with
        subprocess.run([...], env=kaggle.environment)
"""

import json
import re
import socket
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

TOKEN = "KGAT_secret0token0of0the0tests"
HTML = b"<!doctype html><html><body>Kaggle is down for maintenance</body></html>"
STORE = "http://storage.invalid"  # what signed addresses look like; the proxy leads here


@dataclass
class Fault:
    """What to answer instead: a status, "html", "lost" (nothing), "cut" (after some bytes), or
    "truncated"."""

    kind: int | str
    headers: dict[str, str] = field(default_factory=dict)
    message: str = "the fake says no"
    after: int = 0


class FakeKaggle:
    """The server's state, to be set and read by a test; every answer is made from it."""

    def __init__(self) -> None:
        self.user = "tester"
        self.files: dict[str, bytes] = {}  # the competition's
        self.datasets: dict[str, dict[str, Any]] = {}  # owner/name -> zip, versions, notes
        self.lag = 0  # downloads for which a data set still has its version before
        self.stored: dict[str, bytes] = {}  # addresses: kernel outputs, other archives
        self.kernels: set[str] = set()  # owner/name of those that were run
        self.kernel_statuses: list[tuple[str, str]] = [("COMPLETE", "")]  # the last one stays
        self.outputs: dict[str, bytes] = {}
        self.log = "ran"
        self.push_answer: dict[str, Any] = {}
        self.saved = 0  # versions of kernels, also those that were not run
        self.pushed: list[dict[str, Any]] = []  # those that were run
        self.submissions: list[dict[str, Any]] = []
        self.left = 5
        self.outcomes: list[dict[str, Any]] = [
            {"status": "COMPLETE", "publicScore": "0.9321", "privateScore": "0.9210"}
        ]
        self.gpu_hours = (4.0, 30.0)  # used, allowed
        self.etag = '"1"'
        self.uploads: dict[str, bytes] = {}
        self.calls: list[tuple[str, Any]] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []  # method, path, headers
        self.faults: dict[str, list[Fault]] = defaultdict(list)
        self.waits: list[float] = []  # seconds that were to be slept
        handler = type("Bound", (Handler,), {"fake": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.handle_error = lambda *_: None  # a client that hangs up is no news
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        proxy, nowhere = f"http://127.0.0.1:{self.port}", "http://127.0.0.1:9"
        self.home = tempfile.TemporaryDirectory(prefix="home of kaggle ")
        self.environment = {
            "KAGGLE_API_ENVIRONMENT": "LOCALHOST", "KAGGLE_API_TOKEN": TOKEN,
            "KAGGLE_CONFIG_DIR": self.home.name, "HOME": self.home.name,
            "HTTP_PROXY": proxy, "http_proxy": proxy, "HTTPS_PROXY": nowhere,
            "https_proxy": nowhere, "NO_PROXY": "", "no_proxy": "",
        }  # fmt: skip

    def fail(self, name: str, kind: int | str, times: int = 1, **options: Any) -> None:
        """The next `times` calls of the method, or of paths that begin so, end in this fault."""
        self.faults[name] += [Fault(kind, **options)] * times

    def asked(self, method: str) -> list[Any]:
        return [body for name, body in self.calls if name == method]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self.home.cleanup()

    def fault(self, name: str) -> Fault | None:
        for key, faults in self.faults.items():
            if faults and (name == key or (key.startswith("/") and name.startswith(key))):
                return faults.pop(0)
        return None

    # The methods, by the name that stands in the address; each takes and returns JSON.

    def IntrospectToken(self, body: Any) -> Any:
        return {"active": body["token"] == TOKEN, "username": self.user}

    def GetDatasetStatus(self, body: Any) -> Any:
        name = f"{body['ownerSlug']}/{body['datasetSlug']}"
        return {"status": "READY"} if name in self.datasets else 404

    def CreateDataset(self, body: Any) -> Any:
        name = f"{body['ownerSlug']}/{body['slug']}"
        if name in self.datasets:
            return {"error": "The requested title is already in use", "status": "error"}
        self.datasets[name] = {"versions": [], "notes": [], "lag": 0}
        return self._add_version(name, body["files"], "")

    def CreateDatasetVersion(self, body: Any) -> Any:
        name = f"{body['ownerSlug']}/{body['datasetSlug']}"
        if name not in self.datasets:
            return 404
        return self._add_version(name, body["body"]["files"], body["body"]["versionNotes"])

    def _add_version(self, name: str, files: Any, notes: str) -> Any:
        held = self.datasets[name]
        tokens = [item["token"] for item in files]
        held["versions"].append({token.split("-", 2)[2]: self.uploads[token] for token in tokens})
        held["notes"].append(notes)
        held["lag"] = self.lag
        return {"ref": name, "url": f"https://www.kaggle.com/datasets/{name}", "status": "ok"}

    def StartBlobUpload(self, body: Any) -> Any:
        return self._upload(body["name"])

    def StartSubmissionUpload(self, body: Any) -> Any:
        return self._upload(body["fileName"])

    def _upload(self, name: str) -> Any:
        token = f"upload-{len(self.uploads)}-{name}"
        self.uploads[token] = b""
        return {"token": token, "createUrl": f"{STORE}/upload/{token}?X-Goog-Signature=sig0nature"}

    def CreateSubmission(self, body: Any) -> Any:
        ref = 1000 + len(self.submissions)
        token = body["blobFileTokens"]
        self.submissions.insert(0, {
            "ref": ref, "fileName": token.split("-", 2)[2], "date": _now(), "status": "PENDING",
            "description": body.get("submissionDescription", ""), "publicScore": "",
        })  # fmt: skip
        self.left -= 1
        return {"message": "Successfully submitted", "ref": ref}

    def ListSubmissions(self, body: Any) -> Any:
        return {"submissions": [dict(item) for item in self.submissions]}

    def GetSubmissionLimits(self, body: Any) -> Any:
        return {"numToday": 5 - self.left, "numAllowedNow": self.left}

    def GetSubmission(self, body: Any) -> Any:
        """Pending when first asked for, scored later."""
        item = next(item for item in self.submissions if item["ref"] == body["ref"])
        answer = dict(item)
        if item["status"] == "PENDING":
            item |= self.outcomes[0] if len(self.outcomes) == 1 else self.outcomes.pop(0)
        return answer

    def SaveKernel(self, body: Any) -> Any:
        answer = {"ref": body["slug"], "url": f"https://www.kaggle.com/code/{body['slug']}"}
        if body.get("kernelExecutionType") == "QUICK_SAVE":
            self.saved += 1
            return answer | {"versionNumber": self.saved} | self.push_answer
        if "error" not in self.push_answer:
            self.saved += 1
            self.pushed.append(body)
            self.kernels.add(body["slug"])
        return answer | {"versionNumber": self.saved} | self.push_answer

    def GetKernelSessionStatus(self, body: Any) -> Any:
        if f"{body['userName']}/{body['kernelSlug']}" not in self.kernels:
            return 404
        known = self.kernel_statuses
        status, message = known.pop(0) if len(known) > 1 else known[0]
        return {"status": status, "failureMessage": message}

    def ListKernelSessionOutput(self, body: Any) -> Any:
        for name, content in self.outputs.items():
            self.stored[f"/output/{name}"] = content
        files = [{"fileName": n, "url": f"{STORE}/output/{n}"} for n in self.outputs]
        first = int(body.get("pageToken") or 0)
        more = {"nextPageToken": str(first + 2)} if len(files) > first + 2 else {}
        return {"files": files[first : first + 2], "log": self.log} | more

    def GetAcceleratorQuotaStatistics(self, body: Any) -> Any:
        used, allowed = (f"{hours * 3600:.0f}s" for hours in self.gpu_hours)
        quota = {"timeUsed": used, "totalTimeAllowed": allowed}
        return {"gpuQuota": quota, "quotaRefreshTime": "2026-11-28T00:00:00Z"}

    # Downloads are redirects to signed addresses.

    def DownloadDataFile(self, body: Any) -> Any:
        name = body["fileName"]
        # A larger file comes as a zip of that name.
        names = [known for known in (name, f"{name}.zip") if known in self.files]
        return f"/file/{names[0]}" if names else 404

    def DownloadDataset(self, body: Any) -> Any:
        name = f"{body['ownerSlug']}/{body['datasetSlug']}"
        if "fileName" not in body:
            return f"/dataset/{name}" if name in self.datasets else 404
        held = self.datasets.get(name, {"versions": [{}], "lag": 0})
        files = held["versions"][-1 - (held["lag"] > 0)]
        held["lag"] = max(0, held["lag"] - 1)
        if body["fileName"] not in files:
            return 404
        self.stored[f"/part/{body['fileName']}"] = files[body["fileName"]]
        return f"/part/{body['fileName']}"

    def content(self, path: str) -> bytes | None:
        if path.startswith("/file/"):
            return self.files.get(path.removeprefix("/file/"))
        if path.startswith("/api/v1/kernels/logs/stream/"):
            return self.log.encode()
        if path.startswith("/dataset/"):
            return self.datasets.get(path.removeprefix("/dataset/"), {}).get("zip")
        return self.stored.get(path)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeKaggle

    def do_POST(self) -> None:
        body = json.loads(self._body() or b"{}")
        service, _, method = urlsplit(self.path).path.rpartition("/")
        self.fake.requests.append(("POST", self.path, dict(self.headers)))
        if not service.startswith("/api/v1/") or not hasattr(self.fake, method):
            return self._json(404, {"code": 404, "message": f"no method {self.path}"})
        authorized = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if not authorized and method != "IntrospectToken":
            return self._json(401, {"code": 401, "message": "Unauthenticated"})
        self.fake.calls.append((method, body))
        if fault := self.fake.fault(method):
            return self._fail(fault, b'{"files": []}')
        answer = getattr(self.fake, method)(body)
        if isinstance(answer, int):
            return self._json(answer, {"code": answer, "message": "not found"})
        if isinstance(answer, str):
            headers = {"Location": f"{STORE}{answer}?X-Goog-Signature=sig0nature"}
            return self._send(302, b"", headers)
        return self._json(200, answer)

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.fake.requests.append(("GET", path, dict(self.headers)))
        content = self.fake.content(path)
        if fault := self.fake.fault(path):
            return self._fail(fault, self._range(content or b"")[1])
        if content is None:
            return self._send(404, b"no such object")
        status, part, headers = *self._range(content), {}
        if status == 206:
            start = len(content) - len(part)
            headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        headers |= {"ETag": self.fake.etag, "Accept-Ranges": "bytes"}
        return self._send(status, part, headers)

    def do_PUT(self) -> None:
        content = self._body()
        path = unquote(urlsplit(self.path).path)
        self.fake.requests.append(("PUT", path, dict(self.headers)))
        if fault := self.fake.fault(path):
            return self._fail(fault, b"")
        self.fake.uploads[path.removeprefix("/upload/")] = content
        return self._send(200, b"")

    def _range(self, content: bytes) -> tuple[int, bytes]:
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if not wanted or self.headers.get("If-Range", self.fake.etag) != self.fake.etag:
            return 200, content
        start = int(wanted[1])
        return (206, content[start:]) if start < len(content) else (416, b"")

    def _fail(self, fault: Fault, content: bytes) -> None:
        if fault.kind == "html":
            return self._send(200, HTML, {"Content-Type": "text/html; charset=utf-8"})
        headers = {"ETag": self.fake.etag, "Accept-Ranges": "bytes"}
        if fault.kind == "truncated":
            return self._send(200, content[: fault.after], headers)
        if fault.kind == "cut":  # promises all of it, sends a part, and is gone
            headers["Content-Length"] = str(max(len(content), fault.after + 1))
            self._send(206 if "Range" in self.headers else 200, content[: fault.after], headers)
            self.wfile.flush()
        if fault.kind in ("cut", "lost"):
            self.close_connection = True
            return self.connection.shutdown(socket.SHUT_RDWR)
        assert isinstance(fault.kind, int)
        return self._json(fault.kind, {"code": fault.kind, "message": fault.message}, fault.headers)

    def _json(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        headers = {"Content-Type": "application/json"} | (headers or {})
        self._send(status, json.dumps(value).encode(), headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            return b"".join(iter(self._chunk, b""))
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _chunk(self) -> bytes:
        chunk = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return chunk

    def log_message(self, *arguments: Any) -> None:
        pass


def forget_client() -> None:
    """The next call imports and authenticates the client anew: it reads its surroundings once."""
    from lesions.kaggle.client import connect

    connect.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == "kaggle"]:
        del sys.modules[name]


@pytest.fixture
def kaggle(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKaggle]:
    """The fake, with credentials for it; nothing sleeps, `kaggle.waits` says how long it would."""
    fake = FakeKaggle()
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_KERNEL_RUN_TYPE", "VERBOSE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in fake.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("time.sleep", fake.waits.append)
    forget_client()
    yield fake
    forget_client()
    fake.close()
