"""The whole server: API, page and guard under uvicorn."""

import asyncio
import ipaddress
from typing import Any

import uvicorn
from starlette.middleware.trustedhost import TrustedHostMiddleware
from uvicorn.protocols.http.h11_impl import H11Protocol

from lesions.inference.predictor import Predictor
from lesions.serving.api import build_api
from lesions.serving.guard import Guard
from lesions.serving.page import mount_page
from lesions.serving.service import Limits, Service

# A page elsewhere may have its own name point to 127.0.0.1: under that name nothing is answered.
LOCAL = ["127.0.0.1", "localhost", "::1", "[::1]"]


def build_server(
    predictor: Predictor, host: str = "127.0.0.1", port: int = 7860, limits: Limits | None = None
) -> uvicorn.Server:
    """A server that `run()` starts; it has predicted one photograph already."""
    service = Service(predictor, limits)
    service.warm_up()
    page = mount_page(build_api(service), service)
    app = Guard(TrustedHostMiddleware(page, LOCAL if _is_loopback(host) else ["*"]), service.limits)
    config = uvicorn.Config(
        app, host, port,
        http=_timed(service.limits.header_seconds), ws="none", lifespan="on",
        timeout_keep_alive=5, timeout_graceful_shutdown=5,
        limit_concurrency=service.limits.connections, h11_max_incomplete_event_size=16_384,
        access_log=False, server_header=False, proxy_headers=False, log_level="warning",
    )  # fmt: skip
    return uvicorn.Server(config)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _timed(seconds: float) -> type[H11Protocol]:
    """uvicorn's protocol, closing a connection whose request header takes longer than `seconds`.

    uvicorn itself waits for ever: a few hundred idle connections would lock everybody else out.
    """

    class TimedProtocol(H11Protocol):
        due: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._await_header()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._header_came()
            else:
                self._await_header()

        def connection_lost(self, exc: Exception | None) -> None:
            self._header_came()
            super().connection_lost(exc)

        def _await_header(self) -> None:
            if self.due is None:
                self.due = self.loop.call_later(seconds, self.transport.close)

        def _header_came(self) -> None:
            if self.due is not None:
                self.due.cancel()
                self.due = None

    return TimedProtocol
