"""The HTTP interface: five addresses, their statuses, and the OpenAPI document that tells them."""

from __future__ import annotations

import hmac
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse
from pydantic.json_schema import models_json_schema
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from stepcoder import __version__
from stepcoder.problems.problem import Test
from stepcoder.sandbox import wire
from stepcoder.sandbox.service import body
from stepcoder.sandbox.service.intake import Intake
from stepcoder.sandbox.service.metrics import CONTENT_TYPE
from stepcoder.sandbox.service.models import Alive, Fault, JudgeAnswer, JudgeRequest, Missing, Readiness
from stepcoder.sandbox.service.refusal import RefusalError, json_response
from stepcoder.sandbox.token import TOKEN_VARIABLE, token_from_environment

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
SCHEMAS = "#/components/schemas/"
RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}}}

_UNAUTHORIZED: dict[int | str, dict[str, Any]] = {
    401: {"model": Fault, "description": "The token is missing or wrong"},
}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    **_UNAUTHORIZED,
    408: {"model": Fault, "description": "The body did not come in time"},
    409: {"model": Missing, "description": "Jobs name test lists that the server does not have: send them"},
    413: {"model": Fault, "description": "The body is too large"},
    415: {"model": Fault, "description": "The content type is not application/json"},
    422: {"model": Fault, "description": "The request is not valid; each place at fault is named"},
    429: {"model": Fault, "description": "Too many jobs are waiting", "headers": RETRY_AFTER},
    503: {"model": Fault, "description": "Not ready, or stopping", "headers": RETRY_AFTER},
}


def build_app(intake: Intake) -> FastAPI:
    """The application.

    Raises:
        DataError: the token in the environment cannot be used.
    """
    token = token_from_environment()
    # No pages of documentation: they load scripts from elsewhere.
    app = FastAPI(title="StepCoder sandbox", version=__version__, docs_url=None, redoc_url=None)
    app.openapi = lambda: _document(app, bool(token))  # type: ignore[method-assign]
    if token:
        app.add_middleware(_TokenGuard, token=token, intake=intake)

    @app.exception_handler(RefusalError)
    async def refused(request: Request, refusal: RefusalError) -> Response:
        if request.url.path not in OPEN_PATHS:
            intake.metrics.rejected(refusal.status)
        return refusal.response()

    @app.get("/healthz", response_model=Alive, summary="Whether the process answers")
    async def healthz() -> Response:
        return json_response({"status": "alive"})

    @app.get(
        "/readyz",
        response_model=Readiness,
        responses={503: {"model": Readiness, "description": "Not ready, or stopping"}},
        summary="Whether programs can be judged now",
    )
    async def readyz() -> Response:
        test = intake.self_test
        state = "draining" if intake.draining else test.state
        answer = Readiness(
            state=state, detail=test.detail, lacking=list(test.lacking), slots=intake.slots, version=__version__
        )
        return json_response(answer.model_dump(), 200 if state == "ready" else 503)

    @app.get(
        "/metrics",
        response_class=PlainTextResponse,
        responses=_UNAUTHORIZED,
        summary="Figures for Prometheus",
    )
    async def metrics() -> Response:
        return Response(intake.metrics.text(), headers={"content-type": CONTENT_TYPE})

    @app.post(
        "/v1/judge",
        response_model=JudgeAnswer,
        responses=_REFUSALS,
        summary="Judge programs",
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": {"$ref": f"{SCHEMAS}{JudgeRequest.__name__}"}}},
            }
        },
    )
    async def judge(request: Request) -> Response:
        intake.admit()
        with intake.reading(body.size_of(request, intake.config)):
            message, sizes = body.parse(await body.read(request, intake.config), intake.config)
        with intake.taking():
            lists = {digest: _kept(intake, digest, message.tests[digest], size) for digest, size in sizes.items()}
            missing: dict[str, None] = {}
            for digest in dict.fromkeys(job.tests for job in message.jobs if job.tests not in lists):
                if (known := intake.tests.get(digest)) is None:
                    missing[digest] = None
                else:
                    lists[digest] = known
            if missing:
                raise RefusalError(409, "the server does not have these tests: send them", missing=list(missing))
            verdicts = await intake.judge([body.job_of_message(job, lists[job.tests]) for job in message.jobs])
            return json_response({"verdicts": [wire.verdict_to_data(verdict) for verdict in verdicts]})

    return app


def _kept(intake: Intake, digest: str, tests: tuple[Test, ...], size: int) -> tuple[Test, ...]:
    """A list that a request has brought, or the equal one that is kept already."""
    known = intake.tests.get(digest)
    if known is None:
        intake.tests.put(digest, known := tests, size)
    return known


class _TokenGuard:
    """Lets nobody in without the token, except to ask for health."""

    def __init__(self, app: ASGIApp, token: str, intake: Intake) -> None:
        self._app = app
        self._expected = b"Bearer " + token.encode()
        self._intake = intake

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
            if not hmac.compare_digest(given, self._expected):
                self._intake.metrics.rejected(401)
                refusal = RefusalError(
                    401,
                    f"the token is missing or wrong: set {TOKEN_VARIABLE} to the one of this service",
                    headers={"WWW-Authenticate": "Bearer"},
                )
                await refusal.response()(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _document(app: FastAPI, guarded: bool) -> dict[str, Any]:
    """The OpenAPI document: what FastAPI knows, and the request's body, which is read by hand."""
    if app.openapi_schema is None:
        document = FastAPI.openapi(app)
        _, schemas = models_json_schema([(JudgeRequest, "validation")], ref_template=SCHEMAS + "{model}")
        components = document.setdefault("components", {})
        components.setdefault("schemas", {}).update(schemas["$defs"])
        if guarded:
            components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            for path, operations in document["paths"].items():
                if path not in OPEN_PATHS:
                    for operation in operations.values():
                        operation["security"] = [{"token": []}]
        app.openapi_schema = document
    return app.openapi_schema
