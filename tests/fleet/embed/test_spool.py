"""What an interrupted run has done is there again, whole, for the same run only."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.errors import InvalidRequest
from fleet.embed.spool import Bad, Block, Facts, OtherRun, facts_of, path_for, spool

FACTS = Facts(digest="d", column=None, model="m", backend=None, dimensions=None)
ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)
FIRST = Block(2, ROWS[:2])
SECOND = Block(2, ROWS[2:], [Bad(3, "refused", "no")])


def kept(out: Path, *blocks: Block, **changed: Any) -> tuple[int, int, list[Block]]:
    """Add blocks to a spool; returns how many rows and errors it knows, and its blocks."""
    with spool(out, FACTS.model_copy(update=changed)) as opened:
        for block in blocks:
            opened.add(block)
        return opened.rows, opened.bad, list(opened.blocks())


def test_what_was_added_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    kept(tmp_path / "o.npy", FIRST)
    rows, bad, blocks = kept(tmp_path / "o.npy", SECOND)

    assert (rows, bad) == (4, 1)
    assert np.array_equal(np.concatenate([block.rows for block in blocks]), ROWS)
    assert blocks[1].bad == SECOND.bad


@pytest.mark.parametrize("lost_bytes", range(1, 91, 7))
def test_what_was_not_written_whole_is_cut_off(tmp_path: Path, lost_bytes: int) -> None:
    kept(tmp_path / "o.npy", FIRST)
    whole = path_for(tmp_path / "o.npy").read_bytes()
    kept(tmp_path / "o.npy", SECOND)
    both = path_for(tmp_path / "o.npy").read_bytes()
    assert lost_bytes < len(both) - len(whole)
    path_for(tmp_path / "o.npy").write_bytes(both[:-lost_bytes])

    rows, _, blocks = kept(tmp_path / "o.npy")

    assert (rows, len(blocks)) == (2, 1)
    assert path_for(tmp_path / "o.npy").read_bytes() == whole


@pytest.mark.parametrize(
    "blocks", [(), (Block(1, np.empty((1, 0), np.float32), [Bad(0, "no_text", "empty")]),)]
)
def test_a_run_that_kept_no_vector_is_in_no_other_runs_way(
    tmp_path: Path, blocks: tuple[Block, ...]
) -> None:
    out = tmp_path / "o.npy"
    kept(out, *blocks)

    assert facts_of(out) is None
    assert kept(out, FIRST, model="another")[:2] == (2, 0)
    assert facts_of(out) is not None


def test_a_byte_that_rotted_costs_what_comes_after_it(tmp_path: Path) -> None:
    kept(tmp_path / "o.npy", FIRST, SECOND)
    data = bytearray(path_for(tmp_path / "o.npy").read_bytes())
    data[-1] ^= 1
    path_for(tmp_path / "o.npy").write_bytes(data)

    assert kept(tmp_path / "o.npy")[0] == 2


def test_rows_of_a_block_without_any_vector_are_as_wide_as_the_others(tmp_path: Path) -> None:
    nothing = Block(1, np.empty((1, 0), np.float32), [Bad(0, "no_text", "empty")])
    _, _, blocks = kept(tmp_path / "o.npy", nothing, Block(1, ROWS[:1]))

    assert np.isnan(blocks[0].rows).all()
    assert blocks[0].rows.shape == (1, 3)


@pytest.mark.parametrize(
    "changed", [{"digest": "e"}, {"model": "n"}, {"column": "c"}, {"dimensions": 5}]
)
def test_another_run_does_not_go_on_there(tmp_path: Path, changed: dict[str, Any]) -> None:
    kept(tmp_path / "o.npy", FIRST)

    with pytest.raises(OtherRun, match="--restart"):
        kept(tmp_path / "o.npy", **changed)
    with spool(tmp_path / "o.npy", FACTS.model_copy(update=changed), restart=True) as opened:
        assert opened.rows == 0


def test_vectors_of_another_width_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OtherRun, match="model has changed"):
        kept(tmp_path / "o.npy", FIRST, Block(1, np.zeros((1, 5), np.float32)))


def test_a_run_has_a_name_of_its_own_that_stays(tmp_path: Path) -> None:
    with spool(tmp_path / "o.npy", FACTS) as opened:
        first = opened.facts
    kept(tmp_path / "o.npy", FIRST)
    kept(tmp_path / "p.npy", FIRST)

    assert first == facts_of(tmp_path / "o.npy") != facts_of(tmp_path / "p.npy")
    assert facts_of(tmp_path / "q.npy") is None


def test_one_process_at_a_time_writes_an_output(tmp_path: Path) -> None:
    busy = pytest.raises(InvalidRequest, match="another `fleet embed`")
    with spool(tmp_path / "o.npy", FACTS), busy, spool(tmp_path / "o.npy", FACTS):
        pass
