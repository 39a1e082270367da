"""What lies between the door and Gradio: a policy that keeps the page at home, and no way for files through Gradio.

Gradio's uploads can be read by everybody who knows their path, and its cache by whoever is let in; pictures of users go
through the API alone, so both are closed.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; connect-src 'self'; font-src 'self' data:; form-action 'self'; base-uri 'self'; "
    "img-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "manifest-src 'self'; worker-src 'self' blob:; frame-ancestors 'none'"
)
"""Gradio's own script needs inline scripts and evaluates the handlers' JavaScript."""
CLOSED = re.compile(
    r"/gradio_api/(upload|file|proxy|stream|custom_component|deep_link|component_server|reset|runs?-?history)\b"
)
UNCHANGING = re.compile(r"/(assets|static|svelte)/")
"""Files whose names change with their content, or with Gradio's version."""


class PageGuard:
    """Answers of the page with its policy, without Gradio's routes for files."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and CLOSED.search(scope["path"]):
            message = "pictures come from and go to /api/v1 alone."
            await JSONResponse({"error": {"message": message, "code": "not_found"}}, 404)(scope, receive, send)
            return
        cached = "private, max-age=604800" if UNCHANGING.search(scope["path"]) else "no-cache"

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["content-security-policy"] = POLICY
                headers["cache-control"] = cached
            await send(message)

        await self._app(scope, receive, guarded)


@dataclass(frozen=True)
class LoginPolicy:
    """The policy of one answer with the login page."""

    nonce: str

    @property
    def text(self) -> str:
        """The header's value: only the page's own style and script run."""
        own = f"'nonce-{self.nonce}'"
        return f"default-src 'none'; connect-src 'self'; style-src {own}; script-src {own}; frame-ancestors 'none'"


def login_policy() -> LoginPolicy:
    """A policy with a nonce of its own."""
    return LoginPolicy(secrets.token_urlsafe(16))
