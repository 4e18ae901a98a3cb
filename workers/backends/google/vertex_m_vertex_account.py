"""Makes the Vertex backend of a configuration: whose account it is, and how that is proved."""

from pathlib import Path
from typing import Final

from contract.errors_m_backend_errors import (
    NotSupported,
)
from workers.backends.dsn import BackendConfig
from workers.backends.google.vertex import Vertex

_HOW: Final = "vertex://PROJECT@LOCATION?credentials=/path/key.json, or vertex://:KEY@"


def vertex(config: BackendConfig) -> Vertex:
    """With a key in express mode; else for a project, by a file or the machine's credentials.

    Raises NotSupported if neither is named, or google-auth is not installed.
    """
    options = config.options
    if config.key is not None:
        key = config.key.get_secret_value()
        return Vertex(
            config.name, config.url, key=key, idle_s=config.idle_s, models=tuple(config.models)
        )
    if "project" not in options:
        raise NotSupported(f"backend {config.name!r}: type vertex needs a project, as in {_HOW}")
    try:
        from workers.backends.google.credentials import (  # noqa: PLC0415 - its extra is optional
            GoogleToken,
        )
    except ImportError as error:
        raise NotSupported(
            f"backend {config.name!r}: type vertex needs {error.name}; install the extra with"
            " pip install 'llm-fleet[vertex]'"
        ) from error
    path = options.get("credentials")
    return Vertex(
        config.name,
        config.url,
        project=options["project"],
        location=options.get("location", "global"),
        models=tuple(config.models),
        idle_s=config.idle_s,
        auth=GoogleToken(Path(path) if path else None, quota_project=options.get("quota_project")),
    )
