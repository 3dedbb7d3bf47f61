"""The files of the cluster guide: what Ray's own validator says, and that page, manifest and package agree."""

import re
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/cluster.md").read_text()


def test_ray_up_takes_the_file_of_hosts() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    hosts = yaml.safe_load((ROOT / "deploy/hosts.yaml").read_text())
    validate_config(prepare_config(hosts))
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config({**hosts, "idle_minutes": 5}))
    for command in (hosts["head_start_ray_commands"][-1], hosts["worker_start_ray_commands"][-1]):
        assert "RAY_AUTH_MODE=token" in command and "--labels=host=" in command
    # Ray allows no more `min_workers` than there are workers, and its second autoscaler counts the head among them.
    assert hosts["min_workers"] == len(hosts["provider"]["worker_ips"])
    assert "RAY_enable_autoscaler_v2=0" in hosts["head_start_ray_commands"][-1]
    assert "--node-label host" in PAGE


def test_the_manifest_is_of_our_ray_and_has_the_pages_labels() -> None:
    text = (ROOT / "deploy/raycluster.yaml").read_text()
    cluster, claim = yaml.safe_load_all(text)
    assert "KubeRay 1.6 or newer" in text and "KubeRay 1.6 or newer" in PAGE
    pinned = re.search(r"^ray==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    spec = cluster["spec"]
    assert pinned is not None and spec["rayVersion"] == pinned[1]
    assert spec["authOptions"] == {"mode": "token"}
    groups = spec["workerGroupSpecs"]
    assert [group["labels"] for group in groups] == [{"edge": group["groupName"]} for group in groups]
    assert "`edge=east`" in PAGE and "--node-label edge" in PAGE
    pods = [group["template"]["spec"] for group in (spec["headGroupSpec"], *groups)]
    (image,) = {container["image"] for pod in pods for container in pod["containers"]}
    assert f"-t {image} -" in PAGE and f"-t {image} -" in (ROOT / "deploy/Containerfile").read_text()
    (volume,) = pods[0]["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    (mount,) = pods[0]["containers"][0]["volumeMounts"]
    uid = re.search(r"useradd .*--uid (\d+) ray", (ROOT / "deploy/Containerfile").read_text())
    assert uid is not None and pods[0]["securityContext"] == {"fsGroup": int(uid[1])}  # else it cannot write there
    assert mount["name"] == volume["name"] and f"--output {mount['mountPath']}" in PAGE
