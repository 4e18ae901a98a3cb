"""The packers of a worker's endpoints: one each, where it embeds and the settings want it."""

from collections.abc import Callable

from contract.redis_keys import queue_name
from relay.connection import Connection
from relay.vector_cache import VectorCache
from workers.backends.dsn import BackendConfig
from workers.backends.protocols import Embed
from workers.config import embed_requests_of
from workers.embedding.budget import Budget
from workers.embedding.packer import Packer, Rules
from workers.endpoints.endpoints import Servers
from workers.settings import WorkerSettings


def give_packers(
    servers: Servers,
    config: BackendConfig,
    settings: WorkerSettings,
    connection: Connection,
    *,
    on_room: Callable[[str], None],
    on_verdict: Callable[[], None],
) -> None:
    """Let embed jobs of each endpoint share requests; `on_room` is called with the queue's name."""
    if not settings.embed_pack:
        return
    ttl_s, queue = settings.embed_cache_ttl_s, queue_name(config.name, "embed")
    memory = VectorCache(connection, config.name, ttl_s) if ttl_s else None
    for server in servers.all:
        if isinstance(server.adapter, Embed):
            server.packer = Packer(
                server.adapter, _rules(config, settings), memory=memory,
                on_room=lambda: on_room(queue), on_verdict=on_verdict,
            )  # fmt: skip


def _rules(config: BackendConfig, settings: WorkerSettings) -> Rules:
    return Rules(
        budget=Budget(settings.embed_pack_texts, settings.embed_pack_tokens),
        most=max(1, min(settings.embed_requests, embed_requests_of(config))),
        wait_s=settings.embed_pack_wait_s,
    )
