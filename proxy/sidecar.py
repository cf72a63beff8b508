"""One running Bursar: makes every part once, starts them in order, and stops them so that nothing is lost."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from accounting.charge import Receipt, Till
from accounting.journal.recovery import Recovery
from accounting.journal.writer import FileJournal
from accounting.ledger import Ledger
from accounting.reading import Reader
from accounting.store.errors import StoreError, StoreSettingsError
from accounting.stored import Stored, StoredConfig
from accounting.supervisor import Supervisor
from adapters.transport.options import TransportOptions, shrink_tls_buffers
from proxy.admin import admin_routes
from proxy.attempts import Trier
from proxy.building import build_prices, build_rules, build_upstreams
from proxy.builtin import BuiltInProviders
from proxy.cache import AnswerCache
from proxy.callbacks import CallbackFeed, budget_alerts, fed
from proxy.config.environment import CallDefaults
from proxy.config.model import Config, spread_of
from proxy.edge import EdgeServer
from proxy.fitness import Fitness
from proxy.gateway import Gateway
from proxy.gauges import Gauges
from proxy.health import Health
from proxy.latency import Latencies
from proxy.listening import Listeners, ops_server
from proxy.ops import Ops
from proxy.places import Places
from proxy.reaching import Files, Transports, credentials_for, open_store
from proxy.retrying import RetryBudget
from proxy.routes import Routes
from proxy.telemetry import Telemetry
from proxy.upstreams import Upstreams
from proxy.watching import changes

POLL_S = 2.0
INTERRUPT_S = 2.0
STORE_START_S = 5.0
_log = logging.getLogger("bursar")


class Sidecar:
    """`start`, then `url` and `ops_url` answer (a port of 0 is filled in); `stop` drains.

    `environ` is where cloud credentials are looked for that the configuration leaves out.
    """

    def __init__(
        self,
        config: Config,
        environ: Mapping[str, str] | None = None,
        *,
        defaults: CallDefaults | None = None,
        fake_pace: float = 0,
        reuse_port: bool = False,  # other workers listen on the data port, too
    ) -> None:
        self.config = config
        self.defaults = defaults or CallDefaults()
        self.supervisor = Supervisor()
        self.store, self.embedded = open_store(config)
        self.journal = FileJournal(Path(config.store.data_dir) / "journal", os.urandom(16).hex())
        self.ledger = Ledger(
            self.store, supervisor=self.supervisor, journal=self.journal, embedded=self.embedded is not None,
            sid=self.journal.sid,
        )  # fmt: skip
        self.recovery = Recovery(self.journal, self.ledger.settler)
        self.ledger.recover = self.recovery.replay
        self.stored = StoredConfig(self.store)
        self.reader = Reader(self.store)
        self.telemetry = Telemetry(_models(config))
        self.health, self._latencies = Health(), Latencies()
        self.feed = CallbackFeed(self.telemetry.registry)
        self._transports = Transports()
        self.url = self.ops_url = ""
        self._receipts: list[Receipt] = []  # of calls that were settled in this turn of the loop
        self.drain_asked = asyncio.Event()  # whoever runs the sidecar then calls `stop`
        self.routes: Routes
        self._prices = build_prices(config)
        self._environ = environ or {}
        self._fakes = BuiltInProviders(fake_pace)
        self._reuse_port = reuse_port
        self._upstreams: Upstreams = {}
        self._files = Files()
        self._stored: Stored | None = None
        self._listeners = Listeners()
        self._background: list[asyncio.Task[None]] = []
        self._reloading = asyncio.Lock()

    async def start(self) -> None:
        """Start everything; calls are answered when this returns. Raises StoreSettingsError and OSError (port in use).

        Whatever was opened until something failed is closed again.
        """
        try:
            shrink_tls_buffers()
            self.journal.open()
            await self._meet_store()
            await self._fakes.start(self.config)
            self._upstreams = self._connect(self.config)
            self.feed.retune(self.config.callbacks)
            gateway = self._gateway()
            self._watch_spending()
            await self._listen(gateway)
            self._background = [
                self.supervisor.spawn(self.ledger.heartbeat(), name="heartbeat"),
                self.supervisor.spawn(self._poll(), name="poll"),
                self.supervisor.spawn(self.recovery.run(), name="recovery"),
            ]
        except BaseException:
            await self._close()
            raise

    async def stop(self, drain_s: float | None = None) -> None:
        """Take no new calls, let those in flight end, settle everything, then close. Safe to call once."""
        if hasattr(self, "routes"):
            self.routes.draining = True
            places, limit_s = self.routes.places, self.config.server.drain_seconds if drain_s is None else drain_s
            if not await places.until_idle(limit_s):
                self.routes.gateway.interrupt()  # streams end with an event that says so
                await places.until_idle(INTERRUPT_S)
        await self._close()

    async def reload(self, version: str) -> None:
        """Bring the rules up to what is stored, if they are older than `version`."""
        async with self._reloading:
            if self.routes.gateway.rules.version == version:
                return
            self._stored = await self.stored.read()
            self._replace_rules()

    async def reload_file(self, source: str) -> None:
        """Read the file anew and put it in force whole; a bad one changes nothing and says so. Listeners stay as they are."""
        from proxy.config.load import load
        from proxy.config.problem import ConfigError

        try:
            config = (await asyncio.to_thread(load, source)).config
            await self._fakes.start(config)
            upstreams = self._connect(config)
            self.feed.retune(config.callbacks)
        except (ConfigError, ValueError, OSError) as error:
            _log.error("the new configuration is not usable, the old one stays: %s", error)
            return
        async with self._reloading:
            self.config, self._upstreams, self._prices = config, upstreams, build_prices(config)
            self.telemetry.models = frozenset(_models(config))
            self.routes.gateway.retune(config)
            self._replace_rules()
        _log.info("configuration reloaded")

    async def watch_file(self, source: str) -> None:
        """Reload whenever the file changes, as it does when a ConfigMap is mounted and updated."""
        async for _ in changes(source, POLL_S):
            await self.reload_file(source)

    def hurry(self) -> None:
        """Cut short a drain that is under way."""
        self.routes.places.hurry()

    def _connect(self, config: Config) -> Upstreams:
        """Return the configured providers, on the transports that are already open where the settings are the same."""
        return build_upstreams(
            self._fakes.placed(config), self._transports.of, credentials_for(self._transports.tokens, self._environ)
        )

    def _replace_rules(self) -> None:
        rules = build_rules(self.config, self._stored, self._upstreams, self._prices, self._latencies)
        self.routes.gateway.rules = rules
        self.ledger.config_version = rules.version

    def _gateway(self) -> Gateway:
        """Return what every call meets, with the rules that are in force now."""
        config = self.config
        rules = build_rules(config, self._stored, self._upstreams, self._prices, self._latencies)
        self.ledger.config_version = rules.version
        trier = Trier(
            tries=config.retries.attempts, retries=RetryBudget(config.retries.budget), fetch=self._files.fetch,
            on_failure=self.telemetry.attempt_failed, health=self.health, latencies=self._latencies,
        )  # fmt: skip
        return Gateway(
            rules=rules,
            till=Till(ledger=self.ledger, supervisor=self.supervisor, on_receipt=self._receipt),
            trier=fed(trier, self.feed),
            supervisor=self.supervisor,
            server=config.server,
            timeouts=config.timeouts,
            defaults=self.defaults,
            version=self.stored.version,
            telemetry=self.telemetry,
            reload=self.reload,
            cache=AnswerCache(self.store, config.cache),
        )

    def _watch_spending(self) -> None:
        """Hear of what is settled: alerts at soft thresholds, and calls that used more than they held."""
        self.ledger.on_overspent = self.telemetry.overspent
        self.ledger.on_settled = budget_alerts(
            self.ledger, self.reader, self.supervisor, alerts=lambda: self.config.alerts,
            transport=lambda: self._transports.of(TransportOptions()),
        ).settled  # fmt: skip

    async def _listen(self, gateway: Gateway) -> None:
        """Open both listeners. Raises OSError."""
        config, server = self.config, self.config.server
        places = Places(most=server.max_in_flight, queue=server.queue, queue_s=server.queue_seconds)
        self.telemetry.in_flight = lambda: places.taken
        self.routes = Routes(gateway=gateway, reader=self.reader, places=places, telemetry=self.telemetry)
        data = EdgeServer(
            self.routes.handle, max_body_bytes=server.max_body_bytes, header_s=server.header_seconds, max_connections=server.max_connections,
            stall_s=config.timeouts.write_stall_s, open_to_all=config.auth.mode == "none",
        )  # fmt: skip
        self.url = await self._listeners.open(config.listen, data, reuse_port=self._reuse_port)
        ops = ops_server(self._ops(gateway).handle, header_s=server.header_seconds)
        self.ops_url = await self._listeners.open(config.ops.listen, ops)

    def _ops(self, gateway: Gateway) -> Ops:
        """Return what the ops listener serves."""
        registry = self.telemetry.registry
        gauges = Gauges(
            registry, store=self.store, ledger=self.ledger, reader=self.reader,
            budgets=lambda: gateway.rules.admitter.book.all(), journal=self.journal,
        )  # fmt: skip
        fitness = Fitness(registry, self.health, lambda: self._upstreams)

        async def collect() -> None:
            fitness.collect()
            await gauges.collect()

        return Ops(
            registry=registry, ready=self._not_ready, collect=collect,
            admin_token=self.config.ops.admin_token.reveal(), details=fitness.details, admin=admin_routes(self),
        )  # fmt: skip

    async def _close(self) -> None:
        """Close whatever is open, from the outside in; all of it, also where closing a part fails."""
        async with contextlib.AsyncExitStack() as parts:  # the last that is pushed is closed first
            if self.embedded is not None:
                parts.push_async_callback(self.embedded.stop)
            parts.push_async_callback(self.store.close)
            parts.push_async_callback(self._fakes.stop)
            parts.push_async_callback(self._files.close)
            parts.callback(self.journal.close)
            parts.callback(self.recovery.release)
            parts.push_async_callback(self._transports.close)
            parts.push_async_callback(self.feed.runner.close)
            parts.push_async_callback(self._end_tasks)
            parts.push_async_callback(self._listeners.close)

    async def _end_tasks(self) -> None:
        for task in self._background:
            task.cancel()
        self.ledger.give_up_escrows()
        left = await self.supervisor.drain(5.0)  # some of them settle calls
        await self.ledger.settler.heard()
        left += await self.supervisor.drain(1.0)  # what was not answered is sent again
        if left:
            _log.warning("%d background tasks did not end in time", left)

    async def _meet_store(self) -> None:
        """Connect if the store is there; if not, start all the same: each budget has its own policy for that."""
        self.store.hard = any(budget.mode == "hard" for budget in self.config.budgets)
        self.store.on_latency = self.telemetry.store_latency.note
        try:
            await self.ledger.start(STORE_START_S)
            self._stored = await self.stored.read()
        except StoreError as error:
            if self.embedded is not None or isinstance(error, StoreSettingsError):
                raise
            _log.warning("the store cannot be reached yet: %s", error)
        for warning in self.store.warnings:
            _log.warning("%s", warning)

    async def _poll(self) -> None:
        """See changes of what is stored, also when no call comes that would notice."""
        while True:
            await asyncio.sleep(POLL_S)
            self.telemetry.fold()
            with contextlib.suppress(StoreError):
                await self.reload(await self.stored.version())

    def _not_ready(self) -> dict[str, str]:
        missing = {}
        if not self.store.up:
            missing["store"] = "the budget store cannot be reached"
        elif self.ledger.learning:
            missing["store"] = "the budget store is being told what was held"
        if self.journal.fault is not None:
            missing["journal"] = self.journal.fault
        if self.routes.draining:
            missing["drain"] = "shutting down"
        return missing

    def _receipt(self, receipt: Receipt) -> None:
        """Take note of a settled call; it is told when its answer has left."""
        if not self._receipts:
            asyncio.get_running_loop().call_soon(self._tell_receipts)
        self._receipts.append(receipt)

    def _tell_receipts(self) -> None:
        receipts, self._receipts = self._receipts, []
        for receipt in receipts:
            self.telemetry.receipt(receipt)
            self.feed.receipt(receipt)


def _models(config: Config) -> set[str]:
    return {target.to.partition("/")[2] for entry in config.models.values() for target in spread_of(entry).targets}
