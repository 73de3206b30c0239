"""Small files in groups: what new files do to old groups."""

import random

from ratoon.corpus.units import GROUPS, LARGE_BYTES, Input, groups


def files(folder, count, seed=0):
    draw = random.Random(f"{folder} {seed}")
    names = sorted({f"{folder}/{draw.randrange(10**9)}.txt" for _ in range(count)})
    return [Input(name, name, draw.randrange(1, 200_000)) for name in names]


def held(items):
    return [tuple(group) for group in groups(sorted(items, key=lambda item: item.name))]


OLD = files("raw/b", 5000)


def test_every_file_is_in_one_group_in_the_order_of_names():
    assert [item for group in groups(OLD) for item in group] == OLD
    assert list(groups([])) == []


def test_groups_are_of_about_the_size_of_a_large_file():
    sizes = [sum(item.size for item in group) for group in groups(OLD)]
    assert LARGE_BYTES / 2 < sum(sizes) / len(sizes) < LARGE_BYTES * 2


def test_few_files_are_a_group_each_and_tiny_ones_make_some_dozen_groups():
    assert held(OLD[:GROUPS]) == [(item,) for item in OLD[:GROUPS]]
    for count in (100, 1000, 5000):
        unsized = [Input(f"{i}", f"{i}", 0) for i in range(count)]  # a store may not say how large a file is
        assert GROUPS / 3 < len(held(unsized)) < GROUPS * 2


def test_one_file_more_or_less_or_longer_touches_two_groups_at_most():
    before = set(held(OLD))
    for i in range(0, 5000, 501):
        less = OLD[:i] + OLD[i + 1 :]
        longer = [*less, OLD[i]._replace(size=199_999)]
        more = [*OLD, Input(f"{OLD[i].name}.txt", f"{OLD[i].name}.txt", 100)]
        for changed in (less, longer, more):
            assert len(before - set(held(changed))) <= 2


def test_a_folder_of_new_files_leaves_all_old_groups_but_one():
    before = set(held(OLD))
    for folder in ("raw/a", "raw/b/new", "raw/c"):
        assert len(before - set(held([*OLD, *files(folder, 50)]))) <= 1
