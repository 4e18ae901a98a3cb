"""What a tenant without a key has left behind goes on; deleting the tenant ends it.

Subjects: docs/tenants.md, api_shim/tenants/tenant_eraser.py.
"""

import asyncio
import time

from support.keys import keyed
from support.receiver import receiver
from support.redis_server import RedisServer
from support.shim import CHAT, stage


async def test_jobs_for_later_run_and_are_told_until_the_tenant_is_deleted(
    own_redis: RedisServer,
) -> None:
    quick = {"private_webhooks": True, "renew_s": 0.2, "lease_s": 1}
    with keyed(own_redis.url, **quick) as shim, receiver() as hook:
        async with stage(shim.url, own_redis.url) as at, shim.admin as admin:
            at.http.headers["authorization"] = f"Bearer {shim.key}"
            await at.announce()
            issued = shim.issue("red")
            red = {"authorization": f"Bearer {issued['key']}"}
            await at.http.post("/api/v1/webhooks", json={"url": hook.url}, headers=red)
            jobs = []
            for later_s in (0.3, 86400):
                body = CHAT | {"not_before": time.time() + later_s}
                answer = await at.http.post("/api/v1/jobs/chat", json=body, headers=red)
                jobs.append(answer.json()["id"])
            await admin.delete(f"/api/v1/keys/{issued['id']}")
            async with asyncio.timeout(10):
                while (await at.http.get("/api/v1/jobs", headers=red)).status_code != 401:
                    await asyncio.sleep(0.05)
                while (claim := await at.relay.start_next("scripted.chat", "w")) is None:
                    await asyncio.sleep(0.05)
                await at.relay.run(claim)
                while not hook.received:
                    await asyncio.sleep(0.05)
                await admin.delete("/api/v1/tenants/red?confirm=red")
                receipt = "/api/v1/tenants/red/deletion"
                while (told := (await admin.get(receipt)).json())["status"] == "running":
                    await asyncio.sleep(0.05)
            left = await admin.get(f"/api/v1/jobs/{jobs[1]}")

    assert [each.subject for each in hook.received] == [jobs[0]]
    assert told["status"] == "done"
    assert left.status_code == 404
