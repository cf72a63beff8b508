"""Who is measured, and how each is installed, started and asked: its defaults, one process, one core, one provider.

Nothing is installed into the project: each peer has a folder below the user's cache. A peer that is not there says why.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.upstream import MODEL

ROOT = Path(__file__).parents[2]
KEY = "sk-bench-0123456789abcdef0123456789abcdef"
_INSTALL_S = 600


class MissingError(Exception):
    """A peer cannot be measured here; the text says why."""


@dataclass(frozen=True, slots=True)
class Provider:
    """Where the benchmark's provider listens."""

    port: int
    tls_port: int | None
    ca_file: str | None


@dataclass(slots=True, kw_only=True)
class Launch:
    """What to run, and how it is asked. `port` is where it will listen."""

    command: list[str]
    port: int
    path: str = "/v1/chat/completions"
    model: str = MODEL
    headers: dict[str, str] = field(default_factory=lambda: {"authorization": f"Bearer {KEY}"})
    environ: dict[str, str] = field(default_factory=dict)
    apart: tuple[str, ...] = ()  # programs of its tree that run on the other core and are counted apart


class Peer(ABC):
    """One row of the table."""

    name = ""
    what = ""

    def prepare(self, cache: Path, *, install: bool) -> None:  # noqa: B027 - most need nothing
        """Have it installed. Raises MissingError."""

    @abstractmethod
    def launch(self, cache: Path, work: Path, port: int, provider: Provider) -> Launch:
        """Write its configuration into `work`; return what to run."""

    @abstractmethod
    def version(self, cache: Path) -> str:
        """Return its version."""


class Bursar(Peer):
    """This project, with three hard budgets (money, tokens, requests) and a rate limit on every call."""

    name = "bursar"
    what = "hard budgets on"

    def launch(self, cache: Path, work: Path, port: int, provider: Provider) -> Launch:
        config = work / "bursar.yaml"
        config.write_text(f"""
listen: 127.0.0.1:{port}
ops: {{listen: "127.0.0.1:0"}}
store: {{url: embedded, data_dir: "{work}/data"}}
providers: {{bench: {{kind: openai, {self._provider(provider)}, api_keys: [sk-provider]}}}}
models: {{{MODEL}: bench/{MODEL}}}
keys: [{{id: bench, user: bench, team: bench, secret: "{KEY}"}}]
prices: {{"bench/*": {{input: 0.15, output: 0.6}}}}
budgets:
  - {{subject: "user:bench", usd: 1000000, period: month}}
  - {{subject: "team:bench", tokens: 1000000000000, period: day}}
  - {{subject: "key:bench", requests: 1000000000, period: hour}}
limits:
  - {{subject: "key:*", rpm: 100000000}}
""")
        command = [sys.executable, "-m", "proxy", "serve", "-c", str(config)]
        return Launch(command=command, port=port, apart=("valkey-server", "redis-server"))

    def version(self, cache: Path) -> str:
        commit = _output("git", "-C", str(ROOT), "describe", "--always", "--dirty")
        return f"{_output(sys.executable, '-m', 'proxy', '--version')} {commit}, Python {platform.python_version()}".strip()

    def _provider(self, provider: Provider) -> str:
        return f'base_url: "http://127.0.0.1:{provider.port}/v1"'


class BursarTls(Bursar):
    """The same, with TLS to the provider, as in production."""

    name = "bursar-tls"
    what = "hard budgets on, TLS to the provider"

    def _provider(self, provider: Provider) -> str:
        if provider.tls_port is None:
            raise MissingError("the provider has no TLS port")
        return f'base_url: "https://127.0.0.1:{provider.tls_port}/v1", ca_file: "{provider.ca_file}"'


class Nginx(Peer):
    """The floor: a plain proxy with kept connections that knows nothing of models or money."""

    name = "nginx"
    what = "plain proxy, no budgets"

    def prepare(self, cache: Path, *, install: bool) -> None:
        if self._binary(cache) is None and install and shutil.which("apt-get") and shutil.which("dpkg"):
            folder = cache / "nginx"
            folder.mkdir(parents=True, exist_ok=True)
            _run(["apt-get", "download", "nginx"], cwd=folder)
            for package in folder.glob("nginx_*.deb"):
                _run(["dpkg", "-x", str(package), str(folder)], cwd=folder)
        if self._binary(cache) is None:
            raise MissingError("nginx is not on the PATH, and the system's packages do not have it")

    def launch(self, cache: Path, work: Path, port: int, provider: Provider) -> Launch:
        config = work / "nginx.conf"
        config.write_text(f"""
daemon off; worker_processes 1; pid {work}/nginx.pid; error_log stderr;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {work}/body; proxy_temp_path {work}/proxy; fastcgi_temp_path {work}/f; uwsgi_temp_path {work}/u; scgi_temp_path {work}/s;
  upstream provider {{ server 127.0.0.1:{provider.port}; keepalive 256; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024; keepalive_requests 1000000000;
    location / {{ proxy_pass http://provider; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }}
  }}
}}
""")
        return Launch(command=[str(self._binary(cache)), "-c", str(config), "-p", str(work)], port=port)

    def version(self, cache: Path) -> str:
        return _output(str(self._binary(cache)), "-v").removeprefix("nginx version: ")

    @staticmethod
    def _binary(cache: Path) -> str | None:
        own = cache / "nginx/usr/sbin/nginx"
        return shutil.which("nginx") or (str(own) if own.exists() else None)


