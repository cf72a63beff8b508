"""`bursar demo`, as a newcomer meets it: a banner to paste from, a handful of answers, then a refusal that explains itself."""

import os
import re
import signal
import subprocess
import sys

import openai
import pytest

from tests.sidecars import ROOT


@pytest.mark.slow
def test_the_demo_answers_a_handful_of_calls_and_then_says_why_not(tmp_path):
    environ = {name: value for name, value in os.environ.items() if not name.endswith(("_KEY", "_URL"))}
    demo = subprocess.Popen(
        [sys.executable, "-m", "proxy", "demo"], cwd=tmp_path, env={**environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        lines = []
        while not any(line.startswith("OPENAI_API_KEY=") for line in lines):
            lines.append(demo.stdout.readline())
            assert lines[-1], "it ended without a banner"
        url = re.search(r"http://127\.0\.0\.1:\d+/v1", "".join(lines))[0]
        client = openai.OpenAI(base_url=url, api_key=lines[-1].removeprefix("OPENAI_API_KEY=").strip(), max_retries=2)
        answers, refused = [], None
        while refused is None and len(answers) < 50:
            try:
                message = {"role": "user", "content": "hello"}
                answers.append(client.chat.completions.create(model="any-model", messages=[message]))
            except openai.RateLimitError as error:
                refused = error
        assert all(answer.choices[0].message.content for answer in answers)
        assert 3 <= len(answers) <= 12
        assert refused.code == "insufficient_quota"
        assert "user:demo" in refused.message
        assert refused.response.headers["x-should-retry"] == "false"
    finally:
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=20)
    assert demo.returncode == 0
