"""Every mistake in a file is told with its place and its remedy, all of them at once."""

import pytest
import yaml

from proxy.config import tree
from proxy.config.load import FILE_BYTES_MAX, load
from proxy.config.problem import ConfigError
from tests.config_files import BASE, GOOD, problems_of

# fmt: off
MISTAKES = [  # text, line, column, path, fragments of the message
    ("", 1, 1, "providers", ["no provider"]),
    ("# nothing", 1, 1, "providers", ["no provider"]),
    ("x", 1, 1, "", ["wants a mapping"]),
    ("[]", 1, 1, "", ["wants a mapping", "list"]),
    (BASE + "lissten: x", 2, 1, "lissten", ["unknown key lissten", "nearest valid key: listen"]),
    (BASE + "zzz: 1", 2, 1, "zzz", ["unknown key zzz", "valid keys: listen, ops"]),
    (BASE + "ops:\n  lissten: x", 3, 3, "ops.lissten", ["nearest valid key: listen"]),
    (BASE + "listen: 8080", 2, 9, "listen", ["wants host:port"]),
    (BASE + "listen: 127.0.0.1:99999", 2, 9, "listen", ["wants host:port"]),
    (BASE + "listen: [a, b]", 2, 9, "listen", ["wants a single value, has a list"]),
    (BASE + "listen: 127.0.0.1:9090", 1, 1, "ops.listen", ["is the data listener's port too"]),
    (BASE + "listen: 0.0.0.0:1\nauth: {mode: none}", 2, 9, "listen", ["only loopback"]),
    (BASE + "listen: 10.0.0.1:1\nauth: {mode: none}", 2, 9, "listen", ["only loopback"]),
    (BASE + "listen: '[::]:1'\nauth: {mode: none}", 2, 9, "listen", ["only loopback"]),
    (BASE + "auth: {mode: kyes}", 2, 14, "auth.mode", ["kyes is not known", "nearest: keys"]),
    (BASE + "auth: keys", 2, 7, "auth", ["wants a mapping"]),
    (BASE + "ops: {admin_token: short}", 2, 20, "ops.admin_token", ["shorter than 16", "openssl rand"]),
    (BASE + "ops: {admin_token: changeme12345678}", 2, 20, "ops.admin_token", ["placeholder"]),
    (BASE + "ops: {admin_token: aaaaaaaaaaaaaaaaaaaa}", 2, 20, "ops.admin_token", ["placeholder"]),
    (BASE + "tenant: a/b", 2, 9, "tenant", ["wants letters"]),
    (BASE + "tenant: a\ntenant: b", 3, 1, "tenant", ["given twice", "line 2"]),
    (BASE + "store: {url: postgres://x}", 2, 14, "store.url", ["embedded", "redis://"]),
    (BASE + "store: {url: redis://}", 2, 14, "store.url", ["redis://"]),
    (BASE + "store: {deadline_ms: 0}", 2, 22, "store.deadline_ms", ["at least 1"]),
    (BASE + "store: {deadline_ms: '250'}", 2, 22, "store.deadline_ms", ["without quotes"]),
    (BASE + "store: {deadline_ms: 2.5}", 2, 22, "store.deadline_ms", ["whole number"]),
    (BASE + "store: {deadline_ms: true}", 2, 22, "store.deadline_ms", ["whole number"]),
    ("providers: []", 1, 12, "providers", ["wants a mapping"]),
    ("providers: {a: {}}", 1, 16, "providers.a", ["needs kind", "preset"]),
    ("providers: {a: {kind: openia}}", 1, 23, "providers.a.kind", ["openia is not known; nearest: openai"]),
    ("providers: {a: {preset: grok}}", 1, 25, "providers.a.preset", ["nearest: groq"]),
    ("providers: {a: {kind: openai}}", 1, 16, "providers.a", ["needs api_keys", "${OPENAI_API_KEY}"]),
    ("providers: {a: {preset: groq}}", 1, 16, "providers.a", ["needs api_keys", "${GROQ_API_KEY}"]),
    ("providers: {a: {kind: xai, preset: vllm}}", 1, 23, "providers.a.kind", ["a preset is of kind openai"]),
    ("providers: {a: {kind: openai, api_keys: ['']}}", 1, 42, "providers.a.api_keys[0]", ["is empty"]),
    ('providers: {a: {kind: openai, api_keys: ["abc\\n"]}}', 1, 42, "providers.a.api_keys[0]", ["white space at an end"]),
    ("providers: {a: {kind: azure, api_keys: [k]}}", 1, 16, "providers.a", ["needs base_url"]),
    ("providers: {a: {kind: azure, base_url: https://h}}", 1, 16, "providers.a", ["needs api_keys or access_token"]),
    ("providers: {a: {kind: vertex, project: p}}", 1, 16, "providers.a", ["needs location"]),
    ("providers: {a: {kind: vertex, location: l}}", 1, 16, "providers.a", ["needs project"]),
    ("providers: {a: {kind: bedrock}}", 1, 16, "providers.a", ["needs region"]),
    ("providers: {a: {kind: bedrock, region: r, access_key_id: x}}", 1, 16, "providers.a", ["together"]),
    (BASE.replace("}}", ", region: r}}"), 1, 70, "providers.openai.region", ["means nothing for kind openai", "bedrock"]),
    (BASE.replace("}}", ", deployments: {a: b}}}"), 1, 75, "providers.openai.deployments", ["only for azure"]),
    (BASE.replace("}}", ", base_url: localhost:1}}"), 1, 72, "providers.openai.base_url", ["wants a URL"]),
    (BASE.replace("}}", ", base_url: 'http://u:p@h'}}"), 1, 72, "providers.openai.base_url", ["user name or password"]),
    (BASE.replace("}}", ", base_url: 'http://h?key=1'}}"), 1, 72, "providers.openai.base_url", ["query"]),
    (BASE.replace("}}", ", headers: {Host: x}}}"), 1, 78, "providers.openai.headers.Host", ["sets itself"]),
    (BASE.replace("}}", ", headers: {'a b': x}}}"), 1, 79, 'providers.openai.headers["a b"]', ["not the name of a header"]),
    (BASE.replace("}}", ", timeouts: {idle: 0}}}"), 1, 79, "providers.openai.timeouts.idle", ["more than 0"]),
    ("providers: {a/b: {kind: fake}}", 1, 18, 'providers["a/b"]', ["provider's name"]),
    (BASE + "models: {x: gpt-4o}", 2, 13, "models.x", ["wants provider/model"]),
    (BASE + "models: {x: opeani/gpt-4o}", 2, 13, "models.x", ["provider opeani is not configured; nearest: openai"]),
    (BASE + "models: {x: [openai/a, zz/b]}", 2, 24, "models.x[1]", ["zz is not configured", "configured: openai"]),
    (BASE + "models: {x: {targets: [{to: zz/b}]}}", 2, 29, "models.x.targets[0].to", ["zz is not configured"]),
    (BASE + "models: {x: {balance: weighted}}", 2, 13, "models.x", ["needs targets"]),
    (BASE + "models: {x: []}", 2, 13, "models.x", ["has no target"]),
    (BASE + "models: {x: openai/*}", 2, 13, "models.x", ["no * in the name"]),
    (BASE + "models: {'*': 'openai/*/*'}", 2, 15, 'models["*"]', ["no * in the name"]),
    (BASE + "models: {x: {targets: [{to: openai/a}], to: openai/a}}", 2, 41, "models.x.to", ["unknown key to"]),
    (BASE + "keys: {id: a}", 2, 7, "keys", ["wants a list"]),
    (BASE + "keys:\n  - secret: " + GOOD, 3, 5, "keys[0]", ["needs id"]),
    (BASE + "keys:\n  - id: a", 3, 5, "keys[0]", ["needs secret or secret_sha256"]),
    (BASE + f"keys: [{{id: a, secret: {GOOD}, secret_sha256: {'0' * 64}}}]", 2, 8, "keys[0]", ["only one of them"]),
    (BASE + "keys: [{id: a, secret: ''}]", 2, 24, "keys[0].secret", ["is empty"]),
    (BASE + "keys: [{id: a, secret: sk-1234}]", 2, 24, "keys[0].secret", ["placeholder"]),
    (BASE + "keys: [{id: a, secret: abcde}]", 2, 24, "keys[0].secret", ["shorter than 8"]),
    (BASE + "keys: [{id: a, secret_sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08}]", 2, 31, "keys[0].secret_sha256", ["placeholder"]),
    (BASE + "keys: [{id: a, secret_sha256: abc}]", 2, 31, "keys[0].secret_sha256", ["64 hexadecimal"]),
    (BASE + f"keys:\n - {{id: a, secret: {GOOD}}}\n - {{id: a, secret: {GOOD}x}}", 4, 9, "keys[1].id", ["a is the id of a key above"]),
    (BASE + f"keys:\n - {{id: a, secret: {GOOD}}}\n - {{id: b, secret: {GOOD}}}", 4, 20, "keys[1].secret", ["is the secret of a too"]),
    (BASE + f"models: {{fast: openai/x}}\nkeys: [{{id: a, secret: {GOOD}, models: [fsat]}}]", 3, 67, "keys[0].models[0]", ["no model has that name; nearest: fast"]),
    (BASE + f"keys: [{{id: a, secret: {GOOD}, user_from: cookie:x}}]", 2, 69, "keys[0].user_from", ["header:", "body:"]),
    (BASE + "budgets: [{usd: 1, period: day}]", 2, 11, "budgets[0]", ["needs subject"]),
    (BASE + "budgets: [{subject: alice, usd: 1, period: day}]", 2, 21, "budgets[0].subject", ["user:alice"]),
    (BASE + "budgets: [{subject: 'user:', usd: 1, period: day}]", 2, 21, "budgets[0].subject", ["a name after user:"]),
    (BASE + "budgets: [{subject: 'user:a*', usd: 1, period: day}]", 2, 21, "budgets[0].subject", ["* alone"]),
    (BASE + "budgets: [{subject: 'user:a', period: day}]", 2, 11, "budgets[0]", ["needs an amount", "input_tokens"]),
    (BASE + "budgets: [{subject: 'user:a', usd: -5, period: day}]", 2, 36, "budgets[0].usd", ["not negative"]),
    (BASE + "budgets: [{subject: 'user:a', usd: .nan, period: day}]", 2, 36, "budgets[0].usd", ["amount in USD"]),
    (BASE + "budgets: [{subject: 'user:a', usd: yes, period: day}]", 2, 36, "budgets[0].usd", ["amount in USD"]),
    (BASE + "budgets: [{subject: 'user:a', usd: 1e-10, period: day}]", 2, 36, "budgets[0].usd", ["finer than one nano"]),
    (BASE + "budgets: [{subject: 'user:a', usd: 1e9, period: day}]", 2, 36, "budgets[0].usd", ["too large"]),
    (BASE + "budgets: [{subject: 'user:a', tokens: 1.5, period: day}]", 2, 39, "budgets[0].tokens", ["whole number"]),
    (BASE + "budgets: [{subject: 'user:a', usd: 1, period: monthly}]", 2, 47, "budgets[0].period", ["wants minute, hour"]),
    (BASE + "budgets: [{subject: 'user:a', usd: 1, period: 'rolling:900d'}]", 2, 47, "budgets[0].period", ["400 days"]),
    (BASE + "budgets: [{subject: 'user:a', usd: 1, period: cycle}]", 2, 11, "budgets[0]", ["needs starts"]),
    (BASE + "budgets: [{subject: 'user:a', usd: 1, period: day, starts: 2026-01-01}]", 2, 60, "budgets[0].starts", ["cycle only"]),
    (BASE + "budgets: [{subject: 'user:a', usd: 1, period: cycle, starts: 2026-02-30}]", 2, 62, "budgets[0].starts", ["2026-11-05"]),
    (BASE + "budgets: [{subject: 'user:a', usd: 1, period: day, tz: Berlin}]", 2, 56, "budgets[0].tz", ["not a time zone"]),
    (BASE + "budgets: [{subject: 'user:a', usd: 1, period: day, tz: ../UTC}]", 2, 56, "budgets[0].tz", ["not a time zone"]),
    (BASE + "budgets: [{subject: 'user:a', usd: 1, period: day, tz: Europe}]", 2, 56, "budgets[0].tz", ["not a time zone"]),
    (BASE + "budgets: [{subject: 'user:a', usd: 1, period: day, mode: hrad}]", 2, 58, "budgets[0].mode", ["nearest: hard"]),
    (BASE + "budgets: [{subject: 'user:a', usd: 1, period: day, soft: [1.5]}]", 2, 59, "budgets[0].soft[0]", ["from 0 to 1"]),
    (BASE + "budgets: [{subject: 'user:a', usd: 1, period: day, soft: [0]}]", 2, 58, "budgets[0].soft", ["above 0"]),
    (BASE + "budgets: [{subject: 'provider:zz', usd: 1, period: day}]", 2, 21, "budgets[0].subject", ["zz is not configured"]),
    (BASE + "budgets: [{subject: 'tenant:zz', usd: 1, period: day}]", 2, 21, "budgets[0].subject", ["this tenant is default"]),
    (BASE + "budgets:\n - {subject: 'user:a', usd: 1, period: day}\n - {subject: 'user:a', requests: 2, usd: 2, period: day}", 4, 42, "budgets[1].usd", ["budgets[0] has the same subject, unit and period"]),
    ("providers: {b: {kind: bedrock, region: r}}\nbudgets: [{subject: 'user:a', usd: 1, period: day, hold: slice}]", 2, 58, "budgets[0].hold", ["b bills a cancelled stream", "use clamp"]),
    (BASE + "limits: [{subject: 'key:*'}]", 2, 10, "limits[0]", ["needs rpm, tpm or concurrency"]),
    (BASE + "limits: [{subject: 'key:*', rpm: 0}]", 2, 34, "limits[0].rpm", ["at least 1"]),
    (BASE + "limits:\n - {subject: 'key:*', rpm: 1}\n - {subject: 'key:*', tpm: 1}", 4, 14, "limits[1].subject", ["all into one"]),
    (BASE + "prices: {zz/*: {input: 1, output: 1}}", 2, 16, 'prices["zz/*"]', ["zz is not configured"]),
    (BASE + "prices: {openai/*: {input: 1000001, output: 1}}", 2, 28, 'prices["openai/*"].input', ["per million tokens"]),
    (BASE.replace("}}", ", quirks: {limit_feild: x}}}"), 1, 84, "providers.openai.quirks.limit_feild", ["nearest valid key: limit_field"]),
    (BASE.replace("}}", ", quirks: {limit_field: x}}}"), 1, 84, "providers.openai.quirks.limit_field", ["must be one of"]),
    (BASE.replace("}}", f", quirks: {{{GOOD}: x}}}}}}"), 1, 105, "providers.openai.quirks.…", ["unknown quirk …", "known are"]),
    (BASE + "prices: {gpt: {input: 1, output: 1}}", 2, 15, "prices.gpt", ["provider/model"]),
    (BASE + "prices: {openai/*: {input: 1}}", 2, 20, 'prices["openai/*"]', ["needs output"]),
    (BASE + "admission: {unbounded_share: 2}", 2, 30, "admission.unbounded_share", ["from 0 to 1"]),
    (BASE + "timeouts: {connect: -1}", 2, 21, "timeouts.connect", ["number of seconds"]),
    (BASE + "timeouts: {connect: .inf}", 2, 21, "timeouts.connect", ["number of seconds"]),
    (BASE + "server: {max_body: 32mib}", 2, 20, "server.max_body", ["32MiB"]),
    (BASE + "passthrough: [/v2/x]", 2, 15, "passthrough[0]", ["below /v1/"]),
    (BASE + "passthrough: [/v1/../admin]", 2, 15, "passthrough[0]", ["below /v1/"]),
    ("providers: {a: {kind: fake}, b: {kind: fake}}\npassthrough: [/v1/moderations]", 2, 15, "passthrough[0]", ["needs its provider"]),
    (BASE + "alerts: {webhook: nowhere}", 2, 19, "alerts.webhook", ["wants a URL"]),
    (BASE + "alerts: {secret: ''}", 2, 18, "alerts.secret", ["is empty"]),
    (BASE + "log: {level: inof}", 2, 14, "log.level", ["nearest: info"]),
    (BASE + "callbacks: ['rm -rf']", 2, 13, "callbacks[0]", ["entry point"]),
    (BASE + "tenant: ${NOT_SET}", 2, 9, "tenant", ["environment variable NOT_SET is not set", "${NOT_SET:-default}"]),
    (BASE + 'tenant: "ab${NOT_SET}"', 2, 12, "tenant", ["NOT_SET is not set"]),
    (BASE + "tenant: ${NOT SET}", 2, 9, "tenant", ["wants ${NAME}"]),
    (BASE + "tenant: {a: ${X}}", 2, 14, "", ["is not YAML", "quotes around ${…}"]),
    (BASE + "tenant: !!python/object:os.system x", 2, 9, "tenant", ["tags"]),
    (BASE + "tenant: *nowhere", 2, 9, "tenant", ["an alias (*name) without its anchor"]),
    (BASE + "? [a]\n: b", 2, 3, "", ["a key must be a single word"]),
    (BASE + "<<: 5", 2, 1, "", ["<< wants an alias"]),
    (BASE + "--- \nlisten: x", 2, 1, "", ["second document"]),
    (BASE + "a: b: c", 2, 5, "", ["is not YAML"]),
    (BASE + "a:\n\t- b", 3, 1, "", ["is not YAML"]),
    (BASE.encode() + b"tenant: \xff", 2, 9, "", ["not UTF-8"]),
    (BASE + "tenant: a\x00b", 2, 10, "", ["a character that YAML does not allow"]),
    ("[" * 100, 1, 34, "", ["32 levels deep"]),
    (b"#" * (FILE_BYTES_MAX + 1), 1, 1, "", ["larger than"]),
]
# fmt: on


