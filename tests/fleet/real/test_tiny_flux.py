"""The tiny image model: the same bytes each time, and little room on the disk."""

import json
from pathlib import Path

import pytest

from fleet.real import tiny_flux as tiny


def header(path: Path) -> dict[str, dict[str, list[int]]]:
    data = path.read_bytes()[: 1 << 20]
    length = int.from_bytes(data[:8], "little")
    fields: dict[str, dict[str, list[int]]] = json.loads(data[8 : 8 + length])
    return fields


def test_it_is_the_same_each_time_and_its_text_encoder_is_sparse(tmp_path: Path) -> None:
    one, two = (tiny.write_model(tmp_path / name) for name in "ab")
    size = one.text_encoder.stat()

    assert one.diffusion.read_bytes() == two.diffusion.read_bytes()
    assert one.autoencoder.read_bytes() == two.autoencoder.read_bytes()
    assert size.st_size > 240_000_000
    assert size.st_blocks * 512 < 1_000_000


def test_the_header_covers_the_file_to_its_last_byte(tmp_path: Path) -> None:
    model = tiny.write_model(tmp_path / "model")
    for path in (model.diffusion, model.autoencoder, model.text_encoder):
        with path.open("rb") as file:
            head_bytes = 8 + int.from_bytes(file.read(8), "little")
        ends = [field["data_offsets"][1] for field in header(path).values()]

        assert head_bytes % 8 == 0
        assert head_bytes + max(ends) == path.stat().st_size


def test_it_is_made_once_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_FLEET_CACHE", str(tmp_path / "new"))
    model = tiny.tiny_flux()

    assert model == tiny.tiny_flux()
    assert model.diffusion.parent.parent == tmp_path / "new"
    assert "--clip_l" in model.options
