"""The data listener's routes: from method and path to what serves them. Everything else is an error in OpenAI's shape."""

import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import unquote

import orjson

from accounting.reading import Reader
from accounting.store.errors import StoreError
from adapters.base import Operation
from proxy.amounts import budget_row
from proxy.auth import end_user
from proxy.errors import ClientError, method_not_allowed, model_not_found, unavailable, unknown_url
from proxy.gateway import Gateway
from proxy.passthrough import relay
from proxy.paths import Path
from proxy.places import Places
from proxy.principal import Principal
from proxy.serving.request import Request
from proxy.serving.response import Answer, Response
from proxy.telemetry import Telemetry

CALLS: dict[str, Operation] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/embeddings": "embeddings",
    "/v1/responses": "responses",
}
_ID_BYTES = 12
_STARTED = int(time.time())  # noqa: TID251 - `created` of a model is wall time
_log = logging.getLogger("bursar")


@dataclass(slots=True, kw_only=True)
class Routes:
    """Serves the data listener."""

    gateway: Gateway
    reader: Reader
    places: Places
    telemetry: Telemetry
    draining: bool = False
    _ids: Iterator[str] = field(default_factory=lambda: request_ids())

    async def handle(self, request: Request) -> Answer:
        """Answer one request; every ClientError becomes its answer here, and nowhere else."""
        request_id = next(self._ids)
        try:
            path = request.path.rstrip("/") or "/"
            operation = CALLS.get(path)
            if operation is None:
                return await self._dispatch(request, path, request_id)
            if request.method != "POST":
                raise method_not_allowed(request.method, "POST")
            if not request.complete:
                await self._received(request)
            self._go_on()
            await self.places.take()
            try:
                return await self.gateway.call(request, operation, request_id)
            finally:
                self.places.give()
        except ClientError as error:
            return self._refused(error, request_id)

    def _refused(self, error: ClientError, request_id: str) -> Response:
        self.telemetry.refused(error, request_id)
        headers = {**error.headers, "x-request-id": error.headers.get("x-request-id", request_id)}
        if error.close or self.draining:
            headers["connection"] = "close"
        return Response(
            status=error.status,
            body=error.body(),
            headers=headers,
            content_type="application/json",
            close=error.close,
        )

    async def _dispatch(self, request: Request, path: str, request_id: str) -> Answer:
        """Serve what is no call."""
        serve = (
            self._model
            if path.startswith("/v1/models/")
            else {"/v1/models": self._models, "/v1/budget": self._budget}.get(path)
        )
        if serve is None:
            return await self._other(request, path, request_id)
        if request.method not in ("GET", "HEAD"):
            raise method_not_allowed(request.method, "GET")
        body = await serve(request, await self._caller(request))
        return Response(body=orjson.dumps(body), content_type="application/json", headers={"x-request-id": request_id})

    async def _received(self, request: Request) -> None:
        """Wait for the rest of the body before a place is taken, so that a slow client holds none; not for a stranger's."""
        self._go_on()
        await self.gateway.admit(request.headers)
        await self.gateway.body(request)  # the request keeps it

    async def _caller(self, request: Request, *, ask_store: bool = True) -> Principal:
        """Who asks, and for which of its end users if a header says so."""
        _, principal = await self.gateway.admit(request.headers, ask_store=ask_store)
        named = (principal.user_from or "").startswith("header:")
        return end_user(principal, request.headers, {}) if named else principal

    async def _other(self, request: Request, path: str, request_id: str) -> Answer:
        """Serve a path that is listed under `passthrough`."""
        paths = self.gateway.rules.paths
        if not paths.covers(path):
            raise unknown_url(request.method, path)
        await self._listed(request, path, ask_store=False)  # so that a stranger's body is not waited for
        if not request.complete:
            await self._received(request)
        self._go_on()
        await self.places.take()
        try:
            return await relay(self.gateway, request, partial(self._listed, request, path), request_id)
        finally:
            self.places.give()

    async def _listed(self, request: Request, path: str, *, ask_store: bool = True) -> tuple[Path, Principal]:
        """Return the entry that covers the path for this caller, and the caller. Raises ClientError."""
        principal = await self._caller(request, ask_store=ask_store)
        listed = self.gateway.rules.paths.find(path, principal)
        if listed is None:
            raise unknown_url(request.method, path)
        return listed, principal

    def _go_on(self) -> None:
        """Raise ClientError 503 if no call is begun any more."""
        if self.draining:
            raise unavailable("This Bursar is shutting down.", code="draining", close=True)

    async def _models(self, request: Request, principal: Principal) -> dict[str, object]:
        names = [name for name in self.gateway.rules.router.names() if principal.may_use(name)]
        return {"object": "list", "data": [self._model_row(name) for name in names]}

    async def _model(self, request: Request, principal: Principal) -> dict[str, object]:
        name = unquote(request.raw_path.removeprefix("/v1/models/"))
        if not principal.may_use(name) or not self.gateway.rules.router.providers(name):
            raise model_not_found(name)
        return self._model_row(name)

    def _model_row(self, name: str) -> dict[str, object]:
        providers = self.gateway.rules.router.providers(name)
        return {"id": name, "object": "model", "created": _STARTED, "owned_by": providers[0] if providers else "bursar"}

    async def _budget(self, request: Request, principal: Principal) -> dict[str, object]:
        rules = self.gateway.rules
        budgets = rules.admitter.budgets(principal.caller, ())
        try:
            balances = await self.reader.balances(budgets, self.gateway.till.ledger.now_ms())
        except StoreError as error:
            raise unavailable("The budget store cannot be reached.", code="budget_store_unavailable") from error
        return {"object": "list", "data": [budget_row(balance.row) for balance in balances]}


def request_ids() -> Iterator[str]:
    """Ids that no other process makes; what is random in them is asked of the system for many at once."""
    while True:
        random = os.urandom(64 * _ID_BYTES).hex()
        for start in range(0, len(random), 2 * _ID_BYTES):
            yield "req_" + random[start : start + 2 * _ID_BYTES]