class LiteLlm(Peer):
    """LiteLLM's proxy as its quick start has it: one worker, no database, no budgets."""

    name = "litellm"
    what = "no budgets (they want Postgres)"

    def prepare(self, cache: Path, *, install: bool) -> None:
        if not self._bin(cache, "litellm").exists():
            if not install:
                raise MissingError("not installed yet, and --no-install was given")
            _run([sys.executable, "-m", "venv", str(cache / "litellm")])
            _run([str(self._bin(cache, "python")), "-m", "pip", "install", "-q", "litellm[proxy]"])

    def launch(self, cache: Path, work: Path, port: int, provider: Provider) -> Launch:
        config = work / "litellm.yaml"
        target = {
            "model": f"openai/{MODEL}",
            "api_base": f"http://127.0.0.1:{provider.port}/v1",
            "api_key": "sk-provider",
        }
        config.write_text(json.dumps({"model_list": [{"model_name": MODEL, "litellm_params": target}]}))
        command = [
            str(self._bin(cache, "litellm")),
            "--config",
            str(config),
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ]
        environ = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False", "LITELLM_MASTER_KEY": KEY}
        return Launch(command=command, port=port, environ=environ)

    def version(self, cache: Path) -> str:
        code = "import sys, importlib.metadata as m; print(m.version('litellm') + ', Python ' + sys.version.split()[0])"
        return _output(str(self._bin(cache, "python")), "-c", code)

    @staticmethod
    def _bin(cache: Path, name: str) -> Path:
        return cache / "litellm/bin" / name


class Portkey(Peer):
    """Portkey's open gateway on Node."""

    name = "portkey"
    what = "no budgets"

    def prepare(self, cache: Path, *, install: bool) -> None:
        if shutil.which("node") is None or shutil.which("npm") is None:
            raise MissingError("Node is not on the PATH")
        if not self._script(cache).exists():
            if not install:
                raise MissingError("not installed yet, and --no-install was given")
            # Newer servers make Portkey fail on each stream. Source: https://github.com/Portkey-AI/gateway/issues/1389
            wanted = {"dependencies": {"@portkey-ai/gateway": "latest"}, "overrides": {"@hono/node-server": "1.13.0"}}
            folder = cache / "portkey"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "package.json").write_text(json.dumps(wanted))
            _run(["npm", "install", "--silent"], cwd=folder)

    def launch(self, cache: Path, work: Path, port: int, provider: Provider) -> Launch:
        headers = {
            "authorization": "Bearer sk-provider", "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"http://127.0.0.1:{provider.port}/v1",
        }  # fmt: skip
        command = ["node", str(self._script(cache)), f"--port={port}", "--headless"]
        return Launch(command=command, port=port, headers=headers, environ={"NODE_ENV": "production"})

    def version(self, cache: Path) -> str:
        package = json.loads((self._script(cache).parents[1] / "package.json").read_text())
        return f"{package['version']}, Node {_output('node', '--version')}"

    @staticmethod
    def _script(cache: Path) -> Path:
        return cache / "portkey/node_modules/@portkey-ai/gateway/build/start-server.js"


class Bifrost(Peer):
    """Maxim's Bifrost, if its binary is on the PATH. Source: https://docs.getbifrost.ai/deployment-guides/config-json"""

    name = "bifrost"
    what = "no budgets"

    def prepare(self, cache: Path, *, install: bool) -> None:
        if shutil.which("bifrost-http") is None:
            raise MissingError("bifrost-http is not on the PATH")

    def launch(self, cache: Path, work: Path, port: int, provider: Provider) -> Launch:
        openai = {
            "keys": [{"name": "bench", "value": "sk-provider", "models": ["*"], "weight": 1.0}],
            "network_config": {"base_url": f"http://127.0.0.1:{provider.port}"},
        }
        config = {
            "client": {"enable_logging": False},
            "providers": {"openai": openai},
            "config_store": {"enabled": False},
        }
        (work / "config.json").write_text(json.dumps(config))
        command = [
            "bifrost-http",
            "-app-dir",
            str(work),
            "-port",
            str(port),
            "-host",
            "127.0.0.1",
            "-log-level",
            "error",
        ]
        return Launch(command=command, port=port, model=f"openai/{MODEL}")

    def version(self, cache: Path) -> str:
        return _output("bifrost-http", "-version") or "unknown"


def all_peers() -> list[Peer]:
    """Return everyone, Bursar first."""
    return [Bursar(), BursarTls(), Nginx(), LiteLlm(), Portkey(), Bifrost()]


def cache_dir() -> Path:
    """Return the folder for what is installed: outside the project, kept from run to run."""
    base = (
        os.environ.get("BURSAR_BENCH_CACHE")
        or f"{os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'}/bursar-bench"
    )
    folder = Path(base)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _run(command: list[str], cwd: Path | None = None) -> None:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=_INSTALL_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingError(f"could not be installed: {type(error).__name__}") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        raise MissingError(f"could not be installed: {lines[-1][:200]}")


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    text = (done.stdout or done.stderr).strip()
    return text.splitlines()[0] if text and not done.returncode else ""
