"""Addresses that others name: resolved once, checked, and connected to as they were checked, at each redirect anew.

Otherwise a name that points into the operator's own network would reach what only this machine can reach (server-side
request forgery), also one that points elsewhere when it is looked up again.
"""

from __future__ import annotations

import http.client
import socket
import threading
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any
from urllib.parse import urlsplit

from seesr.errors import AddressError

NAT64 = IPv6Network("64:ff9b::/96")
"""RFC 6052: the last 32 bits are an IPv4 address."""
RESERVED = tuple(map(IPv6Network, ("::/96", "::ffff:0:0:0/96", "64:ff9b:1::/48", "fec0::/10")))
"""Not of the internet, whatever Python's version says: addresses that hold one of IPv4, and those of a site."""
TIMEOUT_SECONDS = 30.0
Resolve = Callable[..., list[Any]]
"""As `socket.getaddrinfo`."""


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet, not of this machine, its network, or reserved (RFC 6890)."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (IPv4Address(int(ip) & 0xFFFFFFFF) if ip in NAT64 else None)
        if inner is not None:
            return is_public(str(inner))
        if any(ip in network for network in RESERVED):
            return False
    return ip.is_global and not ip.is_multicast


@dataclass(frozen=True)
class AddressRules:
    """Which addresses are connected to: https ones of the internet, checked where a proxy does not resolve them.

    Args:
        allow_private: also those of this machine and its network, and http.
        trusted: address of a server of the operator's own, wherever it is, such as a mirror of the hub.
        resolve: as `socket.getaddrinfo`.
        hosts: names or addresses of more of the operator's own hosts, at any port; http is allowed there too.
    """

    allow_private: bool = False
    trusted: str | None = None
    resolve: Resolve = socket.getaddrinfo
    hosts: frozenset[str] = frozenset()

    def open(self, address: str, headers: Mapping[str, str], secret: Mapping[str, str] | None = None) -> HTTPResponse:
        """The answer to GET, after redirects, whose body is not yet read.

        Args:
            secret: headers that are not sent to another host, where a redirect leads to one.

        Raises:
            AddressError: the address, or that of a redirect, is refused.
            OSError, http.client.HTTPException: there is no answer, or one that says no (`urllib.error.HTTPError`).
        """
        opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(),
            _CheckedHandler(self),
            _RedirectHandler(),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.HTTPDefaultErrorHandler(),
        ):
            opener.add_handler(handler)
        self.check_scheme(address)
        request = urllib.request.Request(address, headers=dict(headers))
        for name, value in (secret or {}).items():
            request.add_unredirected_header(name, value)
        response = opener.open(request, timeout=TIMEOUT_SECONDS)
        if response is None:  # no handler for the scheme that a redirect names
            raise AddressError(f"{shown(address)} redirects to another kind of address; only https is allowed.")
        return response

    def post(self, address: str, body: bytes, headers: Mapping[str, str], seconds: float = TIMEOUT_SECONDS) -> int:
        """The status of the answer to POST, whose body is not read; no redirect is followed, and no proxy is used.

        Args:
            seconds: how long each attempt to connect may take, and then all the rest.

        Raises:
            AddressError: the address is refused.
            OSError, http.client.HTTPException: there is no answer.
        """
        self.check_scheme(address)
        parts = urlsplit(address)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        connection = self.checked(kind(parts.hostname or "", parts.port, timeout=seconds))
        is_late = threading.Event()
        deadline = threading.Timer(seconds, _shut_down, [connection, is_late])
        deadline.daemon = True
        try:
            connection.connect()
            # The timeout of the socket is that of each read: an answer may come byte by byte.
            deadline.start()
            connection.request("POST", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), body, dict(headers))
            status = connection.getresponse().status
            if is_late.is_set():  # what came of the answer looks like all of it
                raise TimeoutError(f"no whole answer came within {seconds:g} seconds")
            return status
        finally:
            deadline.cancel()
            connection.close()

    def check_scheme(self, address: str) -> None:
        """Raises AddressError if the address is not of https, and is not let through otherwise."""
        try:
            parts = urlsplit(address)
            is_whole = bool(parts.hostname) and parts.port != 0 and parts.username is None
            is_whole = is_whole and address.isprintable() and " " not in address
            scheme = parts.scheme if is_whole else None
        except ValueError:
            scheme = None
        if scheme is None:
            raise AddressError(f"{shown(address)} is not an address; give one like https://example.org/model.safetensors.")
        if scheme != "https" and not (scheme == "http" and (self.allow_private or self._is_trusted(*_place(address)))):
            raise AddressError(f"{shown(address)} is of {scheme or 'no scheme'}; only https is allowed.")

    def checked(self, connection: HTTPConnection) -> HTTPConnection:
        """A connection that is made by `connect`."""
        # What http.client's own `connect` calls; TLS still checks the certificate for the name.
        connection._create_connection = self.connect  # pyright: ignore[reportAttributeAccessIssue]
        return connection

    def connect(self, place: tuple[str, int], timeout: float | None, *_: object) -> socket.socket:
        """A connection to one of the addresses that a name has now, all of which are allowed.

        Raises:
            AddressError: one is not public.
            OSError: there is none, or none answers.
        """
        host, port = place
        found = self.resolve(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(entry[4][0] for entry in found))
        if not self.allow_private and not self._is_trusted(host, port):
            for address in addresses:
                if not is_public(address):
                    raise AddressError(f"{host} is {address}, which is not a public address; only public ones are allowed.")
        problem: OSError = OSError(f"{host} has no address")
        for address in addresses:
            try:
                return socket.create_connection((address, port), timeout)
            except OSError as error:
                problem = error
        raise problem

    def _is_trusted(self, host: str | None, port: int | None) -> bool:
        return host in self.hosts or (self.trusted is not None and (host, port) == _place(self.trusted))


