"""The page in a browser, on a fleet that runs: sign in, streams, dead letters, playground."""

import re
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
from support.page import FAILS, HIDE, MARKUP, MODELS, SEE, SLOW_STORY, Watched, opened, show
from support.shim import serving
from support.token_server import token_server


def until(true: Callable[[], Any], within_s: float = 20) -> Any:
    give_up_at = time.monotonic() + within_s
    while not (answer := true()):
        assert time.monotonic() < give_up_at
        time.sleep(0.05)
    return answer


def answer_of(page: Any) -> str:
    return str(page.get_by_role("region", name="Answer").inner_text())


def test_a_key_signs_in_for_the_tab_only(watched: Watched, chromium: Any) -> None:
    with opened(watched, chromium, key="") as page:
        page.get_by_label("API key").fill("flk_0000000000000000_" + "a" * 43)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("alert").get_by_text("unknown, revoked or expired").wait_for()
        page.get_by_label("API key").fill(watched.key)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_text("live", exact=True).wait_for()
        page.reload()
        page.get_by_text("live", exact=True).wait_for()

        assert page.evaluate("sessionStorage.getItem('fleet.key')") == watched.key
        assert watched.key not in page.evaluate("JSON.stringify(localStorage) + document.cookie")
        other = page.context.new_page()
        other.goto(watched.url)
        other.get_by_role("heading", name="Sign in").wait_for()
        page.get_by_role("button", name="Sign out").click()
        page.get_by_role("heading", name="Sign in").wait_for()
        assert page.evaluate("sessionStorage.getItem('fleet.key')") is None


def test_a_token_signs_in_and_shows_its_tenant_no_hosts(watched: Watched, chromium: Any) -> None:
    rights = {"ann": {"backends": ["box"], "limit_tokens_day": 5000}}
    with (
        token_server() as issuer,
        serving(watched.redis_url, **issuer.settings(oidc_tenants=rights)) as url,
        opened(replace(watched, url=url), chromium, key="") as page,
    ):
        page.get_by_placeholder("or ey").fill("ey.a.b")
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("alert").get_by_text("The token is not valid").wait_for()
        page.get_by_placeholder("or ey").fill(issuer.token())
        page.get_by_role("button", name="Sign in").click()
        page.get_by_text("live", exact=True).wait_for()
        show(page, "workers", "Workers")
        table = page.get_by_role("region", name="Table of workers")
        table.get_by_role("link", name="box").first.wait_for()
        titles = table.get_by_role("columnheader").all_inner_texts()
        others = table.get_by_role("link", name="art").count()
        show(page, "queues/box.chat", "box.chat")
        page.get_by_role("columnheader", name="Worker", exact=True).wait_for()
        in_queue = page.get_by_role("columnheader").all_inner_texts()
        show(page, "tenants", "Usage and limits")
        page.get_by_role("region", name="Table of limits").get_by_text("Tokens a day").wait_for()
        with opened(watched, chromium) as admin:
            show(admin, "workers", "Workers")
            admin.get_by_role("columnheader", name="Host, process").wait_for()

    assert (len(titles), others) == (6, 0)
    assert "Host" not in " ".join([*titles, *in_queue])


def test_a_stream_goes_on_while_its_worker_is_killed(watched: Watched, page: Any) -> None:
    job = watched.enqueue()
    show(page, f"jobs/{job}", re.compile("^Job"))
    until(lambda: len(answer_of(page)) > 60)
    by = watched.until(job, "running")["worker"]
    (victim,) = [each for each in watched.workers if each.name == by]
    watched.workers.append(watched.start_worker())
    victim.send(signal.SIGKILL)
    attempts = page.get_by_role("region", name="Attempts").get_by_role("listitem")
    until(lambda: attempts.count() == 2, 40)
    page.get_by_text(re.compile("Attempt 2 (continues|starts over)")).wait_for()
    end = watched.until(job, "done")

    page.get_by_text("done", exact=True).first.wait_for()
    assert end["attempt"] == 2
    assert end["result"]["content"].split()[-12:] == answer_of(page).split()[-12:]


