"""The official openai Node SDK works unchanged, where Node and its registry can be had; where not, this says why."""

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.sidecars import KEY, KEYS, house

pytestmark = pytest.mark.slow
INSTALL_S = 90
SPENT = "sk-spent-0123456789abcdef0123456789"
TWO_KEYS = KEYS.replace("]\n", f', {{id: spent, user: bob, secret: "{SPENT}"}}]\n')
MORE = 'budgets: [{subject: "user:alice", usd: 5, period: day}, {subject: "user:bob", usd: 0, period: day}]\nretries: {attempts: 1}\n'


@pytest.fixture(scope="module")
def folder():
    """Where the SDK is installed; kept for the next time."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("node and npm are not installed")
    place = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bursar-tests" / "node-openai-7"
    if not (place / "node_modules" / "openai" / "package.json").is_file():
        place.mkdir(parents=True, exist_ok=True)
        (place / "package.json").write_text('{"private": true, "type": "module"}')
        command = ["npm", "install", "--no-audit", "--no-fund", "--no-progress", "--fetch-retries=0", "openai@^7"]
        try:
            subprocess.run(command, cwd=place, timeout=INSTALL_S, check=True, capture_output=True)
        except (subprocess.SubprocessError, OSError) as error:
            pytest.skip(f"the openai package cannot be installed: {type(error).__name__}")
    return place


async def test_the_node_sdk_works_unchanged(store, tmp_path, folder):
    async with house(store, tmp_path, keys=TWO_KEYS, more=MORE) as h:
        script = folder / "run.mjs"
        script.write_text((Path(__file__).parent / "sdk_node.mjs").read_text())
        environ = {**os.environ, "BASE_URL": h.url, "KEY": KEY, "SPENT_KEY": SPENT}
        process = await asyncio.create_subprocess_exec(
            "node", str(script), cwd=folder, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()[-3000:]
        seen = json.loads(out)
        assert seen["whole"]["finish"] == "stop"
        assert seen["whole"]["tokens"] == 12
        assert seen["whole"]["request"].startswith("req_")
        assert seen["stream"]["tokens"] == 12
        assert seen["stream"]["chunks"] == 15
        assert seen["tool"]["name"] == "get_weather"
        assert list(seen["tool"]["arguments"]) == ["city"]
        assert seen["image"] == "stop"
        assert (seen["embedding"], seen["response"], seen["slashes"]) == (8, 9, "org/with/slashes")
        assert seen["models"] == ["fake-1", "org/with/slashes"]
        assert [(e["name"], e["status"], e["code"]) for e in seen["errors"]] == [
            ("AuthenticationError", 401, "invalid_api_key"),
            ("BadRequestError", 400, None),
            ("NotFoundError", 404, "model_not_found"),
            ("InternalServerError", 500, None),
            ("InternalServerError", 502, "upstream_unavailable"),
            ("APIError", None, None),
        ]
        assert (seen["spent"]["name"], seen["spent"]["code"]) == ("RateLimitError", "insufficient_quota")
        assert h.sidecar.telemetry.refusals.labels("insufficient_quota")._value.get() == 1
        await h.fake.until(lambda: h.fake.cancelled == 1)
        await h.settled()
