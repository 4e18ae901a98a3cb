"""What a key may do: its permissions, and the models and backends of its patterns."""

from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from contract.errors import NotAllowed
from contract.requests import Kind
from contract.tenants import (
    EVERY,
    OF_KIND,
    USE,
    KeyFacts,
    NewKey,
    Permission,
    Tenant,
    fits_backend,
    fits_model,
)


def facts(**fields: object) -> KeyFacts:
    new = NewKey.model_validate({"tenant": "a", **fields})
    rights = new.model_dump(exclude={"expires_in_s", "permissions"})
    return KeyFacts(**rights, permissions=new.effective_permissions, id="0" * 16, created_at=0)


def test_every_kind_of_job_requires_a_permission() -> None:
    assert set(OF_KIND) == set(get_args(Kind))


def test_a_key_may_use_models_and_change_none_unless_it_says_more() -> None:
    tenant = facts().owner

    assert tenant.permissions == USE
    assert not any(map(tenant.may, ("models:write", "models:admin", "admin")))


def test_the_documents_name_every_permission() -> None:
    text = (Path(__file__).parents[2] / "docs" / "tenants.md").read_text(encoding="utf-8")
    table = text.partition("| permission |")[2].partition("\n\n")[0]

    assert [name for name in EVERY if f"`{name}`" not in table] == []


def test_admin_is_a_permission_and_has_all_others() -> None:
    for key in (facts(admin=True), facts(permissions=["admin"])):
        assert key.admin
        assert key.owner.permissions == EVERY
        assert all(map(key.owner.may, EVERY))


def test_a_key_may_have_no_permission_at_all() -> None:
    assert not any(map(facts(permissions=[]).owner.may, EVERY))


@pytest.mark.parametrize(
    "fields",
    [
        {"permissions": ["chat", "everything"]},
        {"permissions": ["chat"] * 33},
        {"permissions": "chat"},
        {"admin": True, "models": ["m"]},
        {"permissions": ["admin"], "backends": ["box"]},
        {"models": []},
        {"models": ["two words"]},
        {"models": ["m"] * 101},
        {"backends": ["Box"]},
        {"backends": [""]},
    ],
)
def test_a_wrong_right_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        facts(**fields)


def test_a_star_among_the_patterns_is_no_limit() -> None:
    key = facts(models=["m", "*"], backends=["*"])

    assert (key.models, key.backends) == (None, None)


@pytest.mark.parametrize(
    ("pattern", "model", "fits"),
    [
        ("qwen3", "qwen3:latest", True),
        ("qwen3:latest", "qwen3", True),
        ("qwen3", "qwen3:8b", False),
        ("qwen3*", "qwen3:8b", True),
        ("qwen3*", "Qwen3:8b", False),
        ("*:8b", "qwen3:8b", True),
        ("*:8b", "qwen3:8b\n", False),
        ("a.c", "abc", False),
        ("a[b]c", "a[b]c", True),
        ("org/*", "org/model:q4", True),
        ("org/*", "other/org/model", False),
        ("*", "", True),
    ],
)
def test_a_pattern_fits_whole_names(pattern: str, model: str, fits: bool) -> None:  # noqa: FBT001
    assert fits_model([pattern], model) is fits
    assert fits_model(["other", pattern], model) is fits


def test_a_pattern_of_many_stars_takes_no_time() -> None:
    assert not fits_model(["*a" * 60], "a" * 59 + "b" * 190)


def test_backends_are_compared_as_they_are_written() -> None:
    assert fits_backend(["gpu*", "box"], "gpu-2")
    assert not fits_backend(["gpu*", "box"], "boxes")


def test_a_pattern_means_models_and_a_name_may_mean_an_alias() -> None:
    tenant = Tenant(name="a", models=("small*", "best"))

    assert tenant.may_use_alias("best", "best", "huge")
    assert tenant.may_use_alias("fast", "fast", "small-1")
    assert not tenant.may_use_alias("smallest", "smallest", "huge")


def test_what_is_missing_is_named() -> None:
    with pytest.raises(NotAllowed, match="models:admin") as refused:
        Tenant(name="a").require("models:admin")

    assert refused.value.facts == {"permission": "models:admin"}


@pytest.mark.parametrize(
    ("permissions", "told"),
    [
        (USE, "--allow use,models:write`"),
        ((*USE, "models:admin"), "--allow use,models:admin,models:write`"),
        (("embed",), "--allow embed,models:write`"),
        ((), "--allow models:write`"),
    ],
)
def test_the_remedy_gives_what_is_missing_and_no_more(
    permissions: tuple[Permission, ...], told: str
) -> None:
    with pytest.raises(NotAllowed) as refused:
        Tenant(name="a", permissions=permissions).require("models:write")

    assert told in refused.value.message
