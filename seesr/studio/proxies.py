"""What a request was before a reverse proxy sent it on, as far as the proxy is trusted."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import Scope

from seesr.studio.settings import StudioSettings, is_address

FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")


def resolve_proxy(scope: Scope, settings: StudioSettings) -> tuple[Scope, bool]:
    """The request as it reached the first trusted proxy, and whether it is forwarded for a client that is not known."""
    scope = dict(scope)
    if settings.root_path:
        scope["root_path"] = settings.root_path
        if not f"{scope['path']}/".startswith(f"{settings.root_path}/"):  # a proxy took it off
            scope["path"] = settings.root_path + scope["path"]
    headers = Headers(scope=scope)
    client = scope["client"][0] if scope.get("client") else ""
    if not settings.is_trusted_proxy(client):
        return scope, any(name in headers for name in FORWARDED)
    for address in reversed([part.strip() for part in ",".join(headers.getlist("x-forwarded-for")).split(",")]):
        if not settings.is_trusted_proxy(client) or not is_address(address):
            break
        client = address
    scope["client"] = (client, 0)
    scheme = headers.get("x-forwarded-proto", "").rpartition(",")[2].strip().lower()
    if scheme in ("http", "https"):
        scope["scheme"] = scheme if scope["type"] == "http" else {"http": "ws", "https": "wss"}[scheme]
    if host := headers.get("x-forwarded-host", "").rpartition(",")[2].strip():
        others = [(name, value) for name, value in scope["headers"] if name != b"host"]
        scope["headers"] = [*others, (b"host", host.encode("latin-1"))]
    return scope, settings.is_trusted_proxy(client)
