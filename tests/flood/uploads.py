"""Floods of forms: parts, fields and heads of parts without an end."""

from collections import Counter
from collections.abc import AsyncIterator, Iterable

import httpx

from flood.heads import all_are
from flood.scene import Case, Outcome, Scene

FORMS = ("/v1/files", "/v1/images/edits")
_TYPE = {"content-type": "multipart/form-data; boundary=b"}
_PIECE = b"x" * 65536
_FIELD = b'--b\r\nContent-Disposition: form-data; name="k%d"\r\n\r\nv\r\n'
_FILE = b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'


async def refused(at: Scene, pieces: Iterable[bytes]) -> Outcome:
    """The same form to every route that takes one."""
    form = list(pieces)

    async def sending() -> AsyncIterator[bytes]:
        for piece in form:
            yield piece

    found: Counter[str] = Counter()
    for path in FORMS:
        async with httpx.AsyncClient(base_url=at.url, timeout=200) as http:
            try:
                answer = await http.post(path, content=sending(), headers=_TYPE)
                found[str(answer.status_code)] += 1
            except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
                found["closed"] += 1
    return all_are(found, {"400", "413", "422", "closed"})


async def parts(at: Scene) -> Outcome:
    count = at.many(100_000)
    return await refused(at, [*(_FIELD % number for number in range(count)), b"--b--\r\n"])


async def files(at: Scene) -> Outcome:
    return await refused(at, [*[_FILE + b"x\r\n"] * at.many(100_000), b"--b--\r\n"])


async def endless_head(at: Scene) -> Outcome:
    return await refused(at, [b"--b\r\nX-Endless: ", *[_PIECE] * at.many(400)])


async def endless_field(at: Scene) -> Outcome:
    return await refused(at, [_FIELD[:-3] % 1, *[_PIECE] * at.many(400), b"\r\n--b--\r\n"])


async def endless_preamble(at: Scene) -> Outcome:
    return await refused(at, [_PIECE] * at.many(400))


async def half_a_form(at: Scene) -> Outcome:
    return await refused(at, [_FILE, *[_PIECE] * at.many(400)])


CASES = [
    Case("a form of 100,000 parts", parts, 16),
    Case("a form of 100,000 files", files, 16),
    Case("a part's head without an end", endless_head, 30),
    Case("a field without an end", endless_field, 30),
    Case("a form without a boundary", endless_preamble, 30),
    Case("half a form", half_a_form, 40),
]
