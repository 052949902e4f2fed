"""The whole server: the application under uvicorn, and around it a guard.

The guard decides what may come in and how long it may take, and logs each request.
"""

import asyncio
import logging
import socket
import time
import uuid
from dataclasses import replace
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from lesions.data.patients import Patient
from lesions.errors import InputError
from lesions.inference.predictor import Predictor
from lesions.serving.api import build_api
from lesions.serving.decoders import Decoders
from lesions.serving.service import Limits, Places, RefusedError, Service, example, refusal

log = logging.getLogger("lesions.serving")

API = {"/docs", "/openapi.json", "/card", "/api/info", "/api/model", "/api/health"}
# All that the page needs of Gradio. Its other routes (uploads, queue, streams, files) stay closed.
READ = API | {
    "/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt",
    "/gradio_api/info", "/gradio_api/startup-events",
}  # fmt: skip
READ_BELOW = ("/assets/", "/static/", "/svelte/")

HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    # Gradio compiles its templates in the browser; nothing is loaded from elsewhere.
    (b"content-security-policy", b"default-src 'self'; img-src 'self' data: blob:;"
     b" style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline' 'unsafe-eval';"
     b" font-src 'self' data:; frame-ancestors 'self'; form-action 'self'"),
]  # fmt: skip


def listen(host: str, port: int) -> socket.socket:
    """A socket at the address that `host` means; InputError if that is none, or taken."""
    if not host:
        raise InputError("--host is empty: 127.0.0.1 is this machine alone, 0.0.0.0 everybody")
    try:
        family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server((str(place[0]), port), family=family)
    except (OSError, OverflowError, UnicodeError) as error:
        raise InputError(f"--host {host} --port {port}: {error}: give others") from error


def address_of(place: socket.socket) -> str:
    """The address to open, which is the one that is bound."""
    host, port = place.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def build_server(
    predictor: Predictor, place: socket.socket, limits: Limits | None = None
) -> uvicorn.Server:
    """A server for `run([place])`, whose first visitor does not wait for a first prediction."""
    limits = limits or Limits()
    predictor = replace(predictor, decode=Decoders(limits.decode_seconds))
    photo, patient = example(0), Patient(50, "female", "torso")
    predictor.explain(photo, patient, predictor.predict(photo, patient))
    service = Service(predictor, limits)
    app = Guard(build_api(service), service, is_local(place.getsockname()[0]))
    config = uvicorn.Config(
        app, http=_bounded(limits), ws="none", lifespan="on",
        timeout_keep_alive=5, timeout_graceful_shutdown=5,
        limit_concurrency=limits.connections, h11_max_incomplete_event_size=16_384,
        access_log=False, server_header=False, proxy_headers=False, log_level="warning",
    )  # fmt: skip
    return uvicorn.Server(config)


def is_local(host: str) -> bool:
    """Whether an address or a name can mean this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """An ASGI application around the REST one: host, route, size and time are checked before it.

    A server that is bound to this machine alone (`local`) answers under no other name: a page
    elsewhere may let its own name point here. Gradio, which takes two seconds to import, is mounted
    when the page is first asked for.
    """

    def __init__(self, app: FastAPI, service: Service, local: bool):
        self.app = app
        self.service = service
        self.local = local
        self.mounting, self.mounted = asyncio.Lock(), False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        begun, name, status = time.monotonic(), uuid.uuid4().hex[:12], 0
        scope.setdefault("state", {})["request_id"] = name
        request = Request(scope, receive)

        async def reply(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [*HEADERS, (b"x-request-id", name.encode())]
                message["headers"] = [*message.get("headers", []), *own]
            await send(message)

        try:
            await self._answer(request, reply)
        except RefusedError as error:
            await refusal(request, error)(scope, receive, reply)
        except Exception as error:
            log.error("%s %s", name, type(error).__name__, exc_info=True)
            if not status:
                problem = RefusedError(500, "internal error")
                await refusal(request, problem)(scope, receive, reply)
        finally:
            route = scope["path"] if _methods(request) else "(closed route)"
            spent = 1000 * (time.monotonic() - begun)
            log.info("%s %s %s %d %.0f ms", name, request.method, route, status, spent)

    async def _answer(self, request: Request, send: Send) -> None:
        if self.local and not is_local(_host(request)):
            raise RefusedError(421, "open it by the address that the server has printed")
        methods = _methods(request)
        if request.method not in methods:
            raise RefusedError(405 if methods else 404, "no such route: see /docs")
        if request.method != "POST":
            if not self.mounted and request.scope["path"] not in API:
                async with self.mounting:
                    await asyncio.to_thread(self._mount)
            return await self.app(request.scope, request.receive, send)
        client = self.service.places.take(request.scope["client"])
        if client is None:
            raise RefusedError(429, "too many photographs at once: try again in a second")
        try:
            waiting = [{"type": "http.request", "body": await _body(request, self.service.limits)}]

            async def replayed() -> Any:
                return waiting.pop() if waiting else await request.receive()

            await self.app(request.scope, replayed, send)
        finally:
            self.service.places.release(client)

    def _mount(self) -> None:
        if not self.mounted:  # by the request that had the lock before
            from lesions.serving.page import mount_page

            mount_page(self.app, self.service)
            self.mounted = True


def _methods(request: Request) -> tuple[str, ...]:
    path = request.scope["path"]
    if path == "/api/predict":
        return ("POST",)
    return ("GET", "HEAD") if path in READ or path.startswith(READ_BELOW) else ()


def _host(request: Request) -> str:
    try:
        return urlsplit("//" + request.headers.get("host", "")).hostname or ""
    except ValueError:
        return ""


async def _body(request: Request, limits: Limits) -> bytes:
    """The whole body; RefusedError if it is too slow, or too large.

    One that is too large is read on for a while and dropped: a client that is still sending would
    else lose the connection before it reads the reason.
    """
    body, total, most = bytearray(), 0, limits.max_bytes + 10_000
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for part in request.stream():
                total += len(part)
                if total <= most:
                    body += part
                elif total > 4 * most:
                    break
    except ClientDisconnect:
        raise RefusedError(400, "the connection was closed during the upload") from None
    except TimeoutError:
        raise RefusedError(408, "the upload took too long") from None
    if total > most:
        raise RefusedError(413, f"the file is too large: at most {limits.max_bytes / 1e6:g} MB")
    return bytes(body)


def _bounded(limits: Limits) -> type[H11Protocol]:
    """uvicorn's protocol with bounds of a client's connections and of a request header's time.

    uvicorn itself waits for ever: idle connections would lock everybody else out.
    """
    places = Places(limits.connections)

    class BoundedProtocol(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.client_place = places.take(transport.get_extra_info("peername"))
            if self.client_place is None:
                transport.write(b"HTTP/1.1 429 Too Many Requests\r\nconnection: close\r\n\r\n")
                transport.close()
            self.timer = self.loop.call_later(limits.header_seconds, self._look, None)

        def _look(self, before: object) -> None:
            """Close a connection that has waited for a whole header from one look to the next."""
            waiting = self.cycle is None or self.cycle.response_complete
            if waiting and self.cycle is before:
                return self.transport.close()
            now = self.cycle if waiting else self
            self.timer = self.loop.call_later(limits.header_seconds, self._look, now)

        def connection_lost(self, exc: Exception | None) -> None:
            self.timer.cancel()
            places.release(self.client_place)
            super().connection_lost(exc)

    return BoundedProtocol
