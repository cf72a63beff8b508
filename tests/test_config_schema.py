"""The JSON Schema: up to date, complete, and of use to an editor."""

import copy
import re

import pytest
import yaml

from proxy.config.schema import schema, schema_text
from tests.config_files import EXAMPLE, ROOT

SCHEMA = schema()


def test_the_committed_schema_is_up_to_date():
    committed = (ROOT / "deploy" / "bursar.schema.json").read_text(encoding="utf-8")
    assert committed == schema_text(), "run: python -m proxy.config.schema"


def test_every_setting_is_documented():
    undocumented = [
        f"{name}.{key}"
        for name, each in schema()["$defs"].items()
        for key, value in each.get("properties", {}).items()
        if not value.get("description")
    ]
    assert undocumented == []
    assert all(each.get("description") for each in schema()["$defs"].values())


def test_the_schema_refuses_unknown_keys_and_takes_variables():
    definitions = schema()["$defs"]
    assert all(each["additionalProperties"] is False for each in definitions.values() if "properties" in each)
    assert {"$ref": "#/$defs/Variable"} in definitions["Server"]["properties"]["queue"]["anyOf"]
    assert {"$ref": "#/$defs/Variable"} in definitions["Budget"]["properties"]["mode"]["anyOf"]
    assert copy.deepcopy(definitions["Config"]["properties"]["budgets"])["type"] == "array"


def valid(node, rule):
    """Judge as a JSON Schema validator would, as far as the schema's own keywords go."""
    if "$ref" in rule and not valid(node, SCHEMA["$defs"][rule["$ref"].rpartition("/")[2]]):
        return False
    if "anyOf" in rule and not any(valid(node, each) for each in rule["anyOf"]):
        return False
    if "enum" in rule and node not in rule["enum"]:
        return False
    kinds = [rule["type"]] if isinstance(rule.get("type"), str) else rule.get("type", [])
    types = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "null": type(None)}
    if kinds and not any(isinstance(node, types[kind]) for kind in kinds):
        return False
    if isinstance(node, dict):
        properties, more = rule.get("properties", {}), rule.get("additionalProperties", True)
        unknown = set(node) - set(properties)
        return (
            set(rule.get("required", ())) <= set(node)
            and (more is not False or not unknown)
            and all(valid(node[name], properties[name]) for name in properties if name in node)
            and all(valid(node[name], more) for name in unknown if isinstance(more, dict))
        )
    if isinstance(node, list):
        return all(valid(each, rule.get("items", {})) for each in node)
    if isinstance(node, str):
        return re.search(rule.get("pattern", ""), node) is not None and len(node) >= rule.get("minLength", 0)
    if isinstance(node, (int, float)):
        return rule.get("minimum", node) <= node <= rule.get("maximum", node) and node > rule.get(
            "exclusiveMinimum", -1
        )
    return True


class EditorLoader(yaml.SafeLoader):
    """YAML 1.2 as editors read it: `off` and dates are text."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(("bool", "timestamp"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


@pytest.mark.parametrize(
    ("old", "new", "good"),
    [
        ("", "", True),
        ("deadline_ms: 250", "deadline_ms: ${DEADLINE}", True),
        ("usd: 5.00", "usd: '5.00'", True),
        ("usd: 5.00", "usd: -5.00", False),
        ("deadline_ms: 250", "deadline_ms: fast", False),
        ("mode: hard", "mode: hrad", False),
        ("tenant: default", "tennant: default", False),
        ("subject: user:alice", "subject: alice", False),
        ("period: month", "period: monthly", False),
        ("max_body: 32MiB", "max_body: [1]", False),
        ("preset: groq", "preset: grok", False),
        ("  - id: alice-laptop", "  - user: alice", False),
    ],
)
def test_an_editor_with_the_schema_takes_the_example_and_sees_mistakes(old, new, good):
    text = EXAMPLE.read_text()
    assert old in text
    document = yaml.load(text.replace(old, new, 1) if old else text, Loader=EditorLoader)
    assert valid(document, SCHEMA) is good
