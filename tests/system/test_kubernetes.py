"""The manifests of deploy/: against the schemas of Kubernetes, in themselves and beside a server with their words."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from gate import Gate
from server import DEADLINE, ROOT, Server, eventually

MANIFESTS = ROOT / "deploy" / "kubernetes.yaml"
ENVIRONMENT = Path(os.environ.get("DAEMUN_KUBERNETES", ROOT / ".tools" / "kubernetes"))


def called(*words: str) -> str:
    """Run a program of the environment with the schemas."""
    assert ENVIRONMENT.exists(), "no schemas of Kubernetes; run:  scripts/require kubernetes"
    command = [str(ENVIRONMENT / "bin" / words[0]), *words[1:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def objects() -> dict[str, Any]:
    """The objects of the file, by kind."""
    program = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(sys.stdin.read()))))"
    python = ENVIRONMENT / "bin" / "python"
    assert python.exists(), "no schemas of Kubernetes; run:  scripts/require kubernetes"
    text = MANIFESTS.read_text(encoding="utf-8")
    told = subprocess.run([python, "-c", program], input=text, capture_output=True, text=True, timeout=DEADLINE)
    assert told.returncode == 0, told.stderr
    return {each["kind"]: each for each in json.loads(told.stdout)}


@pytest.fixture
def container(objects: dict[str, Any]) -> dict[str, Any]:
    """The one of the pod."""
    (container,) = objects["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert isinstance(container, dict)
    return container


@pytest.mark.parametrize("version", ["1.30", "1.33", "1.37"])
def test_the_manifests_are_what_the_schemas_ask_for(version: str) -> None:
    told = called("kubernetes-validate", "--strict", "--kubernetes-version", version, str(MANIFESTS))
    for kind in ("deployment", "service", "poddisruptionbudget"):
        assert f"passed for resource {kind}/site" in told, told


def test_a_field_that_nobody_knows_is_a_fault(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(MANIFESTS.read_text(encoding="utf-8").replace("failureThreshold: 60", "failureTreshold: 60"))
    with pytest.raises(AssertionError, match="failureTreshold"):
        called("kubernetes-validate", "--strict", str(wrong))


def test_the_objects_name_one_another(objects: dict[str, Any], container: dict[str, Any]) -> None:
    deployment, service, budget = (objects[kind]["spec"] for kind in ("Deployment", "Service", "PodDisruptionBudget"))
    labels = deployment["template"]["metadata"]["labels"]
    assert labels == deployment["selector"]["matchLabels"] == service["selector"] == budget["selector"]["matchLabels"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert [port["targetPort"] for port in service["ports"]] == ["http"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] in ports
    arguments = container["args"]
    given = dict(zip(arguments[2::2], arguments[3::2], strict=True))
    assert given["--listen"] == f"0.0.0.0:{ports['http']}"
    assert given["--health"] == f"0.0.0.0:{ports['health']}"
    # None but who may forward a port sees the live page.
    assert given["--monitor"].startswith("127.0.0.1:")
    annotations = deployment["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(ports["health"])
    volumes = {volume["name"] for volume in deployment["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    # The image has the same.
    image = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    assert f"EXPOSE {ports['http']} {ports['health']}" in image
    assert f"USER {deployment['template']['spec']['securityContext']['runAsUser']}" in image


def test_a_pod_begins_and_ends_as_its_probes_see_it(
    objects: dict[str, Any], container: dict[str, Any], flask: Path, gate: Gate
) -> None:
    probes = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
    arguments = [re.sub(r"^[0-9.]+:\d+$", "127.0.0.1:0", word) for word in container["args"]]
    assert arguments[:4] == ["daemun", "serve", "--listen", "127.0.0.1:0"]
    variables = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", **gate.env}
    with (
        Server(*arguments[4:], "--workers", "1", "app:app", cwd=flask, env=variables) as server,
        ThreadPoolExecutor() as pool,
    ):
        health = int(server.wait_for(r"health on http://127\.0\.0\.1:(\d+)")[1])
        # What listens answers: until then a kubelet is refused, which counts as "not yet".
        assert {name: asked(health, path) for name, path in probes.items()} == dict.fromkeys(probes, 200)
        held = pool.submit(server.get, "/held")
        gate.entered()
        server.send(signal.SIGTERM)
        grace = int(server.wait_for(r"stopping: what is in flight has (\d+) s")[1])
        assert grace < objects["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        eventually(lambda: asked(health, probes["readiness"]) == 503, "no new request is to come")
        # Else it would be killed with what it is answering.
        assert asked(health, probes["liveness"]) == 200
        gate.open()
        assert held.result(DEADLINE).text == "finished"
        # Every balancer has heard: the rest of the delay need not be waited for.
        server.send(signal.SIGINT)
        assert server.exit_code() == 0


def asked(port: int, path: str) -> int:
    """The status that a kubelet sees."""
    words = ["curl", "-s", "-o", os.devnull, "-w", "%{http_code}", f"http://127.0.0.1:{port}{path}"]
    return int(subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE).stdout)