@pytest.mark.parametrize(
    ("text", "line", "column", "path", "fragments"), MISTAKES, ids=[f"{row[3]}-{row[4][0][:30]}" for row in MISTAKES]
)
def test_a_mistake_is_told_with_its_place(text, line, column, path, fragments):
    problems = problems_of(text)
    found = [(each.line, each.column, each.path) for each in problems]
    assert found == [(line, column, path)], "\n".join(map(str, problems))
    for fragment in fragments:
        assert fragment in problems[0].message
    assert str(problems[0]).startswith(f"f.yaml:{line}:{column}: {path}")


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file():
    text = (
        "lissten: 127.0.0.1:8080\n"
        "providers:\n"
        "  openai: {kind: openai, api_keys: ['${NOT_SET}']}\n"
        "  self: {kind: openai, base_url: http://localhost:8080/v1}\n"
        "models: {x: zz/a}\n"
        "keys: [{id: a, secret: sk-1234}]\n"
        "budgets:\n"
        "  - {subject: nobody, usd: 1, period: day}\n"
        "  - {subject: 'user:a', usd: -1, period: dya}\n"
        "  - {subject: 'user:a', period: day, usd: 1, starts: 2026-01-01}\n"
    )
    assert [(each.line, each.path) for each in problems_of(text)] == [
        (1, "lissten"),
        (3, "providers.openai.api_keys[0]"),
        (4, "providers.self.base_url"),
        (5, "models.x"),
        (6, "keys[0].secret"),
        (8, "budgets[0].subject"),
        (9, "budgets[1].usd"),
        (9, "budgets[1].period"),
        (10, "budgets[2].starts"),
    ]


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path):
    for path in (tmp_path / "none.yaml", tmp_path, "\0"):
        with pytest.raises(ConfigError, match="cannot be read .*bursar init"):
            load(str(path), {})


def test_without_the_c_parser_the_places_are_the_same(monkeypatch):
    rows = [row for row in MISTAKES if len(row[0]) < 5000]
    fast = [[str(each) for each in problems_of(row[0])] for row in rows if "is not YAML" not in row[4]]
    monkeypatch.setattr(tree, "_Loader", yaml.SafeLoader)
    assert [[str(each) for each in problems_of(row[0])] for row in rows if "is not YAML" not in row[4]] == fast
