"""The native API, OpenAI's and A1111's against their OpenAPI description, by schemathesis: no answer that is not in it."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from helpers import cases
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from studio_server import ServedStudio

from seesr.studio.api.native import PREFIX

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
ENDLESS = f"{PREFIX}/events"
"""Goes on until the client does."""


@pytest.fixture(scope="module")
def schema(served: ServedStudio) -> BaseSchema:
    headers = {"Authorization": f"Bearer {served.key('ben')}"}
    return schemathesis.openapi.from_url(f"{served.address}{PREFIX}/openapi.json", headers=headers)


def test_the_description_is_valid_openapi(schema: BaseSchema) -> None:
    schema.validate()


@pytest.mark.parametrize("user", [None, "ben"])
def test_every_answer_is_as_described(served: ServedStudio, schema: BaseSchema, user: str | None) -> None:
    headers = {} if user is None else {"Authorization": f"Bearer {served.key(user)}"}
    operations = [
        result.ok()
        for result in schema.include(path_regex=rf"^({PREFIX}|/v1|/sdapi/v1|/controlnet)/")
        .exclude(path=ENDLESS)
        .get_all_operations()
    ]
    assert len(operations) > 70
    for operation in operations:
        modes = [operation.as_strategy(generation_mode=mode) for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)]

        @settings(
            max_examples=cases(6), derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
        )
        @given(case=st.one_of(modes))
        def ask(case: Case) -> None:
            response: Any = case.call(headers=headers)
            if user is None:
                assert response.status_code == 401, f"{case.method} {case.path}: {response.status_code}"
            case.validate_response(response, checks=CHECKS)

        ask()
