"""Image servers are configured in one line.

Subjects: workers/backend_registry.py, workers/backends/dsn.py.
"""

import pytest

from workers.backend_registry import build
from workers.backends.diffusion.a1111 import A1111
from workers.backends.diffusion.sdcpp import Sdcpp
from workers.backends.dsn import BackendConfig, parse


@pytest.mark.parametrize(
    ("dsn", "url", "key"),
    [
        ("sd://", "http://127.0.0.1:1234", None),
        ("sd-server://box", "http://box:1234", None),
        ("sd+https://key@box/sd", "https://box/sd", "key"),
        ("a1111://", "http://127.0.0.1:7860", None),
        ("a1111://me:p%40ss@box:80", "http://box:80", "me:p@ss"),
        ("a1111+https://me:x@box", "https://box", "me:x"),
    ],
)
def test_a_line_is_an_address_and_a_key(dsn: str, url: str, key: str | None) -> None:
    config = parse("LLM_DRAW", dsn)

    assert config.url == url
    assert (config.key.get_secret_value() if config.key else None) == key


def test_each_type_has_its_class() -> None:
    assert isinstance(build(BackendConfig(name="draw", type="sd")), Sdcpp)
    assert isinstance(build(parse("LLM_DRAW", "a1111://me:x@box")), A1111)
