"""Reads a paginated list up to a number of items."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

Item = TypeVar("Item")
_PAGE: Final = 100


async def collect_pages(
    read_page: Callable[[int, str | None], Awaitable[tuple[Sequence[Item], str | None]]],
    most: int | None,
) -> tuple[list[Item], bool]:
    """The first `most` items (None: all), and whether there may be more.

    `read_page` gets the length of a page and the cursor behind which it begins, and returns items
    and the next cursor.
    """
    found: list[Item] = []
    cursor: str | None = None
    while most is None or len(found) < most:
        left = _PAGE if most is None else min(_PAGE, most - len(found))
        items, cursor = await read_page(left, cursor)
        found += items
        if cursor is None:
            return found, False
    return found, True
