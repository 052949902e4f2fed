"""Around the whole application: what may come in, how long it may take, and what is logged."""

import asyncio
import json
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from lesions.serving.limits import Limits, RefusedError, too_large

Message = dict[str, Any]
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

log = logging.getLogger("lesions.serving")

# All that the page needs of Gradio. Its other routes (uploads, files, proxies, code) stay shut.
READ = {
    "/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt",
    "/docs", "/openapi.json", "/api/model", "/api/health",
    "/gradio_api/info", "/gradio_api/queue/data", "/gradio_api/startup-events",
}  # fmt: skip
READ_BELOW = ("/assets/", "/static/", "/svelte/", "/gradio_api/heartbeat/")
WRITE = {"/api/predict", "/gradio_api/queue/join", "/gradio_api/reset", "/gradio_api/cancel"}
# An example's or a photograph's data URL is a third longer than the file.
AS_TEXT = 4 / 3

HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    # Gradio compiles its templates in the browser; nothing is loaded from elsewhere.
    "content-security-policy": "default-src 'self'; img-src 'self' data: blob:;"
    " style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline' 'unsafe-eval';"
    " font-src 'self' data:; frame-ancestors 'self'; form-action 'self'",
}


class Guard:
    """An ASGI application around another: host, route, size and time are checked before it runs.

    `hosts` are the names by which the server may be called, None for any: a page elsewhere that
    has its own name point to 127.0.0.1 is turned away.
    """

    def __init__(self, app: Any, limits: Limits, hosts: Iterable[str] | None = None):
        self.app = app
        self.limits = limits
        self.hosts = None if hosts is None else set(hosts)
        self.reading = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        begun, name = time.monotonic(), uuid.uuid4().hex[:12]
        told = {"status": 0}
        scope.setdefault("state", {})["request_id"] = name

        async def reply(message: Message) -> None:
            if message["type"] == "http.response.start":
                told["status"] = message["status"]
                extra = HEADERS | {"x-request-id": name}
                message["headers"] = [*message.get("headers", []), *_encoded(extra)]
            await send(message)

        try:
            self._check(scope)
            if scope["method"] == "POST":
                receive = replayed(await self._body(scope, receive), receive)
            await self.app(scope, receive, reply)
        except RefusedError as error:
            await _refuse(reply, error, name)
        except Exception as error:  # the application has told it as 500, and raises it once more
            log.error("%s %s", name, type(error).__name__, exc_info=True)
            if not told["status"]:
                await _refuse(reply, RefusedError(500, "internal error"), name)
        finally:
            route = scope["path"] if _open(scope["method"], scope["path"]) else "(closed route)"
            spent = 1000 * (time.monotonic() - begun)
            log.info("%s %s %s %d %.0f ms", name, scope["method"], route, told["status"], spent)

    def _check(self, scope: Scope) -> None:
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        if self.hosts is not None and host.rsplit(":", 1)[0] not in self.hosts:
            raise RefusedError(421, "called by another name: open it by the address it printed")
        if not _open(scope["method"], scope["path"]):
            known = scope["path"] in READ | WRITE
            raise RefusedError(405 if known else 404, "no such route: see /docs")

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body; RefusedError if it is too large, too slow, or there are too many."""
        if self.reading >= self.limits.readers:
            raise RefusedError(429, "too many uploads at once: try again in a second")
        self.reading += 1
        most = self.limits.max_bytes + 10_000
        if scope["path"] != "/api/predict":
            most = int(most * AS_TEXT)
        try:
            return await asyncio.wait_for(
                _read(receive, most, self.limits), self.limits.body_seconds
            )
        except TimeoutError:
            raise RefusedError(408, "the upload took too long") from None
        finally:
            self.reading -= 1


async def _read(receive: Receive, most: int, limits: Limits) -> bytes:
    """The body. One that is too large is read on for a while and dropped.

    A client that is still sending would else lose the connection instead of hearing why.
    """
    parts: list[bytes] = []
    total = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RefusedError(400, "the connection was closed during the upload")
        part = message.get("body", b"")
        total += len(part)
        if total <= most:
            parts.append(part)
        else:
            parts.clear()
        if not message.get("more_body", False) or total > 4 * most:
            break
    if total > most:
        raise too_large(limits)
    return b"".join(parts)


def replayed(body: bytes, receive: Receive) -> Receive:
    """A receive that gives `body` at once, and then what the connection gives."""
    given = False

    async def again() -> Any:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _open(method: str, path: str) -> bool:
    if method in ("GET", "HEAD"):
        return path in READ or path.startswith(READ_BELOW)
    return method == "POST" and path in WRITE


async def _refuse(send: Send, error: RefusedError, name: str) -> None:
    body = json.dumps({"detail": error.reason, "request_id": name}).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body))}
    if error.status in (429, 503):
        headers["retry-after"] = "1"
    if error.status in (405,):
        headers["allow"] = "GET, HEAD, POST"
    if error.status in (408, 413):
        headers["connection"] = "close"  # the rest of the upload is not read
    start = {"type": "http.response.start", "status": error.status, "headers": _encoded(headers)}
    await send(start)
    await send({"type": "http.response.body", "body": body})


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(key.encode(), value.encode()) for key, value in headers.items()]
