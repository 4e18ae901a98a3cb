"""What a program that only talks to a fleet has to import: a start must not pay for the others."""

import json
import subprocess
import sys

import pytest

SERVERS = {"aiohttp", "api_shim", "celery", "fastapi", "kombu", "redis", "starlette", "uvicorn"}
SLOW = {"numpy", "onnx", "onnxruntime", "pandas", "pyarrow", "tokenizers"}


def packages_imported_by(statement: str) -> set[str]:
    code = f"{statement}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    modules = json.loads(done.stdout.splitlines()[-1])
    return {name.partition(".")[0] for name in modules}


@pytest.mark.parametrize(
    "statement",
    [
        "import fleet",
        "import fleet.client.async_client, fleet.client.sync_client",
        "import fleet.cli.app",
        "from fleet.cli.app import app; app(['--help'], standalone_mode=False)",
    ],
)
def test_a_client_imports_no_server_and_no_array_library(statement: str) -> None:
    assert packages_imported_by(statement) & (SERVERS | SLOW) == set()


def test_what_starts_a_fleet_imports_no_web_framework_and_no_celery() -> None:
    unwanted = {"celery", "fastapi", "kombu", "starlette", "uvicorn"} | SLOW

    imported = packages_imported_by("import fleet.cli.foreground, fleet.demo.play")

    assert imported & unwanted == set()


def test_a_worker_imports_only_the_libraries_of_its_backend() -> None:
    imported = packages_imported_by("import workers.app")

    assert imported & (SLOW | {"fastapi", "llama_cpp", "openvino_genai", "uvicorn"}) == set()
