"""The manifest of the sidecar: Kubernetes takes it, and so does the daemon its configuration."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from cascaded.config import Config, load

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "deploy" / "kubernetes" / "sidecar.yaml"


def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(MANIFEST.read_text()))


def test_kubernetes_takes_it() -> None:
    for document in documents():
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_its_configuration_is_right() -> None:
    (told,) = [one["data"] for one in documents() if one["kind"] == "ConfigMap"]
    config = load(
        told["cascaded.toml"].encode(),
        source_name="cascaded.toml",
        env={"OPENAI_API_KEY": "sk-test"},
        read_file=lambda path: Path(path).read_bytes(),
    )
    assert isinstance(config, Config), config


def test_the_socket_and_the_ledger_are_where_the_configuration_says() -> None:
    (pods,) = [one["spec"] for one in documents() if one["kind"] == "StatefulSet"]
    pod = pods["template"]["spec"]
    (sidecar,), (app,) = pod["initContainers"], pod["containers"]
    assert sidecar["restartPolicy"] == "Always"
    mounts = {one["mountPath"]: one["name"] for one in sidecar["volumeMounts"]}
    assert mounts["/run/cascaded"] == app["volumeMounts"][0]["name"] == "run"
    assert mounts["/var/lib/cascaded"] == pods["volumeClaimTemplates"][0]["metadata"]["name"]
    user = app["securityContext"]["runAsUser"]
    assert user != sidecar["securityContext"]["runAsUser"], "an application is no administrator"