def test_a_late_reader_sees_the_whole_log_and_can_go_back_in_it(
    watched: Watched, page: Any
) -> None:
    job = watched.enqueue(model="scripted-story:chunks=40,rate=40")
    whole = watched.until(job, "done")["result"]["content"]
    show(page, f"jobs/{job}", re.compile("^Job"))
    until(lambda: answer_of(page) == whole.strip())
    scrubber = page.get_by_role("slider", name="Event")
    scrubber.fill("12")
    page.get_by_text("replay", exact=True).wait_for()
    some = answer_of(page)

    assert 0 < len(some) < len(whole)
    assert whole.startswith(some.strip())
    page.get_by_role("button", name="as fast").click()
    until(lambda: answer_of(page) == whole.strip())
    until(lambda: page.get_by_text("replay", exact=True).count() == 0)


def test_a_job_is_found_cancelled_and_run_again(watched: Watched, page: Any) -> None:
    job = watched.enqueue()
    watched.until(job, "running")
    show(page, "jobs", "Jobs")
    page.get_by_label("Search id, model, queue, worker").fill(job[:10])
    page.get_by_role("link", name=job[:8]).first.click()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Cancel the job").click()
    page.get_by_text(re.compile("^Cancelled by caller")).wait_for()
    page.get_by_role("button", name="Run again").click()
    page.wait_for_url(lambda url: job not in url)
    again = page.url.rpartition("/")[2]

    assert watched.until(job, "cancelled")["status"] == "cancelled"
    assert watched.until(again, "queued", "running", "done")["model"] == SLOW_STORY
    watched.http.delete(f"/api/v1/jobs/{again}")


def test_a_job_becomes_a_curl_command_without_the_key(watched: Watched, chromium: Any) -> None:
    job = watched.enqueue(model="scripted-echo", messages=[{"role": "user", "content": "it's"}])
    watched.until(job, "done")
    with opened(watched, chromium, permissions=["clipboard-read", "clipboard-write"]) as page:
        show(page, f"jobs/{job}", re.compile("^Job"))
        page.get_by_role("button", name="Copy as curl").click()
        page.get_by_text("Copied.").wait_for()
        copied = page.evaluate("navigator.clipboard.readText()")

    assert copied.startswith(f"curl -s {watched.url}/api/v1/jobs/chat")
    assert "it'\\''s" in copied
    assert watched.key not in copied
    assert "$FLEET_API_KEY" in copied


def test_what_a_model_says_is_text_and_never_markup(watched: Watched, page: Any) -> None:
    job = watched.enqueue(model="scripted-echo", messages=[{"role": "user", "content": MARKUP}])
    watched.until(job, "done")
    show(page, f"jobs/{job}", re.compile("^Job"))
    until(lambda: MARKUP.split()[-1] in answer_of(page))

    assert "<img src=x" in answer_of(page)
    assert page.locator("main img, main b").count() == 0
    page.get_by_role("button", name="Show").click()
    page.get_by_text("<img src=x").first.wait_for()
    assert page.locator("main img, main b").count() == 0
    assert "owned" not in page.title()


def test_dead_letters_are_rehearsed_and_retried(watched: Watched, page: Any) -> None:
    watched.http.delete("/api/v1/dead").raise_for_status()  # those of tests that ran before it
    dead = [watched.enqueue(model=FAILS, max_attempts=1) for _ in range(3)]
    for job in dead:
        watched.until(job, "failed")
    show(page, "dead", "Dead letters")
    page.get_by_role("region", name="Dead letters: ").first.wait_for()
    page.get_by_role("button", name=re.compile("^Retry all")).click()
    page.get_by_label("Letters a second").fill("50")
    assert page.get_by_role("button", name="Retry them").is_disabled()
    page.get_by_role("button", name="Dry run").click()
    page.get_by_text("3 letters").first.wait_for()
    assert watched.http.get("/api/v1/dead/groups").json()["counted"] == 3
    page.get_by_role("button", name="Retry them").click()
    page.get_by_text("3 letters queued again.").wait_for()

    for job in dead:
        until(lambda job=job: watched.http.get(f"/api/v1/jobs/{job}").json()["retried_as"])


