"""Select unit test sets by name, id and tag."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from amigo_async.errors import ArgumentError
from amigo_async.models import UnitTestSet
from amigo_async.protocol.endpoints import UNIT_TEST_SETS
from amigo_async.protocol.requests import check_tag, is_id
from amigo_async.resources.unit_test_sets import UnitTestSets

# Of sets that the search does not find, no more are looked through than this.
_MOST_LOOKED_THROUGH: Final = 200
_PERMISSION: Final = f"the permission {UNIT_TEST_SETS.permission} is missing"


async def select_sets(
    unit_test_sets: UnitTestSets, selectors: Sequence[str], tags: str | Sequence[str]
) -> list[UnitTestSet]:
    """Select sets by id or name, and by tags; see `AmigoClient.select_sets`."""
    if isinstance(tags, str):
        tags = (tags,)
    if not selectors and not tags:
        raise ArgumentError("name at least one set, by its id or its name, or give tags")
    for selector in selectors:
        if not isinstance(selector, str) or not selector.strip():
            raise ArgumentError(f"a set is selected by its id or its name, not by {selector!r:.80}")
    for tag in tags:
        check_tag("tag", tag)
    by_id = await _with_ids(unit_test_sets, [s for s in selectors if is_id(s)])
    selected: dict[str, UnitTestSet] = {}
    for selector in selectors:
        found = by_id.get(selector) or await _with_name(unit_test_sets, selector.strip())
        selected[found.id] = found
    if tags:
        with_tags = await _with_tags(unit_test_sets, tags)
        selected.update((one.id, one) for one in with_tags)
    return list(selected.values())


async def _with_ids(unit_test_sets: UnitTestSets, ids: Iterable[str]) -> dict[str, UnitTestSet]:
    unique = list(dict.fromkeys(ids))
    size = UNIT_TEST_SETS.page_size
    found: dict[str, UnitTestSet] = {}
    for at in range(0, len(unique), size):
        page = await unit_test_sets.list(id=unique[at : at + size], limit=size)
        found |= {one.id: one for one in page.simulation_unit_test_sets}
    missing = [i for i in unique if i not in found]
    if missing:
        raise ArgumentError(
            f"no set has the id {', '.join(missing)}, or {_PERMISSION}; is it the id of a run?"
        )
    deleted = [f"{one.name!r} ({one.id})" for one in found.values() if one.is_deleted]
    if deleted:
        raise ArgumentError(f"deleted sets cannot be run: {', '.join(deleted)}")
    return found


async def _with_name(unit_test_sets: UnitTestSets, name: str) -> UnitTestSet:
    """The set of that name, case ignored.

    The search finds sets whose names or descriptions contain the terms; the whole name decides.
    What the search does not find is looked for in the list of all sets, up to a number.
    """
    found = {one.id: one for one in await unit_test_sets.search(name) if not one.is_deleted}
    same = _called(name, found.values())
    if not same:
        async for one in unit_test_sets.iterate(is_deleted=False):
            found[one.id] = one
            if len(found) >= _MOST_LOOKED_THROUGH:
                break
        same = _called(name, found.values())
    if len(same) == 1:
        return same[0]
    if same:
        raise ArgumentError(
            f"{len(same)} sets are called {name!r}; select one by its id: {_listed(same)}"
        )
    nearest = _nearest(name.casefold(), found.values())
    hint = f"; the nearest are {_listed(nearest)}" if nearest else f", or {_PERMISSION}"
    raise ArgumentError(f"no set is called {name!r}{hint}")


def _called(name: str, sets: Iterable[UnitTestSet]) -> list[UnitTestSet]:
    return [one for one in sets if one.name.strip().casefold() == name.casefold()]


def _nearest(wanted: str, sets: Iterable[UnitTestSet]) -> list[UnitTestSet]:
    from difflib import get_close_matches  # noqa: PLC0415  # for the message of an error alone

    by_name = {one.name.casefold(): one for one in sets}
    near = get_close_matches(wanted, by_name, n=3, cutoff=0.5)
    containing = [name for name in by_name if wanted in name or name in wanted]
    return [by_name[name] for name in dict.fromkeys([*near, *containing])][:3]


async def _with_tags(unit_test_sets: UnitTestSets, tags: Sequence[str]) -> list[UnitTestSet]:
    """The sets that have all of the tags.

    How the service combines several tags is not documented, so it is asked for one, and the
    others are looked for here.
    """
    found = [
        one
        async for one in unit_test_sets.iterate(tag=tags[0], is_deleted=False)
        if all(_has_tag(one, tag) for tag in tags)
    ]
    if not found:
        raise ArgumentError(f"no set has the tags {', '.join(tags)}, or {_PERMISSION}")
    return found


def _has_tag(unit_test_set: UnitTestSet, wanted: str) -> bool:
    key, _, value = wanted.partition(":")
    values = [tag.value for tag in unit_test_set.tags if tag.key == key]
    return bool(values) if value == "*" else (value or None) in values


def _listed(sets: Iterable[UnitTestSet]) -> str:
    return ", ".join(f"{one.name!r} ({one.id})" for one in sets)