class _CheckedHandler(urllib.request.AbstractHTTPHandler):
    """Opens connections by the rules; one to a proxy, which is the operator's, without."""

    def __init__(self, rules: AddressRules) -> None:
        super().__init__()
        self.rules = rules

    http_request = https_request = urllib.request.AbstractHTTPHandler.do_request_

    def http_open(self, request: urllib.request.Request) -> HTTPResponse:
        return self._open(HTTPConnection, request)

    def https_open(self, request: urllib.request.Request) -> HTTPResponse:
        return self._open(HTTPSConnection, request)

    def _open(self, kind: type[HTTPConnection], request: urllib.request.Request) -> HTTPResponse:
        self.rules.check_scheme(request.full_url)
        is_proxied = request.has_proxy() or getattr(request, "_tunnel_host", None)

        def connection(host: str, **options: Any) -> HTTPConnection:
            made = kind(host, **options)
            return made if is_proxied else self.rules.checked(made)

        return self.do_open(connection, request)


class _RedirectHandler(urllib.request.HTTPRedirectHandler):
    """Sends secret headers on to the same host only."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        if new is not None and (new.type, new.host) == (req.type, req.host):
            new.unredirected_hdrs |= req.unredirected_hdrs
        return new


def _shut_down(connection: HTTPConnection, is_late: threading.Event) -> None:
    """Ends whatever another thread waits for on a connection."""
    is_late.set()
    with suppress(OSError):
        if connection.sock is not None:
            connection.sock.shutdown(socket.SHUT_RDWR)


def shown(address: str) -> str:
    """An address for messages: without what it may hold of secrets, and not too long."""
    return address.partition("?")[0].partition("#")[0].rpartition("@")[2][:200] or repr(address)


def _place(address: str) -> tuple[str | None, int | None]:
    """Host and port of an address."""
    parts = urlsplit(address)
    return parts.hostname, parts.port or (http.client.HTTPS_PORT if parts.scheme == "https" else http.client.HTTP_PORT)
