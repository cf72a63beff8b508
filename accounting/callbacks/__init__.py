"""Hears of every call: handlers for its start, its end and its failure, and what runs them so that the call never waits.

A stranger would get wrong: nothing here is on a call's way. `CallbackRunner` is told and returns at once; each kind of
handler has a thread and an event loop of its own, so one that raises, hangs or blocks is alone with it. Hence a handler
makes its sessions and connections inside of its methods, on the loop that it finds there.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accounting.callbacks.alerts import BudgetAlerts, CostAlertCallbackHandler, Marks
    from accounting.callbacks.audit import AuditLogCallbackHandler
    from accounting.callbacks.composite import CallbackResult, CompositeCallbackHandler
    from accounting.callbacks.create import (
        create_composite_callback,
        create_detailed_token_callback,
        create_token_callback,
    )
    from accounting.callbacks.entry import Policy
    from accounting.callbacks.handler import CustomAsyncCallbackHandler
    from accounting.callbacks.metrics import CallbackMetrics, MetricsCallbackHandler
    from accounting.callbacks.performance import PerformanceCallbackHandler
    from accounting.callbacks.registry import load_callbacks
    from accounting.callbacks.runner import CallbackRunner
    from accounting.callbacks.tokens import DetailedRedisTokenCallbackHandler, RedisTokenCallbackHandler
    from accounting.callbacks.webhook import Webhook

_HOMES = {
    "AuditLogCallbackHandler": "audit",
    "BudgetAlerts": "alerts",
    "CallbackMetrics": "metrics",
    "CallbackResult": "composite",
    "CallbackRunner": "runner",
    "CompositeCallbackHandler": "composite",
    "CostAlertCallbackHandler": "alerts",
    "CustomAsyncCallbackHandler": "handler",
    "DetailedRedisTokenCallbackHandler": "tokens",
    "Marks": "alerts",
    "MetricsCallbackHandler": "metrics",
    "PerformanceCallbackHandler": "performance",
    "Policy": "entry",
    "RedisTokenCallbackHandler": "tokens",
    "Webhook": "webhook",
    "create_composite_callback": "create",
    "create_detailed_token_callback": "create",
    "create_token_callback": "create",
    "load_callbacks": "registry",
}

__all__ = [
    "AuditLogCallbackHandler",
    "BudgetAlerts",
    "CallbackMetrics",
    "CallbackResult",
    "CallbackRunner",
    "CompositeCallbackHandler",
    "CostAlertCallbackHandler",
    "CustomAsyncCallbackHandler",
    "DetailedRedisTokenCallbackHandler",
    "Marks",
    "MetricsCallbackHandler",
    "PerformanceCallbackHandler",
    "Policy",
    "RedisTokenCallbackHandler",
    "Webhook",
    "create_composite_callback",
    "create_detailed_token_callback",
    "create_token_callback",
    "load_callbacks",
]


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for: a proxy without callbacks pays for none of them."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
