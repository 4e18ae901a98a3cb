"""The files of the page: what they may contain, and where the libraries come from."""

import hashlib
import json
import re
from pathlib import Path

import pytest

from api_shim.page.page_files import FOLDER, page
from contract.tenants import EVERY, USE

VENDOR = FOLDER / "vendor"
OURS = sorted(path for path in FOLDER.rglob("*.js") if VENDOR not in path.parents)
LONGEST_FILE = 500
MARKUP = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function")


def test_every_library_is_the_published_file_with_its_licence() -> None:
    manifest = json.loads((VENDOR / "manifest.json").read_text())
    listed = {name: each for lib in manifest.values() for name, each in lib["files"].items()}
    there = {path.relative_to(VENDOR).as_posix() for path in VENDOR.rglob("*") if path.is_file()}

    assert there - {"manifest.json"} == set(listed)
    assert {name: hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() for name in listed} == {
        name: each["sha256"] for name, each in listed.items()
    }
    for lib in manifest.values():
        assert lib["license"] in {"MIT", "Apache-2.0"}
        assert any(name.endswith("/LICENSE") for name in lib["files"])


def test_the_page_offers_the_permissions_that_there_are() -> None:
    text = (FOLDER / "views" / "keys.js").read_text(encoding="utf-8")
    usual, change = (re.search(rf"const {name} = (.*);", text) for name in ("USE", "CHANGE"))

    assert usual
    assert change
    assert tuple(re.findall(r"'([^']+)'", usual[1])) == USE
    assert {*USE, *re.findall(r"\['([^']+)'", change[1]), "admin"} == set(EVERY)


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_a_module_is_small_opens_with_a_sentence_and_makes_no_markup(path: Path) -> None:
    text = path.read_text(encoding="utf-8")

    assert re.match(r"// [A-Z].*[.:]\n", text)
    assert len(text.splitlines()) <= LONGEST_FILE
    assert not MARKUP.search(text)
    assert "dangerouslySetInnerHTML" not in text
    assert not re.search(r"""["'`]https?://""", text)


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_a_module_imports_files_that_exist(path: Path) -> None:
    named = re.findall(r"""(?:from|import\()\s*'([^']+)'""", path.read_text(encoding="utf-8"))
    relative = [name for name in named if name.startswith(".")]

    assert [name for name in relative if not (path.parent / name).resolve().is_file()] == []
    assert {name for name in named if not name.startswith(".")} <= {
        "preact", "preact/hooks", "htm", "@preact/signals", "uplot",
    }  # fmt: skip


def test_the_digest_is_of_every_file_and_what_is_preloaded_is_there() -> None:
    whole = page()
    preloads = re.findall(r'modulepreload" href="/page/\w+/([^"]+)"', whole.document.body.decode())

    assert set(preloads) <= set(whole.files)
    assert set(whole.files) == {
        path.relative_to(FOLDER).as_posix()
        for path in FOLDER.rglob("*")
        if path.is_file() and path.name != "index.html"
    }
