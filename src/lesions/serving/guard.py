"""Around the whole application: what may come in, how long it may take, and what is logged."""

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.responses import JSONResponse

from lesions.serving.service import Limits, RefusedError, too_large

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

log = logging.getLogger("lesions.serving")

# All that the page needs of Gradio. Its other routes (uploads, files, proxies, code) stay closed.
READ = {
    "/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt",
    "/docs", "/openapi.json", "/api/model", "/api/health",
    "/gradio_api/info", "/gradio_api/startup-events",
}  # fmt: skip
READ_BELOW = ("/assets/", "/static/", "/svelte/", "/gradio_api/heartbeat/")
WRITE = {"/api/predict"}

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
    """An ASGI application around another: route, size and time are checked before it runs."""

    def __init__(self, app: Any, limits: Limits):
        self.app = app
        self.limits = limits
        self.reading = 0

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        begun, name, status = time.monotonic(), uuid.uuid4().hex[:12], 0
        scope.setdefault("state", {})["request_id"] = name

        async def reply(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                extra = HEADERS | {"x-request-id": name}
                pairs = [(key.encode(), value.encode()) for key, value in extra.items()]
                message["headers"] = [*message.get("headers", []), *pairs]
            await send(message)

        allowed = _allowed(scope["method"], scope["path"])
        try:
            if not allowed:
                known = scope["path"] in READ | WRITE
                raise RefusedError(405 if known else 404, "no such route: see /docs")
            if scope["method"] == "POST":
                receive = replayed(await self._body(receive), receive)
            await self.app(scope, receive, reply)
        except RefusedError as error:
            await _refusal(error, name)(scope, receive, reply)
        except Exception as error:
            log.error("%s %s", name, type(error).__name__, exc_info=True)
            if not status:
                await _refusal(RefusedError(500, "internal error"), name)(scope, receive, reply)
        finally:
            route = scope["path"] if allowed else "(closed route)"
            spent = 1000 * (time.monotonic() - begun)
            log.info("%s %s %s %d %.0f ms", name, scope["method"], route, status, spent)

    async def _body(self, receive: Receive) -> bytes:
        """The whole body; RefusedError if it is too large, too slow, or there are too many."""
        if self.reading >= self.limits.readers:
            raise RefusedError(429, "too many uploads at once: try again in a second")
        self.reading += 1
        try:
            return await asyncio.wait_for(_read(receive, self.limits), self.limits.body_seconds)
        except TimeoutError:
            raise RefusedError(408, "the upload took too long") from None
        finally:
            self.reading -= 1


async def _read(receive: Receive, limits: Limits) -> bytes:
    """The body. One that is too large is read on for a while and dropped.

    A client that is still sending would else lose the connection before it reads the reason.
    """
    parts: list[bytes] = []
    total, most, more = 0, limits.max_bytes + 10_000, True
    while more and total <= 4 * most:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RefusedError(400, "the connection was closed during the upload")
        part = message.get("body", b"")
        total += len(part)
        if total <= most:
            parts.append(part)
        else:
            parts.clear()
        more = message.get("more_body", False)
    if total > most:
        raise too_large(limits)
    return b"".join(parts)


def replayed(body: bytes, receive: Receive) -> Receive:
    """A receive that gives `body` at once, and then what the connection gives."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Any:
        return waiting.pop() if waiting else await receive()

    return again


def _allowed(method: str, path: str) -> bool:
    if method in ("GET", "HEAD"):
        return path in READ or path.startswith(READ_BELOW)
    return method == "POST" and path in WRITE


def _refusal(error: RefusedError, name: str) -> JSONResponse:
    headers = {
        405: {"allow": "GET, HEAD, POST"},
        408: {"connection": "close"},  # the rest of the upload is not read
        413: {"connection": "close"},
        429: {"retry-after": "1"},
    }.get(error.status)
    return JSONResponse({"detail": error.reason, "request_id": name}, error.status, headers)
