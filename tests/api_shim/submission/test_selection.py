"""Which backend a request goes to."""

import pytest

from api_shim.http.problems import Refusal
from api_shim.submission.roster_cache import Pool, pools
from api_shim.submission.selection import candidates, choose, depends_on_loads, least_loaded
from contract.chat import ChatRequest, Message
from contract.jobs import AnyRequest
from contract.models import CopyRequest, CreateRequest, DeleteRequest, LoadRequest, PullRequest
from contract.roster import (
    BackendReport,
    Capability,
    ModelReport,
    QueueReport,
    QueueView,
    WorkerReport,
)

KINDS: tuple[Capability, ...] = ("chat", "pull", "delete", "create", "load")


def worker(
    backend: str, *models: ModelReport | str, healthy: bool = True, serves: str = "chat pull delete"
) -> WorkerReport:
    reports = tuple(ModelReport(name=m) if isinstance(m, str) else m for m in models)
    report = BackendReport(
        name=backend, type="t", endpoint="e", healthy=healthy, capabilities=KINDS, models=reports
    )
    queues = tuple(
        QueueReport(name=f"{backend}.{kind}", kind=kind, slots=1, in_flight=0)
        for kind in serves.split()
    )
    return WorkerReport(
        v=1, name=f"{backend}-1", host="h", pid=1, started_at=0, backends=(report,), queues=queues
    )


def chat(model: str) -> ChatRequest:
    return ChatRequest(model=model, messages=(Message(role="user", content="x"),))


def fit(request: AnyRequest, *workers: WorkerReport) -> list[str]:
    return [pool.name for pool in candidates(request, pools(workers))]


def refused(request: AnyRequest, *workers: WorkerReport) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        fit(request, *workers)
    return refusal.value


def test_a_model_leads_to_the_backends_that_have_it() -> None:
    fleet = worker("a", "m"), worker("b", "m", "n"), worker("c", "o")

    assert fit(chat("m"), *fleet) == ["a", "b"]
    assert fit(chat("n"), *fleet) == ["b"]


def test_a_name_without_a_tag_is_the_latest() -> None:
    assert fit(chat("m"), worker("a", "m:latest")) == ["a"]
    assert fit(chat("m:latest"), worker("a", "m")) == ["a"]
    assert refused(chat("m:7b"), worker("a", "m")).code == "unknown_model"


def test_a_healthy_backend_is_preferred_and_a_sick_one_better_than_none() -> None:
    assert fit(chat("m"), worker("a", "m", healthy=False), worker("b", "m")) == ["b"]
    assert fit(chat("m"), worker("a", "m", healthy=False)) == ["a"]


def test_a_pull_goes_where_pulls_are_taken_if_that_is_one_place() -> None:
    request = PullRequest(model="new")

    assert fit(request, worker("a", "m"), worker("b", "m", serves="chat")) == ["a"]
    several = refused(request, worker("a"), worker("b"))
    assert (several.code, several.extra["matches"]) == ("invalid_request", ["a", "b"])


def test_the_client_must_choose_whose_model_is_deleted() -> None:
    assert refused(DeleteRequest(model="m"), worker("a", "m"), worker("b", "m")).status_code == 422
    assert fit(DeleteRequest(model="m"), worker("a", "m"), worker("b", "n")) == ["a"]


def test_a_model_is_created_where_its_source_is() -> None:
    request = CreateRequest(model="new", source="m")

    assert fit(request, worker("a", "m", serves="create"), worker("b", "n")) == ["a"]


def test_a_backend_whose_queue_no_worker_serves_is_503() -> None:
    error = refused(chat("m"), worker("a", "m", serves="pull"))

    assert (error.code, error.status_code) == ("no_worker", 503)
    assert "a.chat" in error.detail


def test_a_named_backend_may_have_models_that_it_does_not_list() -> None:
    fleet = pools([worker("a")])
    request = chat("unlisted").model_copy(update={"backend": "a"})

    assert choose(request, fleet) == "a"
    assert fleet["a"].models == {}


def view(name: str, depth: int, slots: int = 1) -> QueueView:
    return QueueView(
        name=name, depth=depth, oldest_s=None, in_flight=0, slots=slots, workers=1, drain_per_s=None
    )


def live(*workers: WorkerReport) -> list[Pool]:
    return list(pools(workers).values())


def test_the_shortest_queue_for_its_slots_is_first() -> None:
    both = live(worker("a", "m"), worker("b", "m"))

    assert least_loaded("m", both, [view("a.chat", 2), view("b.chat", 1)]).name == "b"
    assert least_loaded("m", both, [view("a.chat", 2, slots=4), view("b.chat", 1)]).name == "a"
    assert least_loaded("m", both, [view("a.pull", 1)]).name == "b"


def test_among_equals_the_warm_one_is_first() -> None:
    both = live(worker("a", "m"), worker("b", ModelReport(name="m", warm=True)))

    assert least_loaded("m", both, []).name == "b"


def test_a_model_is_loaded_wherever_it_could_be_asked() -> None:
    both = [worker(name, "m", serves="chat load") for name in ("a", "b")]

    assert fit(LoadRequest(model="m"), *both) == ["a", "b"]


@pytest.mark.parametrize("asked", ["/home/me/models/qwen.gguf", "models/qwen.gguf", "qwen.gguf"])
def test_a_path_of_some_machine_means_the_model_that_is_named_by_its_file(asked: str) -> None:
    assert fit(chat(asked), worker("a", "qwen.gguf"), worker("b", "other")) == ["a"]


def test_what_no_backend_can_do_is_no_matter_of_the_model() -> None:
    error = refused(CopyRequest(model="nobody-has-it", destination="n"), worker("a", "m"))

    assert (error.code, error.status_code) == ("not_supported", 400)
    assert error.detail == "No backend can do copy; known ones: a."


def test_one_call_chooses_the_backend_with_the_shortest_queue() -> None:
    fleet = pools([worker("a", "m"), worker("b", "m"), worker("c", "n")])

    assert choose(chat("m"), fleet, [view("a.chat", 2)]) == "b"
    assert choose(chat("m"), fleet, [view("b.chat", 2)]) == "a"
    assert choose(chat("n"), fleet, [view("c.chat", 9)]) == "c"


def test_loads_are_read_where_they_can_change_the_choice() -> None:
    fleet = pools([worker("a", "m"), worker("b", "m"), worker("c", "n")])
    pull = PullRequest(model="new")

    assert [depends_on_loads(it, fleet) for it in (chat("m"), chat("n"), pull)] == [
        True,
        False,
        True,
    ]


@pytest.mark.parametrize(("depth", "code"), [(0, "unknown_backend"), (1, "no_worker")])
def test_a_named_backend_that_had_a_queue_is_away_and_any_other_is_unknown(
    depth: int, code: str
) -> None:
    fleet = pools([worker("a", "m")])
    request = chat("m").model_copy(update={"backend": "gone"})
    loads = [view("gone.chat", depth)] if depth else []

    with pytest.raises(Refusal) as refusal:
        choose(request, fleet, loads)

    assert refusal.value.code == code
    assert depends_on_loads(request, fleet)