def test_a_chat_in_the_playground_streams_and_stops(watched: Watched, page: Any) -> None:
    show(page, "playground", "Playground")
    page.get_by_role("combobox", name="Backend", exact=True).select_option("box")
    page.get_by_role("combobox", name="Model", exact=True).select_option(SLOW_STORY)
    page.get_by_label("Message", exact=True).fill("Tell me a story.")
    page.keyboard.press("Enter")
    messages = page.get_by_role("log", name="Messages")
    until(lambda: len(messages.inner_text()) > 120)
    page.get_by_role("button", name="Stop").click()
    messages.get_by_text("stopped").wait_for()
    page.get_by_role("combobox", name="Model", exact=True).select_option(
        "scripted-think:think=8,chunks=8"
    )
    page.get_by_label("Message", exact=True).fill("And now?")
    page.get_by_role("button", name="Send").click()
    messages.get_by_text("Thinking").wait_for()
    until(lambda: page.get_by_role("button", name="Send").count())

    assert messages.get_by_role("link", name=re.compile("^job ")).count() == 2
    page.reload()
    show(page, "playground", "Playground")
    chosen = page.get_by_role("combobox", name="Model", exact=True)
    until(lambda: chosen.input_value() == "scripted-think:think=8,chunks=8")


def test_two_models_are_asked_at_once(watched: Watched, page: Any) -> None:
    show(page, "playground", "Playground")
    page.get_by_role("tab", name="Compare").click()
    page.get_by_role("combobox", name="A: Backend").select_option("box")
    page.get_by_role("combobox", name="A: Model").select_option(MODELS[2])
    beside = page.get_by_role("combobox", name="B: Model")
    assert beside.input_value() != MODELS[2]
    beside.select_option(MODELS[3])
    page.get_by_role("textbox", name="Question").fill("Why?")
    page.get_by_role("button", name="Ask both").click()

    for side in ("Model A", "Model B"):
        answer = page.get_by_role("region", name=side)
        answer.get_by_text(re.compile(r"first word .* tokens")).wait_for()
        answer.get_by_role("link", name=re.compile("^job ")).wait_for()


def test_vectors_are_plotted_and_images_appear(watched: Watched, page: Any) -> None:
    show(page, "playground", "Playground")
    page.get_by_role("tab", name="Embed").click()
    page.get_by_role("button", name="Embed").click()
    page.get_by_text("Most alike").wait_for()
    assert page.locator("svg.plot circle").count() == 8
    page.get_by_role("tab", name="Image").click()
    page.get_by_role("textbox", name="Prompt", exact=True).fill("a lighthouse")
    page.get_by_role("button", name="Generate").click()
    page.get_by_role("img", name="a lighthouse, image 1").wait_for()
    page.get_by_role("tab", name="Compare").click()
    page.get_by_role("textbox", name="Question").fill("hello")
    page.get_by_role("button", name="Ask both").click()
    until(lambda: page.get_by_role("link", name=re.compile("^job ")).count() == 2)


def test_models_are_loaded_pulled_and_shown_with_their_state(watched: Watched, page: Any) -> None:
    show(page, "backends/box", "Backends and models")
    row = page.get_by_role("row", name=re.compile("^scripted-tools"))
    row.get_by_role("button", name="Load").click()
    row.get_by_text("warm").wait_for()
    row.get_by_role("button", name="Unload").click()
    row.get_by_text("cold").wait_for()
    page.get_by_role("button", name="Pull a model").click()
    page.get_by_role("dialog").get_by_label("Model").fill("scripted-echo")
    page.get_by_role("dialog").get_by_role("button", name="Pull", exact=True).click()

    page.get_by_text("scripted-echo is there.").wait_for()
    assert {"scripted-echo", "scripted-tools"} <= {
        each["name"] for each in watched.http.get("/api/v1/models?backend=box").json()["models"]
    }


def test_a_key_is_made_shown_once_and_revoked_and_its_tenant_sees_its_own(
    watched: Watched, chromium: Any, page: Any
) -> None:
    show(page, "tenants", "Tenants and keys")
    page.get_by_role("button", name="New key").click()
    page.get_by_role("textbox", name=re.compile("^Tenant")).fill("guest")
    page.get_by_role("button", name="Create").click()
    key = page.locator("[data-key]").inner_text()
    page.get_by_role("button", name="Done").click()
    mine = httpx.post(
        f"{watched.url}/api/v1/jobs/chat",
        headers={"authorization": f"Bearer {key}"},
        json={"model": "scripted-echo", "messages": [{"role": "user", "content": "mine"}]},
    ).json()["id"]
    with opened(watched, chromium, key=key) as guest:
        show(guest, "jobs", "Jobs")
        guest.get_by_role("link", name=mine[:8]).first.wait_for()
        assert guest.get_by_role("row").count() == 2
        assert guest.get_by_role("link", name="Tenants").count() == 0
        table = page.get_by_role("region", name="Table of keys")
        row = table.get_by_role("row", name=re.compile("guest")).last
        row.get_by_role("button", name="Revoke").click()
        page.get_by_role("button", name="Revoke the key").click()
        guest.get_by_role("heading", name="Sign in").wait_for()


