"""Aliases on the page: made, changed, tried in the playground, removed.

Subjects: api_shim/page/static/views/aliases.js.
"""

from typing import Any

from support.page import Watched, show


def test_an_alias_is_made_changed_tried_and_removed(watched: Watched, page: Any) -> None:
    path = "/api/v1/aliases/quick"
    show(page, "backends", "Backends and models")
    page.get_by_role("button", name="New alias").click()
    page.get_by_label("Name").fill("quick")
    page.get_by_label("Stands for").fill("scripted-echo@box")
    page.get_by_label("Fallbacks").fill("scripted-story")
    page.get_by_role("button", name="Save").click()
    row = page.get_by_role("region", name="All aliases").get_by_role("row", name="quick")
    row.get_by_text("scripted-echo@box").wait_for()
    row.get_by_role("button", name="Change").click()
    page.get_by_label("Seconds to wait").fill("7")
    page.get_by_role("button", name="Save").click()
    page.get_by_text("quick is set.").last.wait_for()
    made = watched.http.get(path).json()["alias"]

    assert (made["model"], made["backend"], made["wait_s"]) == ("scripted-echo", "box", 7)
    assert [each["model"] for each in made["fallbacks"]] == ["scripted-story"]

    show(page, "playground", "Playground")
    page.get_by_role("combobox", name="Backend", exact=True).select_option("by alias")
    page.get_by_role("combobox", name="Model", exact=True).select_option("quick")
    page.get_by_label("Message", exact=True).fill("one two")
    page.keyboard.press("Enter")
    page.get_by_role("log", name="Messages").get_by_text("one two").nth(1).wait_for()
    (job, *_) = watched.http.get("/api/v1/jobs?limit=1").json()["jobs"]
    assert (job["alias"], job["model"], job["backend"]) == ("quick", "scripted-echo", "box")

    show(page, "backends", "Backends and models")
    row.get_by_role("button", name="Remove").click()
    page.get_by_role("button", name="Remove the alias").click()
    page.get_by_text("quick is removed.").wait_for()
    assert watched.http.get(path).status_code == 404
