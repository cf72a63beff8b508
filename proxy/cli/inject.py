"""`bursar inject`: adds Bursar as a native sidecar to the pods of a manifest, and points their containers at it.

A native sidecar is an init container that is restarted always (Kubernetes 1.29 and later): it starts before the app, ends after it,
and does not keep a Job from completing. Documents that hold no pod are passed on byte for byte.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from proxy.cli.connected import CommandError, misuse, run_plain

NAME = "bursar"
BASE_URL = "http://127.0.0.1:8080/v1"
_LABEL = "bursar.io/inject"
# Where a pod's template is, by kind. Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/
_TEMPLATES = {
    "Deployment": ("spec", "template"), "StatefulSet": ("spec", "template"), "DaemonSet": ("spec", "template"),
    "ReplicaSet": ("spec", "template"), "Job": ("spec", "template"), "CronJob": ("spec", "jobTemplate", "spec", "template"), "Pod": (),
}  # fmt: skip
_DOCUMENT_END = re.compile(r"^---(?=\s|$)", re.MULTILINE)
_EXAMPLE = """example:
  bursar inject -f deployment.yaml | kubectl apply -f -
  kubectl get deploy app -o yaml | bursar inject -f - --image registry.example.com/bursar:1.2.0
  bursar inject -f app.yaml --config-map bursar --secret bursar > app.bursar.yaml

The config map holds bursar.yaml, with ops.listen: 0.0.0.0:9090 (probes come from outside of the pod), store.url of a shared store and
store.data_dir: /data. The secret's entries become the variables that the file expands (OPENAI_API_KEY …).
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `inject` to the commands."""
    parser = subparsers.add_parser(
        "inject", help="add Bursar to the pods of a manifest", description="Add Bursar as a native sidecar; print YAML. Doing it twice changes nothing.",
        epilog=_EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("-f", "--file", metavar="FILE", required=True, help="the manifest; - is standard input")
    parser.add_argument("--image", default="bursar:latest", metavar="IMAGE", help="the sidecar's image")
    parser.add_argument("--config-map", default="bursar", metavar="NAME", help="config map with bursar.yaml (bursar)")
    parser.add_argument(
        "--secret", default="bursar", metavar="NAME", help="secret whose entries are its variables (bursar)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the manifest with the sidecar; return 0, 1 (no pod in it, or no YAML) or 2 (misuse)."""

    async def act() -> int:
        text = _read(args.file)
        if not all(
            re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", name) for name in (args.config_map, args.secret)
        ):
            raise misuse("--config-map and --secret want names of Kubernetes objects, such as bursar")
        out, pods = injected(text, image=args.image, config_map=args.config_map, secret=args.secret)
        if not pods:
            raise CommandError(f"{args.file} holds no pod: it wants one of {', '.join(_TEMPLATES)}")
        sys.stdout.write(out)
        return 0

    return run_plain("inject", act)


def _read(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{file} cannot be read: name a YAML file, or - for standard input") from error


def injected(text: str, *, image: str, config_map: str, secret: str) -> tuple[str, int]:
    """Return the manifest with the sidecar in each pod, and the number of pods. Raises CommandError for what is no YAML."""
    parts, pods = [], 0
    container = sidecar(image, secret)
    for document in _documents(text):
        try:
            loaded = yaml.safe_load(document)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            raise CommandError(
                f"the manifest is not YAML{f' (line {mark.line + 1} of a document)' if mark else ''}: mend it first"
            ) from error
        specs = list(_pods(loaded))
        for pod in specs:
            _inject(pod, container, config_map)
        pods += len(specs)
        parts.append(_dumped(loaded) if specs else document)
    return _joined(parts), pods


def sidecar(image: str, secret: str) -> dict[str, Any]:
    """Return the container. It passes the `restricted` pod security standard."""

    def probe(path: str, **times: int) -> dict[str, Any]:
        return {"httpGet": {"path": path, "port": "bursar-ops"}, **times}

    field_env = {
        "POD_NAME": "metadata.name",
        "POD_NAMESPACE": "metadata.namespace",
        "NODE_NAME": "spec.nodeName",
        "POD_IP": "status.podIP",
    }
    return {
        "name": NAME,
        "image": image,
        "restartPolicy": "Always",
        "args": ["serve", "-c", "/etc/bursar/bursar.yaml"],
        "env": [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in field_env.items()],
        "envFrom": [{"secretRef": {"name": secret, "optional": True}}],
        "ports": [{"name": "bursar-ops", "containerPort": 9090}],  # the data port is on loopback: the pod's own containers only
        "startupProbe": probe("/readyz", periodSeconds=1, failureThreshold=30),
        "livenessProbe": probe("/livez", periodSeconds=10, timeoutSeconds=3),
        "readinessProbe": probe("/readyz", periodSeconds=5, timeoutSeconds=3),
        "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "192Mi"}},
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": 65532, "readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {"name": "bursar-config", "mountPath": "/etc/bursar", "readOnly": True},
            {"name": "bursar-data", "mountPath": "/data"},
            {"name": "bursar-tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of its own
        ],
    }  # fmt: skip


def _inject(template: dict[str, Any], container: dict[str, Any], config_map: str) -> None:
    spec = template["spec"]
    containers = [each for each in spec.get("initContainers") or [] if each.get("name") != NAME]
    spec["initContainers"] = [container, *containers]  # first: what other init containers call must go through it too
    volumes = [
        {"name": "bursar-config", "configMap": {"name": config_map}},
        {"name": "bursar-data", "emptyDir": {}},
        {"name": "bursar-tmp", "emptyDir": {}},
    ]
    ours = {volume["name"] for volume in volumes}
    spec["volumes"] = [*(each for each in spec.get("volumes") or [] if each.get("name") not in ours), *volumes]
    for each in spec.get("containers") or []:
        env = [variable for variable in each.get("env") or [] if variable.get("name") != "OPENAI_BASE_URL"]
        each["env"] = [*env, {"name": "OPENAI_BASE_URL", "value": BASE_URL}]
    template.setdefault("metadata", {}).setdefault("labels", {})[_LABEL] = "enabled"


def _pods(document: Any) -> Iterator[dict[str, Any]]:
    """Yield the pod templates of a document; the items of a List too."""
    if not isinstance(document, dict):
        return
    if document.get("kind") == "List":
        for item in document.get("items") or []:
            yield from _pods(item)
        return
    path = _TEMPLATES.get(str(document.get("kind")))
    if path is None:
        return
    template: Any = document
    for step in path:
        template = template.get(step) if isinstance(template, dict) else None
    if isinstance(template, dict) and isinstance(template.get("spec"), dict):
        yield template


def _documents(text: str) -> list[str]:
    return [
        part.split("\n", 1)[1] if index and "\n" in part else part
        for index, part in enumerate(_DOCUMENT_END.split(text))
    ]


def _joined(parts: list[str]) -> str:
    text = "---\n".join(part if part.endswith("\n") or not part else part + "\n" for part in parts)
    return text.removeprefix("---\n") if not parts[0].strip() and text.startswith("---\n---") else text


class _Dumper(yaml.SafeDumper):
    """Writes no anchors: manifests are read by people and patched by tools."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _dumped(document: Any) -> str:
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)
    return text
