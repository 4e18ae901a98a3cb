"""Tells Docker whether the shim of a container is well: it is when it answers.

Exits 0, or 1 with a sentence. A worker's check is the age of its file: compose.yaml.
"""  # noqa: INP001 - a script of the image

import sys
import urllib.error
import urllib.request

from api_shim.settings import ShimSettings

_PATIENCE_S = 4.0


def problem(port: int) -> str | None:
    """What is wrong with the shim on this machine, if anything is."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=_PATIENCE_S):
            return None
    except (urllib.error.URLError, TimeoutError) as error:
        return f"the shim does not answer: {error}"


if __name__ == "__main__":
    sys.exit(problem(ShimSettings().port))
