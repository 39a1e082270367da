"""The door: one ASGI layer over the whole app, through which nothing goes that is not let in.

In this order: which client and host a request is of, whether a page elsewhere sends it, who asks, how large it is. What it
lets in has `request.state.user`. A path that no rule names is for sessions alone, so that a forgotten route is closed.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Literal

from anyio import CapacityLimiter, to_thread
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from seesr.studio.accounts import Accounts
from seesr.studio.error_bodies import challenges, error_body, openai_error
from seesr.studio.errors import ForbiddenError, StudioError, UnauthorizedError
from seesr.studio.proxies import resolve_proxy
from seesr.studio.records import LOCAL, User
from seesr.studio.settings import StudioSettings, is_loopback

Proof = Literal["session", "basic", "key"]
SESSION_COOKIE = "seesr_session"
OPEN_PATHS = frozenset({"/health", "/ready", "/login", "/favicon.ico"})
"""Anybody may ask for these."""
OPEN_BODY_BYTES, JSON_BODY_BYTES = 100_000, 2_000_000
"""Of a body for an open path, and of one without files: JSON is read at once, and takes many times its size."""
WITH_PICTURES = ("/sdapi/", "/controlnet/")
"""Where pictures stand in JSON."""
METRICS_PATH = "/metrics"
PROOFS: Mapping[str, frozenset[Proof]] = {
    "/api/v1": frozenset({"session", "basic", "key"}),
    "/sdapi": frozenset({"session", "basic", "key"}),
    "/controlnet": frozenset({"session", "basic", "key"}),
    "/v1": frozenset({"key"}),
    METRICS_PATH: frozenset({"session", "basic", "key"}),
}
"""What one may prove oneself with, by the beginning of a path."""
ELSEWHERE: frozenset[Proof] = frozenset({"session"})
CHANGES_NOTHING = frozenset({"GET", "HEAD", "OPTIONS"})
FORM_TYPES = frozenset({"application/x-www-form-urlencoded", "text/plain"})
"""Bodies that a form of a page elsewhere can send and no route takes."""
SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
"""Of every answer that does not say otherwise."""
WEBSOCKET_REFUSED = 1008


class Door:
    """Lets requests and WebSockets in, or answers them itself.

    Args:
        app: what lies behind it.
        has_page: whether a browser that opens a page without a session is led to the one for logging in.
    """

    def __init__(self, app: ASGIApp, accounts: Accounts, settings: StudioSettings, has_page: bool = False) -> None:
        self._has_page = has_page
        self._app, self._accounts, self._settings = app, accounts, settings
        # Of its own: streams may take all the threads of the routes.
        self._threads = CapacityLimiter(8)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        # The request as its own client sent it, whatever stands in between.
        scope, is_forwarded = resolve_proxy(scope, self._settings)
        headers = Headers(scope=scope)
        origin = headers.get("origin", "").lower()
        guarded = _GuardedSend(send, origin if origin in self._settings.cors_origins else None)
        try:
            self._check_host(headers)
            if guarded.cors_origin and scope["type"] == "http" and scope["method"] == "OPTIONS":
                await _answer(guarded, 204, b"", _preflight_headers(headers))
                return
            self._check_page(scope, headers)
            scope["state"] = {**scope.get("state", {}), "user": await self._authenticate(scope, headers, is_forwarded)}
            limit = _body_limit(route_path(scope), headers, self._settings)
            _check_size(headers, limit)
        except StudioError as error:
            if self._has_page and isinstance(error, UnauthorizedError) and headers.get("sec-fetch-mode") == "navigate":
                await _answer(guarded, 303, b"", {"location": f"{scope.get('root_path', '')}/login"})
                return
            await _refuse(scope, receive, guarded, error)
            return
        await self._app(scope, _limited(receive, limit) if scope["type"] == "http" else receive, guarded)

    def _check_host(self, headers: Headers) -> None:
        """Against DNS rebinding: a page elsewhere may have its own name resolve to this machine."""
        host = _host_name(headers.get("host", ""))
        if not self._settings.is_own_host(host):
            raise MisdirectedError("the studio is not reached by this name; add it to `hosts` in studio.toml.")

    def _check_page(self, scope: Scope, headers: Headers) -> None:
        """Against cross-site requests: what a page elsewhere has a browser send with the user's own proofs."""
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin is not None:
            place = origin.lower().partition("://")[2]
            if origin.lower() in self._settings.cors_origins:
                site = None
            elif not place or _without_default_port(place) != _without_default_port(headers.get("host", "")):
                raise ForbiddenError("a page of another origin sent this; add it to `cors_origins` in studio.toml.")
        changes = scope["type"] == "websocket" or scope["method"] not in CHANGES_NOTHING
        is_link = not changes and headers.get("sec-fetch-mode") == "navigate"
        if site not in (None, "same-origin", "none") and not is_link:
            raise ForbiddenError("a page of another site sent this.")
        if changes and origin is None and site is None and _session_token(headers):
            raise ForbiddenError("a change by session needs the header Origin; scripts prove themselves by Basic or a key.")
        if changes and headers.get("content-type", "").partition(";")[0].strip().lower() in FORM_TYPES:
            raise UnsupportedTypeError("this type of body is not taken; send application/json.")

    async def _authenticate(self, scope: Scope, headers: Headers, is_forwarded: bool) -> User | None:
        """Who asks; None where anybody may."""
        path = route_path(scope)
        if path in OPEN_PATHS:
            return None
        address = scope["client"][0] if scope.get("client") else ""
        is_local = is_loopback(address) and not is_forwarded
        prefix = next((prefix for prefix in PROOFS if path == prefix or path.startswith(prefix + "/")), None)
        proofs = ELSEWHERE if prefix is None else PROOFS[prefix]
        user = await to_thread.run_sync(self._identify, headers, proofs, address, is_local, limiter=self._threads)
        if user is None and not (prefix == METRICS_PATH and is_local):
            raise UnauthorizedError(f"log in first; taken here: {', '.join(sorted(proofs))}.")
        if prefix == METRICS_PATH and user is not None and not user.is_admin:
            raise ForbiddenError("metrics are for admins and for this machine.")
        return user

    def _identify(self, headers: Headers, proofs: frozenset[Proof], address: str, is_local: bool) -> User | None:
        if not self._accounts.has_users():
            return User(name=LOCAL, role="admin") if is_local and self._settings.is_loopback else None
        scheme, _, value = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic" and "basic" in proofs:
            pair = _basic_pair(value)
            return pair and self._accounts.by_password(*pair, address)
        if scheme.lower() == "bearer" and "key" in proofs:
            return self._accounts.by_key(value.strip())
        token = _session_token(headers)
        return self._accounts.by_session(token) if token and "session" in proofs else None


