"""The storage asks no more of a folder than of an object store."""

from contextlib import aclosing
from pathlib import Path
from uuid import uuid4

import pytest

from api_shim.file_storage import PIECE_BYTES, Storage
from contract.errors import StorageUnavailable, UnknownFile


@pytest.fixture(params=["folder", "objects"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    urls = {"folder": str(tmp_path / "files"), "objects": f"memory://{uuid4().hex}"}
    return Storage(urls[request.param])


async def read(storage: Storage, name: str) -> bytes:
    async with aclosing(storage.read(name)) as pieces:
        return b"".join([piece async for piece in pieces])


async def written(storage: Storage, name: str, *pieces: bytes) -> int:
    async with storage.write(name) as writing:
        for piece in pieces:
            await writing.write(piece)
    return writing.size_bytes


async def test_what_was_written_is_read_in_pieces(storage: Storage) -> None:
    data = b"0123456789" * (PIECE_BYTES // 4)
    size_bytes = await written(storage, "a/b/c", data, b"", b"end")
    async with aclosing(storage.read("a/b/c")) as pieces:
        sizes = [len(piece) async for piece in pieces]

    assert size_bytes == len(data) + 3 == sum(sizes)
    assert max(sizes) == PIECE_BYTES
    assert await read(storage, "a/b/c") == data + b"end"


async def test_an_empty_object_is_one(storage: Storage) -> None:
    await written(storage, "empty")

    assert await read(storage, "empty") == b""


async def test_what_is_not_there_is_unknown(storage: Storage) -> None:
    with pytest.raises(UnknownFile):
        await read(storage, "nothing")


async def test_a_name_deletes_what_is_under_it(storage: Storage) -> None:
    await written(storage, "batches/one/1", b"x")
    await written(storage, "batches/two/1", b"y")
    await storage.delete("batches/one")
    await storage.delete("batches/never")
    with pytest.raises(UnknownFile):
        await read(storage, "batches/one/1")

    assert await read(storage, "batches/two/1") == b"y"


async def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StorageUnavailable, match="FLEET_FILES_URL"):
        await written(Storage(str(tmp_path / "file" / "x")), "a", b"x")


@pytest.mark.parametrize("url", ["nonsense://x", "abfs://container"])
async def test_an_unknown_storage_is_an_error(url: str) -> None:
    with pytest.raises(StorageUnavailable):
        await written(Storage(url), "a", b"x")


async def test_the_folder_is_its_owners(tmp_path: Path) -> None:
    await written(Storage(str(tmp_path / "files")), "a", b"x")

    assert (tmp_path / "files").stat().st_mode & 0o777 == 0o700