def test_a_key_that_is_made_before_the_list_of_keys_is_there_is_no_admins(page: Any) -> None:
    held: list[Any] = []

    def hold(route: Any) -> None:
        held.append(route)

    page.route("**/api/v1/keys", hold, times=1)
    show(page, "tenants", "Tenants and keys")
    while not held:
        page.wait_for_timeout(10)
    new = page.get_by_role("button", name="New key")
    was_disabled = new.is_disabled()
    held[0].continue_()
    new.click()

    assert was_disabled
    assert not page.get_by_role("checkbox", name=re.compile("^Admin")).is_checked()


def test_a_keys_rights_are_shown_and_changed_and_the_key_is_rotated(
    watched: Watched, page: Any
) -> None:
    made = watched.http.post("/api/v1/keys", json={"tenant": "narrow", "permissions": ["chat"]})
    show(page, "tenants", "Tenants and keys")
    table = page.get_by_role("region", name="Table of keys")
    row = table.get_by_role("row", name=re.compile(made.json()["id"]))
    row.get_by_role("cell", name="chat", exact=True).wait_for()
    row.get_by_role("button", name="Change").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("checkbox", name="models:write").check()
    dialog.get_by_role("textbox", name=re.compile("^Only these models")).fill("small*, big")
    dialog.get_by_role("button", name="Save").click()
    row.get_by_role("cell", name="chat, models:write; only small*, big").wait_for()
    row.get_by_role("button", name="Rotate").click()
    page.get_by_role("button", name="Make the new key").click()
    key = page.locator("[data-key]").inner_text()
    page.get_by_role("button", name="Done").click()
    page.get_by_role("region", name="Audit log").get_by_text("/rotate").wait_for()
    keys = {each["id"]: each for each in watched.http.get("/api/v1/keys").json()["keys"]}

    assert keys[key.split("_")[1]]["replaces"] == made.json()["id"]
    assert keys[key.split("_")[1]]["models"] == ["small*", "big"]
    assert keys[made.json()["id"]]["expires_at"] is not None


def test_a_batch_shows_its_progress_and_its_files(watched: Watched, page: Any) -> None:
    lines = [
        f'{{"custom_id": "{n}", "method": "POST", "url": "/v1/chat/completions", "body": '
        '{"model": "scripted-echo", "messages": [{"role": "user", "content": "hi"}]}}'
        for n in range(20)
    ]
    show(page, "batches", "Batches and files")
    page.get_by_role("button", name="New batch").click()
    page.get_by_label("File of requests").set_input_files(
        {
            "name": "<b>rows</b>.jsonl",
            "mimeType": "application/jsonl",
            "buffer": "\n".join(lines).encode(),
        }
    )
    page.get_by_role("button", name="Create").click()
    page.get_by_text("completed").first.wait_for(timeout=40_000)
    page.get_by_text("20/20").wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="Output").click()

    assert download.value.path().read_text().count("\n") == 20
    assert page.get_by_text("<b>rows</b>.jsonl").count() == 1


def test_a_hidden_tab_holds_no_connection_and_reads_on_where_it_was(
    watched: Watched, page: Any
) -> None:
    none = "llmfleet_process_open_streams 0.0"
    job = watched.enqueue(model="scripted-story:chunks=150,rate=25")
    show(page, f"jobs/{job}", re.compile("^Job"))
    until(lambda: len(answer_of(page)) > 20)
    page.evaluate(HIDE)
    until(lambda: none in watched.http.get("/metrics?only=process").text)
    before = answer_of(page)
    whole = watched.until(job, "done")["result"]["content"].strip()
    assert whole.startswith(before)
    assert len(before) < len(whole)

    page.evaluate(SEE)
    until(lambda: answer_of(page) == whole)