class MisdirectedError(StudioError):
    """The header Host names another server."""

    status = 421


class UnsupportedTypeError(StudioError):
    """A body of this content type is not taken."""

    status = 415


class TooLargeError(StudioError):
    """A body is larger than `StudioSettings.body_bytes`, or than `JSON_BODY_BYTES` where no pictures stand in it."""

    status = 413


class _GuardedSend:
    """Sends answers with the security headers, and for a page elsewhere that may use the API with those that say so."""

    def __init__(self, send: Send, cors_origin: str | None) -> None:
        self._send, self.cors_origin = send, cors_origin

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            headers.add_vary_header("Origin")
            if self.cors_origin:
                headers["access-control-allow-origin"] = self.cors_origin
        await self._send(message)


def route_path(scope: Scope) -> str:
    """The path as routes name it, without the root path."""
    return scope["path"].removeprefix(scope.get("root_path", "")) or "/"


def _host_name(host: str) -> str:
    """`Host` without port and brackets."""
    name = host.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0].rstrip(".")


def _without_default_port(host: str) -> str:
    """A host as browsers write it. The scheme is left out of account: a proxy that ends TLS need not say so."""
    return host.strip().lower().removesuffix(":443").removesuffix(":80")


def _session_token(headers: Headers) -> str | None:
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(SESSION_COOKIE)
    except CookieError:
        return None
    return cookie.value if cookie else None


def _basic_pair(value: str) -> tuple[str, str] | None:
    """Name and password (RFC 7617)."""
    try:
        content = base64.b64decode(value.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    name, colon, password = text.partition(":")
    return (name, password) if colon else None


def _preflight_headers(headers: Headers) -> dict[str, str]:
    return {
        "access-control-allow-methods": "GET, POST, PUT, PATCH, DELETE",
        "access-control-allow-headers": headers.get("access-control-request-headers", ""),
        "access-control-max-age": "600",
    }


def _body_limit(path: str, headers: Headers, settings: StudioSettings) -> int:
    if path in OPEN_PATHS:
        return OPEN_BODY_BYTES
    has_files = headers.get("content-type", "").lower().startswith("multipart/form-data")
    return settings.body_bytes if has_files or path.startswith(WITH_PICTURES) else min(JSON_BODY_BYTES, settings.body_bytes)


def _check_size(headers: Headers, limit: int) -> None:
    size = headers.get("content-length", "0")
    if not size.isdecimal() or int(size) > limit:
        raise TooLargeError(_too_large(limit))


def _limited(receive: Receive, limit: int) -> Receive:
    """`receive` of a body whose size need not be said before."""
    size = 0

    async def receive_limited() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > limit:
            # Of this class: FastAPI hands on no other from within a body.
            raise HTTPException(TooLargeError.status, _too_large(limit))
        return message

    return receive_limited


def _too_large(limit: int) -> str:
    return f"the body is larger than {limit} bytes; send less."


async def _refuse(scope: Scope, receive: Receive, send: Send, error: StudioError) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": WEBSOCKET_REFUSED, "reason": str(error)[:120]})
        return
    headers = challenges(error, Headers(scope=scope), route_path(scope))
    is_openai = route_path(scope).startswith("/v1/")
    body = json.dumps(openai_error(error, error.status) if is_openai else error_body(error)).encode()
    await _answer(send, error.status, body, {"content-type": "application/json", **headers})


async def _answer(send: Send, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    raw.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
