"""The examples in the documents are run, as they stand, against the fake provider and a real store."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.clients import HOMES
from proxy.config.load import load_text
from proxy.fake import FakeProvider
from tests.sidecars import counted

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs/library.md").read_text()
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
EXPECTED = ["", "", "3 of 3", "daily budget", "used", "'total_tokens': 200", ""]


@pytest.mark.parametrize(("number", "expected"), list(enumerate(EXPECTED)))
async def test_an_example_of_the_library_runs(number, expected, store):
    code = EXAMPLES[number]
    async with FakeProvider(count=counted) as fake:
        run = await example(code, fake, store)
    assert run.returncode == 0, run.stderr
    assert expected in run.stdout
    assert "assert" in code or run.stdout.strip()


async def test_the_readmes_example_of_the_library_runs(store):
    code = re.search(r"## As a library\n\n((?:    .*\n|\n)+)", README)[1]
    lines = [line[4:] for line in code.splitlines() if line.strip()]
    assert len(lines) <= 10
    async with FakeProvider(count=counted) as fake:
        run = await example("\n".join(lines), fake, store)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip()


def test_every_example_is_run_and_every_name_of_the_library_is_in_the_documents():
    assert len(EXAMPLES) == len(EXPECTED)
    missing = [
        name
        for name in HOMES
        if name not in TEXT and name not in ("Access", "LLMClient", "BaseLLMClient", "BatchItem", "LLMResponse")
    ]
    assert not missing


def test_the_configuration_in_the_document_is_valid():
    text = re.search(r"```yaml\n(callbacks:.*?)```", TEXT, re.DOTALL)[1]
    key = 'keys: [{id: a, secret: "sk-0123456789abcdef0123456789abcdef"}]\n'
    loaded = load_text(text + key + "providers: {fake: {kind: fake}}\n", "doc.yaml", {})
    assert len(loaded.config.callbacks) == 2


async def example(code, fake, store):
    environ = {
        "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "OPENAI_API_KEY": "sk-test",
        "OPENAI_BASE_URL": fake.url, "REDIS_URL": store.url,
    }  # fmt: skip
    prelude = (
        "import adapters.clients.concrete as c, adapters.vendors as v\n"
        f"c.vendor_url = lambda kind, **_: {fake.url!r}\n"
    )  # the classes do not read the environment: lead them to the fake provider instead of the vendor
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-W", "error", "-c", prelude + code],
        capture_output=True,
        text=True,
        env=environ,
        timeout=30,
        check=False,
    )
