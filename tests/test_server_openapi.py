"""schemathesis walks the OpenAPI document: requests that follow it and requests that do not, answers as it says."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("fastapi", reason="needs the extra [server]")
schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis")
from schemathesis import GenerationMode, checks  # noqa: E402

from server_fakes import Running, pdf, png  # noqa: E402

CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
    checks.missing_required_header,
    checks.unsupported_method,
]
OPERATIONS = [
    "POST /v1/detect",
    "POST /v1/extract",
    "GET /v1/jobs/{id}",
    "DELETE /v1/jobs/{id}",
    "GET /v1/jobs/{id}/document",
    "GET /v1/jobs/{id}/pages/{number}",
    "GET /v1/models",
    "GET /healthz",
    "GET /readyz",
]


@pytest.fixture(scope="module")
def server():
    with Running() as running:
        yield running


@pytest.fixture(scope="module")
def schema(server):
    return schemathesis.openapi.from_dict(server.app.openapi())


def ended_job(ask):
    place = ask("POST", "/v1/extract", pdf(1), Prefer="respond-async").headers["location"]
    return ask.wait_for(place, lambda answer: answer.json["status"] == "ok").json["id"]


def walk(server, schema, name, examples):
    """Ask an operation `examples` times, and look at every answer. Half of the bodies are real files."""
    method, path = name.split()
    operation = schema[path][method]
    real = {"id": ended_job(server.client), "number": 1} if "{id}" in path else {}
    files = {"/v1/detect": png(), "/v1/extract": pdf(1)}
    seen = []

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(data=st.data(), mode=st.sampled_from([GenerationMode.POSITIVE, GenerationMode.NEGATIVE]))
    def asks(data, mode):
        case = data.draw(operation.as_strategy(generation_mode=mode))
        if isinstance(case.body, bytes) and data.draw(st.booleans()):
            case.body = files[path]
        if mode is GenerationMode.POSITIVE and real and data.draw(st.booleans()):
            case.path_parameters.update({name: real[name] for name in case.path_parameters})
        answer = case.call(base_url=f"http://127.0.0.1:{server.client.port}")
        case.validate_response(answer, checks=CHECKS)
        seen.append(answer.status_code)

    asks()
    return seen


def test_every_operation_is_walked(schema):
    found = [f"{result.ok().method.upper()} {result.ok().path}" for result in schema.get_all_operations()]
    assert sorted(found) == sorted(OPERATIONS)


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_few_requests_of_every_kind(server, schema, name):
    assert walk(server, schema, name, 5)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATIONS)
def test_many_requests_of_every_kind(server, schema, name):
    seen = walk(server, schema, name, 200)
    assert min(seen) < 300
