"""`bursar record`: sends one real call to a configured provider, and writes the exchange to a file for tests. It costs what it costs.

The call goes past the budgets: it is for whoever has the providers' keys anyway.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from adapters.base import Call, UpstreamRequest
from adapters.credentials.base import Secret
from adapters.errors import AdapterError, UpstreamError
from proxy.building import build_upstreams
from proxy.builtin import BuiltInProviders
from proxy.cli.connected import CommandError, add_command, load_for_command, misuse, run_plain
from proxy.config.model import Config
from proxy.reaching import Files, Transports, credentials_for
from proxy.recording import Received, recorded_case
from proxy.upstreams import Upstream

BODY_BYTES_MAX = 64 * 2**20
PROMPT = "Say hello in one short sentence."
_EXAMPLE = """  bursar record --provider claude --model claude-haiku-4-5 --stream -o claude-stream.json
  bursar record --provider openai --model gpt-4o-mini --file request.json -o case.json
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `record` to the commands."""
    parser = add_command(subparsers, "record", "record one real call for tests", _EXAMPLE, json=False)
    parser.add_argument("--provider", metavar="NAME", required=True, help="its name in the configuration")
    parser.add_argument("--model", metavar="MODEL", required=True, help="the upstream model")
    parser.add_argument("--stream", action="store_true", help="ask for a stream")
    parser.add_argument("--file", metavar="FILE", help="the request, in OpenAI's form; one short message if not given")
    parser.add_argument(
        "-o", "--output", metavar="FILE", required=True, help="where the case is written; - is standard output"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Record; return 0, 1 (the call could not be made) or 2 (misuse)."""

    async def act() -> int:
        config = load_for_command(args.config).config
        if args.provider not in config.providers:
            raise misuse(
                f"--provider {args.provider} is not configured: there are {', '.join(config.providers) or 'none'}"
            )
        case = await record(config, args.provider, _request(args), args.model)
        _write(args.output, json.dumps(case, ensure_ascii=False, indent=1) + "\n")
        print(f"status {case['response']['status']}; look through it before you publish it", file=sys.stderr)
        return 0 if case["response"]["status"] < 400 else 1  # noqa: PLR2004

    return run_plain("record", act)


async def record(config: Config, provider: str, request: dict[str, Any], model: str) -> dict[str, Any]:
    """Make the call and return the case. Raises CommandError."""
    fakes, files, transports = BuiltInProviders(), Files(), Transports()
    try:
        await fakes.start(config)
        only = msgspec.structs.replace(config, providers={provider: config.providers[provider]})
        placed = fakes.placed(only)
        upstream = build_upstreams(placed, transports.of, credentials_for(transports.tokens, os.environ))[provider]
        return await _exchanged(
            upstream, files, request, model, list(secrets_of(msgspec.to_builtins(config.providers, enc_hook=_revealed)))
        )
    except AdapterError as error:
        raise CommandError(f"{provider}: {error.message}") from error
    finally:
        await transports.close()
        await files.close()
        await fakes.stop()


async def _exchanged(
    upstream: Upstream, files: Files, request: dict[str, Any], model: str, secrets: list[str]
) -> dict[str, Any]:
    raw = json.dumps(request).encode()
    call = Call(
        raw=raw, body=request, upstream_model=model, stream=bool(request.get("stream")), call_id="req_recorded",
        created=int(time.time()),
    )  # fmt: skip
    if wanted := upstream.adapter.wanted_media(call):
        media = {url: await files.fetch(url) for url in wanted}
        call = Call(
            raw=raw,
            body=request,
            upstream_model=model,
            stream=call.stream,
            call_id=call.call_id,
            created=call.created,
            media=media,
        )
    native = upstream.adapter.exchange(call).request
    sent = await upstream.credentials[0].apply(
        UpstreamRequest(
            method=native.method, url=native.url, headers=(*native.headers, *upstream.headers), body=native.body
        )
    )
    response = await upstream.transport.send(sent, upstream.timeouts)
    pieces = bytearray()
    try:
        while piece := await response.next_piece():
            pieces += piece
            if len(pieces) > BODY_BYTES_MAX:
                raise CommandError(f"the answer is larger than {BODY_BYTES_MAX} bytes: ask for less")
    except UpstreamError as error:  # what came is worth having: a stream that breaks off is a case too
        print(f"bursar record: the answer broke off: {error.message}", file=sys.stderr)
    finally:
        response.close()
    received = Received(status=response.status, headers=response.headers, body=bytes(pieces))
    name = upstream.endpoint.preset or upstream.endpoint.kind
    return recorded_case(
        upstream.endpoint.kind, name, request=request, native=native, received=received, secrets=secrets
    )


def secrets_of(value: object) -> Iterator[str]:
    """Yield every secret in a configuration whose secrets were marked by `_revealed`."""
    if isinstance(value, dict):
        if value.keys() == {_MARK}:
            yield value[_MARK]
            return
        for each in value.values():
            yield from secrets_of(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from secrets_of(each)


def _write(output: str, text: str) -> None:
    if output == "-":
        sys.stdout.write(text)
        return
    try:
        Path(output).write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{output} cannot be written ({error.strerror}): name another file") from error


_MARK = "\0secret"


def _revealed(value: object) -> dict[str, str]:
    if isinstance(value, Secret):
        return {_MARK: value.reveal()}
    raise TypeError(type(value).__name__)


def _request(args: argparse.Namespace) -> dict[str, Any]:
    request: dict[str, Any] = {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 64}
    if args.file:
        try:
            given: Any = json.loads(Path(args.file).read_bytes())
        except OSError as error:
            raise CommandError(f"{args.file} cannot be read ({error.strerror}): name another file") from error
        except ValueError as error:
            raise misuse(f"{args.file} is not JSON: give a request in OpenAI's form") from error
        if not isinstance(given, dict) or not isinstance(given.get("messages"), list):
            raise misuse(f"{args.file} is no chat request: it needs messages")
        request = given
    request = {**request, "model": args.model}
    if args.stream:
        request |= {"stream": True, "stream_options": {"include_usage": True}}
    return request
