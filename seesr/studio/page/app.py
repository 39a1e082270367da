"""Puts the page into the studio's app: `/` leads to it, `/ui/LANGUAGE` is it, `/page` has its own files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from seesr.studio.page.guard import PageGuard, login_policy
from seesr.studio.page.messages import Messages, languages, preferred_language
from seesr.studio.records import User

if TYPE_CHECKING:
    from seesr.studio.studio import Studio

STATIC = Path(__file__).with_name("static")


def mount_page(app: FastAPI, studio: Studio) -> None:
    """Adds the page to the studio's app.

    Raises:
        ModuleNotFoundError: Gradio is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported
    import gradio as gr

    from seesr.studio.page.blocks import build_blocks
    from seesr.studio.page.theme import page_theme

    pages, known = FastAPI(openapi_url=None, docs_url=None, redoc_url=None), languages()
    for code in known:
        words = Messages.read(code)
        gr.mount_gradio_app(
            pages,
            build_blocks(studio, words),
            f"/{code}",
            theme=page_theme(),
            head=_head(words),
            footer_links=[],
            run_history=False,
            show_error=False,
            ssr_mode=False,
            enable_monitoring=False,
            mcp_server=False,
            pwa=False,
            auth_dependency=lambda request: request.scope["state"]["user"].name,
        )
    app.mount("/ui", PageGuard(pages))
    app.mount("/page", PageGuard(StaticFiles(directory=STATIC)))
    app.add_api_route("/", _redirect(studio, known), include_in_schema=False)
    app.add_api_route("/favicon.ico", lambda: FileResponse(STATIC / "icon.svg"), include_in_schema=False)
    app.add_api_route("/login", _login_page, methods=["GET"], include_in_schema=False)


def _redirect(studio: Studio, known: list[str]):  # noqa: ANN202 a route
    def to_page(request: Request) -> RedirectResponse:
        user: User = request.state.user
        chosen = studio.preferences(user)
        language = chosen.language if chosen.language in known else None
        language = language or preferred_language(request.headers.get("accept-language", ""), known)
        query = f"?__theme={chosen.theme}" if chosen.theme else ""
        return RedirectResponse(f"{request.scope.get('root_path', '')}/ui/{language}/{query}")

    return to_page


def _login_page(request: Request) -> Response:
    words = Messages.read(preferred_language(request.headers.get("accept-language", ""), languages()))
    page, policy = (STATIC / "login.html").read_text(encoding="utf-8"), login_policy()
    for name in ("title", "name", "password", "button", "failed"):
        page = page.replace(f"{{{name}}}", words(f"login.{name}"))
    page = page.replace("{language}", words.language).replace("{root}", request.scope.get("root_path", ""))
    return HTMLResponse(page.replace("{nonce}", policy.nonce), headers={"content-security-policy": policy.text})


def _head(words: Messages) -> str:
    """The script, and the words that it needs."""
    shown = {key: text for key, text in words.words.items() if key.startswith(("js.", "field."))}
    texts = json.dumps(shown).replace("<", "\\u003c")
    return (
        f"<script>window.seesr = {{words: {texts}, early: [], set: (...values) => seesr.early.push(values)}};"
        f'document.documentElement.lang = "{words.language}";</script>'
        '<link rel="stylesheet" href="../../page/page.css"><script type="module" src="../../page/page.js"></script>'
    )
