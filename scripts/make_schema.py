"""Writes `.cog/openapi_schema.json` from predict.py, as the cog command does when it builds.

    python scripts/make_schema.py [--check]

The server (`python -m cog.server.http`) validates inputs only where this file is; it needs no Docker and no cog command.
"""

from __future__ import annotations

import inspect
import json
import sys
import types
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from cog import Path as CogPath

ROOT = Path(__file__).parents[1]
TARGET = ROOT / ".cog" / "openapi_schema.json"
TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}
STATUS = ["starting", "processing", "succeeded", "canceled", "failed"]
EVENTS = ["start", "output", "logs", "completed"]
HERE = "#/components/schemas/"


def main(check: Annotated[bool, typer.Option(help="Only say whether the file is current.")] = False) -> None:
    """Writes the schema, or with --check fails where it is out of date."""
    text = json.dumps(schema(), indent=2) + "\n"
    if check:
        if not TARGET.exists() or TARGET.read_text() != text:
            print(f"{TARGET} is not current; run scripts/make_schema.py.", file=sys.stderr)
            raise typer.Exit(1)
        return
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(text)


def schema() -> dict[str, Any]:
    """The OpenAPI description of the server with this project's Predictor."""
    inputs, choices = input_schema()
    return {
        "openapi": "3.0.2",
        "info": {"title": "Cog", "version": "0.1.0"},
        "paths": paths(),
        "components": {
            "schemas": {
                "Input": inputs,
                "Output": {"title": "Output", "type": "string", "format": "uri"},
                **choices,
                **envelopes(),
            }
        },
    }


def input_schema() -> tuple[dict[str, Any], dict[str, Any]]:
    """The schema of predict's inputs, and those of its choices by name."""
    sys.path.insert(0, str(ROOT))
    from predict import Predictor

    properties, required, choices = {}, [], {}
    parameters = inspect.signature(Predictor.predict, eval_str=True).parameters
    for order, (name, parameter) in enumerate(item for item in parameters.items() if item[0] != "self"):
        field, annotation = parameter.default, parameter.annotation
        nullable = isinstance(annotation, types.UnionType)
        kind = get_args(annotation)[0] if nullable else annotation
        title = name.replace("_", " ").title()
        described: dict[str, Any] = {"title": title}
        if kind is CogPath:
            described |= {"type": "string", "format": "uri"}
            required.append(name)
        elif field.choices:
            choices[name] = {"title": name, "type": TYPES[kind], "description": "An enumeration.", "enum": field.choices}
            described = {"allOf": [{"$ref": HERE + name}]}
        else:
            described["type"] = TYPES[kind]
        bounds = {"minimum": field.ge, "maximum": field.le, "minLength": field.min_length, "maxLength": field.max_length}
        for key, value in (bounds | {"default": field.default}).items():
            if value is not None and name not in required:
                described[key] = value
        if nullable:
            described["nullable"] = True
        properties[name] = described | {"description": field.description, "x-order": order}
    return {"title": "Input", "type": "object", "properties": properties, "required": required}, choices


def paths() -> dict[str, Any]:
    """What the server answers, and with which codes."""
    identified = {"name": "prediction_id", "in": "path", "required": True, "schema": {"type": "string"}}
    prefer = {"name": "prefer", "in": "header", "required": False, "schema": {"type": "string"}}
    body = {"required": True, "content": {"application/json": {"schema": {"$ref": HERE + "PredictionRequest"}}}}
    prediction = _answer("The prediction, done or failed", {"$ref": HERE + "PredictionResponse"})
    answers = {
        "200": prediction,
        "202": _answer("Begun; webhooks tell of the rest", {"$ref": HERE + "PredictionResponse"}),
        "400": {"description": "Not JSON"},
        "409": {"description": "Busy with another prediction"},
        "415": {"description": "Not application/json"},
        "422": _answer("An input that cannot be", {"$ref": HERE + "HTTPValidationError"}),
        "503": {"description": "Not ready, or the setup failed"},
    }
    simple = {"200": _answer("OK", {})}
    return {
        "/": {"get": {"summary": "Root", "operationId": "root", "responses": simple}},
        "/health-check": {"get": {"summary": "Healthcheck", "operationId": "healthcheck", "responses": simple}},
        "/predictions": {
            "post": {
                "summary": "Predict",
                "operationId": "predict",
                "parameters": [prefer],
                "requestBody": body,
                "responses": answers,
            }
        },
        "/predictions/{prediction_id}": {
            "put": {
                "summary": "Predict Idempotent",
                "operationId": "predict_idempotent",
                "parameters": [identified, prefer],
                "requestBody": body,
                "responses": answers,
            }
        },
        "/predictions/{prediction_id}/cancel": {
            "post": {
                "summary": "Cancel",
                "operationId": "cancel",
                "parameters": [identified],
                "responses": simple | {"404": {"description": "No such prediction, or it is over"}},
            }
        },
        "/shutdown": {"post": {"summary": "Shutdown", "operationId": "shutdown", "responses": simple}},
    }


def envelopes() -> dict[str, Any]:
    """What Cog puts around a model's inputs and outputs."""
    moment = {"type": "string", "format": "date-time", "nullable": True}
    wanted = {
        "id": {"type": "string", "nullable": True},
        "input": {"$ref": HERE + "Input"},
        "webhook": {"type": "string", "format": "uri", "nullable": True},
        "webhook_events_filter": {"type": "array", "items": {"$ref": HERE + "WebhookEvent"}, "nullable": True},
    }
    told = {
        "id": {"type": "string"},
        "status": {"$ref": HERE + "Status"},
        "output": {"$ref": HERE + "Output"},
        "error": {"type": "string", "nullable": True},
        "logs": {"type": "string", "default": ""},
        "metrics": {"type": "object", "nullable": True},
        "created_at": moment,
        "started_at": moment,
        "completed_at": moment,
    }
    place = {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}}
    problem = {"loc": place, "msg": {"type": "string"}, "type": {"type": "string"}}
    return {
        "PredictionRequest": {"title": "PredictionRequest", "type": "object", "properties": wanted},
        "PredictionResponse": {"title": "PredictionResponse", "type": "object", "properties": told},
        "Status": {"title": "Status", "type": "string", "description": "An enumeration.", "enum": STATUS},
        "WebhookEvent": {"title": "WebhookEvent", "type": "string", "description": "An enumeration.", "enum": EVENTS},
        "ValidationError": {"title": "ValidationError", "type": "object", "properties": problem, "required": [*problem]},
        "HTTPValidationError": {
            "title": "HTTPValidationError",
            "type": "object",
            "properties": {"detail": {"type": "array", "items": {"$ref": HERE + "ValidationError"}}},
        },
    }


def _answer(description: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": content}}}


if __name__ == "__main__":
    typer.run(main)
