"""`bursar inject`: a native sidecar in every pod of a manifest, and nothing else changed."""

import json

import pytest
import yaml

from proxy.cli.inject import BASE_URL, injected
from tests.cli_runs import Shell

SERVICE = "# mine\napiVersion: v1\nkind: Service   # kept as it is\nmetadata: {name: app}\n"
POD_SPEC = {
    "containers": [
        {"name": "app", "image": "a", "env": [{"name": "OPENAI_BASE_URL", "value": "x"}, {"name": "Y", "value": "z"}]}
    ]
}


def workload(kind):
    template = {"metadata": {"labels": {"app": "x"}}, "spec": json.loads(json.dumps(POD_SPEC))}
    if kind == "Pod":
        return {"apiVersion": "v1", "kind": kind, **template}
    inner = {"template": template}
    return {
        "apiVersion": "x/v1",
        "kind": kind,
        "spec": {"jobTemplate": {"spec": inner}} if kind == "CronJob" else inner,
    }


def spec_of(document):
    if document["kind"] == "Pod":
        return document["spec"]
    spec = document["spec"]
    return (spec["jobTemplate"]["spec"] if document["kind"] == "CronJob" else spec)["template"]["spec"]


def inject(text):
    return injected(text, image="bursar:1", config_map="conf", secret="keys")


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob", "Pod"])
def test_each_kind_of_workload_gets_a_native_sidecar(kind):
    out, pods = inject(yaml.safe_dump(workload(kind)))
    spec = spec_of(yaml.safe_load(out))
    assert pods == 1
    (sidecar,) = spec["initContainers"]
    assert (sidecar["name"], sidecar["image"], sidecar["restartPolicy"]) == ("bursar", "bursar:1", "Always")
    assert sidecar["securityContext"]["runAsNonRoot"] is True
    assert sidecar["startupProbe"]["httpGet"]["path"] == "/readyz"
    assert sidecar["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert {mount["name"] for mount in sidecar["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}
    assert spec["containers"][0]["env"] == [{"name": "Y", "value": "z"}, {"name": "OPENAI_BASE_URL", "value": BASE_URL}]


@pytest.mark.parametrize("head", ["", "---\n", "# a comment\n---\n"])
def test_injecting_twice_changes_nothing_and_other_documents_are_kept_byte_for_byte(head):
    text = f"{head}{SERVICE}---\n{yaml.safe_dump(workload('Deployment'))}---\n{SERVICE}"
    once, pods = inject(text)
    assert pods == 1
    assert once.startswith(head + SERVICE)
    assert once.endswith("---\n" + SERVICE)
    assert inject(once) == (once, 1)
    assert [d["kind"] for d in yaml.safe_load_all(once) if d] == ["Service", "Deployment", "Service"]


def test_the_items_of_a_list_are_injected_too():
    out, pods = inject(
        yaml.safe_dump({"kind": "List", "items": [workload("Job"), workload("Pod"), {"kind": "Service"}]})
    )
    assert pods == 2
    assert "&id" not in out  # no anchors


@pytest.mark.parametrize(
    ("text", "says"),
    [(SERVICE, "holds no pod"), ("a: [", "is not YAML"), ("", "holds no pod")],
    ids=["no pod", "broken", "empty"],
)
def test_what_cannot_be_injected_is_said_no(tmp_path, capsys, text, says):
    (tmp_path / "m.yaml").write_text(text)
    ran = Shell(capsys)("inject", "-f", str(tmp_path / "m.yaml"))
    assert (ran.code, ran.out) == (1, "")
    assert says in ran.err
