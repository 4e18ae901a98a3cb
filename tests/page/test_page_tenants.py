"""What the page does for keys: their retention, their permissions, the deletion of a tenant.

Subjects: api_shim/page/static/views/tenant_deletion.js, api_shim/page/static/views/keys.js,
api_shim/page/static/parts/shell.js.
"""

import re
from typing import Any

import httpx
from support.keys import bearer
from support.page import Watched, opened, show


def test_a_key_is_made_that_keeps_no_texts_and_changed(watched: Watched, page: Any) -> None:
    show(page, "tenants", "Tenants and keys")
    page.get_by_role("button", name="New key").click()
    page.get_by_role("dialog").get_by_label(re.compile("^Tenant")).fill("clinic")
    page.get_by_label("Texts of jobs are kept").fill("none")
    page.get_by_role("button", name="Create").click()
    page.get_by_text("It is shown this once").wait_for()
    page.get_by_role("button", name="Done").click()
    row = page.get_by_role("region", name="Table of keys").get_by_role("row", name="clinic")
    row.get_by_text("texts are kept until a job ends").wait_for()
    row.get_by_role("button", name="Change").click()
    assert page.get_by_label("Texts of jobs are kept").input_value() == "none"
    page.get_by_label("Texts of jobs are kept").fill("600")
    page.get_by_role("button", name="Save").click()
    row.get_by_text("texts are kept for 10 min").wait_for()

    (key,) = [
        each
        for each in watched.http.get("/api/v1/keys").json()["keys"]
        if each["tenant"] == "clinic"
    ]
    assert key["retention"] == 600
    watched.http.delete(f"/api/v1/keys/{key['id']}")


def test_a_tenant_is_deleted_after_its_name_was_written_again(watched: Watched, page: Any) -> None:
    made = watched.http.post("/api/v1/keys", json={"tenant": "leaving"}).json()["key"]
    body = {"model": "scripted-echo", "messages": [{"role": "user", "content": "hi"}]}
    with httpx.Client(base_url=watched.url, headers=bearer(made)) as http:
        job = http.post("/api/v1/jobs/chat", json=body).json()["id"]
        watched.until(job, "done")
    show(page, "tenants", "Tenants and keys")
    panel = page.get_by_role("region", name="Delete a tenant")
    panel.get_by_role("combobox").fill("boss")
    assert panel.get_by_role("button", name="Delete").is_disabled()  # the caller's own
    panel.get_by_role("combobox").fill("nobody-yet")
    panel.get_by_role("button", name="Show the receipt").click()
    panel.get_by_text("No receipt").wait_for()
    panel.get_by_role("combobox").fill("leaving")
    panel.get_by_role("button", name="Delete").click()
    dialog = page.get_by_role("dialog", name="Delete the tenant leaving?")
    dialog.get_by_label("The tenant's name again").fill("leavin")
    assert dialog.get_by_role("button", name="Delete everything").is_disabled()
    dialog.get_by_label("The tenant's name again").fill("leaving")
    dialog.get_by_role("button", name="Delete everything").click()
    panel.get_by_text(re.compile("leaving: requested .* by boss")).wait_for()
    panel.get_by_role("row", name=re.compile("^jobs 1$")).wait_for()

    assert httpx.get(f"{watched.url}/api/v1/jobs", headers=bearer(made)).status_code == 401
    assert watched.http.get(f"/api/v1/jobs/{job}").status_code == 404
    panel.get_by_text("done", exact=True).wait_for()
    assert watched.http.get("/api/v1/tenants/leaving/deletion").json()["usage"] == "keep"


def test_a_key_sees_the_views_that_it_may_and_asks_for_nothing_else(
    watched: Watched, chromium: Any
) -> None:
    new = {"tenant": "indexer", "permissions": ["embed", "files"]}
    made = watched.http.post("/api/v1/keys", json=new).json()["key"]
    refused: list[str] = []
    with opened(watched, chromium, key=made) as page:
        page.on("response", lambda it: refused.append(it.url) if it.status == 403 else None)
        page.get_by_role("heading", level=1, name="Jobs").wait_for()
        views = page.get_by_role("navigation").get_by_role("link").all_inner_texts()
        for path, title in {"schedules": "Schedules", "batches": "Batches and files"}.items():
            show(page, path, title)
            page.wait_for_timeout(300)
        for path, title in {"webhooks": "Webhooks", "queues/box.chat": "Queues"}.items():
            show(page, path, title)
            page.get_by_text("Your key lacks the permission").wait_for()
        told = page.get_by_text("The fleet cannot be reached").count()

    assert views == ["Jobs", "Schedules", "Dead letters", "Batches", "Usage"]
    assert (refused, told) == ([], 0)
    watched.http.delete(f"/api/v1/keys/{made.split('_')[1]}")
