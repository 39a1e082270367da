"""The studio as one ASGI app: the interfaces, the sentences of their errors, and the door before all of it."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from seesr.addresses import AddressRules
from seesr.errors import SeeSRError
from seesr.models.manager import ModelManager
from seesr.models.pulls import Pulls
from seesr.options import lower_first
from seesr.studio import login, metrics
from seesr.studio.accounts import Accounts
from seesr.studio.api import native
from seesr.studio.api.model_lists import ModelLists
from seesr.studio.api.openai import routes as openai
from seesr.studio.api.prompts import Tokenizers
from seesr.studio.api.sdapi import controlnet
from seesr.studio.api.sdapi import routes as sdapi
from seesr.studio.door import Door, route_path
from seesr.studio.error_bodies import challenges, error_body
from seesr.studio.errors import status_of
from seesr.studio.logs import JobLog
from seesr.studio.settings import StudioSettings
from seesr.studio.studio import Studio
from seesr.version import __version__

OPENAPI_PATH = "/api/v1/openapi.json"


def create_app(studio: Studio, accounts: Accounts, settings: StudioSettings, page: bool = False) -> FastAPI:
    """The app. `app.state` has `studio`, `accounts`, `settings`, `pulls` and `tokenizers`; `request.state.user` is who asks.

    Args:
        page: whether it has the page, for which Gradio is imported: a matter of seconds.
    """
    app = FastAPI(title="SeeSR studio", version=__version__, openapi_url=OPENAPI_PATH, docs_url=None, redoc_url=None)
    app.openapi_version = "3.2.0"  # the first one that describes streams of events
    app.state.studio, app.state.accounts, app.state.settings = studio, accounts, settings
    rules = AddressRules(allow_private=settings.private_addresses)
    app.state.pulls = Pulls(ModelManager(studio.files.root, rules=rules))
    app.state.metrics = metrics.Metrics(studio)
    studio.dispatcher.watchers += [app.state.metrics.observe, JobLog(settings.log_prompts).observe]
    app.state.tokenizers = Tokenizers()
    app.state.model_lists = ModelLists(studio.files.root)
    for router in (login.router, metrics.router, native.router, openai.router):
        app.include_router(router)
    if settings.sdapi:
        for router in (sdapi.router, controlnet.router):
            app.include_router(router)
    app.add_exception_handler(SeeSRError, _tell_error)
    app.add_exception_handler(HTTPException, _tell_http_error)
    app.add_exception_handler(RequestValidationError, _tell_invalid)
    app.add_exception_handler(Exception, _tell_unexpected)
    if page:
        from seesr.studio.page.app import mount_page

        mount_page(app, studio)
    app.add_middleware(Door, accounts=accounts, settings=settings, has_page=page)
    return app


def _tell_error(request: Request, error: Exception) -> JSONResponse:
    """What a user can correct, in its own sentence."""
    assert isinstance(error, SeeSRError)
    return JSONResponse(error_body(error), status_of(error), challenges(error, request.headers, route_path(request.scope)))


def _tell_http_error(_: Request, error: Exception) -> JSONResponse:
    """What Starlette and FastAPI refuse, such as a path that is none."""
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    code = status.phrase.lower().replace(" ", "_").replace("'", "")
    return JSONResponse(error_body(f"{error.detail}", code), status, error.headers)


def _tell_invalid(_: Request, error: Exception) -> JSONResponse:
    """What does not fit the schema, without what was sent: clients put secrets into fields that nobody knows."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "extra_forbidden":
        place, message = first["loc"][:-1], "there is a field that is not known here"
    else:
        place, message = first["loc"], first["msg"]
    where = ".".join(str(part) for part in place)
    return JSONResponse(error_body(f"{where}: {lower_first(message)}.", "invalid"), 422)


def _tell_unexpected(_: Request, error: Exception) -> JSONResponse:
    """A mistake of ours: Starlette raises it again for the log."""
    return JSONResponse(error_body(f"internal error ({type(error).__name__}); please report it.", "internal"), 500)
