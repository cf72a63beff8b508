"""The admin listener's routes: what the commands do, over HTTP, for whoever has the token. JSON in, JSON out.

Every change goes through the store, as a command's does, so that all proxies see it; it is audited as made by `admin`.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import orjson

from accounting.spending import FILTERS, GROUPS
from accounting.store.errors import StoreError
from proxy import spelled
from proxy.config.policy import AMOUNT_UNITS
from proxy.errors import ClientError, bad_body, unavailable
from proxy.ops import Admin
from proxy.reporting import report
from proxy.serving.request import Request
from proxy.stored_budgets import BudgetDesk, budgets_of, subject_of
from proxy.stored_keys import Desk, UnfitError

if TYPE_CHECKING:
    from proxy.sidecar import Sidecar

BY = "admin"
_ADJUST = ("subject", "unit", "change", "reason", "period")


def admin_routes(sidecar: "Sidecar") -> Mapping[tuple[str, str], Admin]:
    """Return what serves each (method, path below /admin/v1/)."""
    desk = _AdminDesk(sidecar)
    serving: dict[tuple[str, str], Callable[[Request], Awaitable[Any]]] = {
        ("POST", "drain"): desk.drain,
        ("GET", "budgets"): desk.budgets,
        ("PUT", "budgets"): desk.put_budget,
        ("DELETE", "budgets"): desk.remove_budget,
        ("POST", "budgets/adjust"): desk.adjust,
        ("GET", "keys"): desk.keys,
        ("POST", "keys"): desk.create_key,
        ("DELETE", "keys"): desk.revoke_key,
        ("GET", "usage"): desk.usage,
    }
    return {place: _guarded(serve) for place, serve in serving.items()}


def _guarded(serve: Admin) -> Admin:
    """Answer what cannot be as a client's error, and a store that is away as 503."""

    async def guarded(request: Request) -> Any:
        try:
            return await serve(request)
        except UnfitError as error:
            raise ClientError(409 if error.there else 400, str(error)) from error
        except ValueError as error:
            raise bad_body(str(error)) from error
        except StoreError as error:
            raise unavailable("The budget store cannot be reached.", code="budget_store_unavailable") from error

    return guarded


class _AdminDesk:
    """Serves one sidecar. Its configuration is read anew each time: the file may have been reloaded."""

    def __init__(self, sidecar: "Sidecar") -> None:
        self._sidecar = sidecar

    async def drain(self, request: Request) -> Any:
        """POST drain: take no new calls, finish those in flight, end."""
        del request
        self._sidecar.routes.draining = True
        self._sidecar.drain_asked.set()
        return {"status": "draining"}

    async def budgets(self, request: Request) -> Any:
        """GET budgets[?subject=]: all in force, or those of a subject."""
        subject = request.query.get("subject")
        rows = await self._budget_desk.rows(subject_of(subject) if subject else None, self._now_ms())
        return {"object": "list", "data": rows}

    async def put_budget(self, request: Request) -> Any:
        """PUT budgets with a budget as the file spells it."""
        text = (await _object(request))[1]
        written = await self._budget_desk.put(budgets_of(text, self._sidecar.config), self._now_ms())
        return {"object": "list", "data": await self._budget_desk.rows(written[0].subject, self._now_ms())}

    async def remove_budget(self, request: Request) -> Any:
        """DELETE budgets?subject=[&unit=][&period=]."""
        unit = request.query.get("unit")
        gone = await self._budget_desk.remove(
            subject_of(_asked(request, "subject")), [unit] if unit else [], request.query.get("period"), self._now_ms()
        )
        return {"removed": [budget.id for budget in gone]}

    async def adjust(self, request: Request) -> Any:
        """POST budgets/adjust {subject, unit, change, reason[, period]}; the change is text: "-0.50"."""
        body, _ = await _object(request)
        given = _texts(body, _ADJUST)
        unit = given.get("unit", "")
        if unit not in AMOUNT_UNITS:
            raise bad_body(f"unit wants one of {', '.join(AMOUNT_UNITS)}", "unit")
        subject, change = subject_of(given.get("subject", "")), spelled.change(unit, given.get("change", ""))
        done = await self._budget_desk.adjust(
            subject, unit, change, reason=given.get("reason", ""), period=given.get("period"), now_ms=self._now_ms()
        )
        return {"budget": done["budget"].id, "before": done["before"], "after": done["after"]}

    async def keys(self, request: Request) -> Any:
        """GET keys: all, without secrets."""
        del request
        return {"object": "list", "data": await self._key_desk.list(self._now_ms())}

    async def create_key(self, request: Request) -> Any:
        """POST keys {id, user, team, org, tags, models, user_from, expires}: the secret is in this answer only."""
        body, _ = await _object(request)
        expires = body.pop("expires", "never")
        if not isinstance(expires, str):
            raise bad_body("expires wants 30d, 2027-01-01 or never", "expires")
        expires_ms = spelled.expiry_ms(expires, self._now_ms())
        key, secret = await self._key_desk.create(body, expires_ms=expires_ms, now_ms=self._now_ms())
        return {"id": key.id, "secret": secret}

    async def revoke_key(self, request: Request) -> Any:
        """DELETE keys?id=: end a key."""
        key = await self._key_desk.revoke(_asked(request, "id"), now_ms=self._now_ms())
        return {"id": key.id, "state": "revoked"}

    async def usage(self, request: Request) -> Any:
        """GET usage?since=24h&by=user[&user=…]."""
        now_ms = self._now_ms()
        by = request.query.get("by", "model")
        if by not in GROUPS:
            raise bad_body(f"by wants one of {', '.join(GROUPS)}", "by")
        since_ms = spelled.since_ms(request.query.get("since", "today"), now_ms)
        only = {name: request.query[name] for name in FILTERS if name in request.query}
        found = await report(self._sidecar.store, since_ms=since_ms, now_ms=now_ms, by=by, only=only)
        return found.as_json()

    @property
    def _key_desk(self) -> Desk:
        return Desk(stored=self._sidecar.stored, config=self._sidecar.config, by=BY)

    @property
    def _budget_desk(self) -> BudgetDesk:
        return BudgetDesk(store=self._sidecar.store, config=self._sidecar.config, by=BY)

    def _now_ms(self) -> int:
        return self._sidecar.ledger.now_ms()


async def _object(request: Request) -> tuple[dict[str, Any], str]:
    """Return the body as an object, and as its text, in which amounts are still exact. Raises ClientError."""
    try:
        text = (await request.read()).decode()
        body = orjson.loads(text)
    except ValueError as error:
        raise bad_body("The body must be a JSON object.") from error
    if not isinstance(body, dict):
        raise bad_body("The body must be a JSON object.")
    return body, text


def _texts(body: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, str]:
    for name, value in body.items():
        if name not in names or not isinstance(value, str):
            raise bad_body(f"{name[:40]}: the fields are {', '.join(names)}, all texts", name[:40])
    return dict(body)


def _asked(request: Request, name: str) -> str:
    value = request.query.get(name)
    if not value:
        raise bad_body(f"Name it in the query: ?{name}=…", name)
    return value
