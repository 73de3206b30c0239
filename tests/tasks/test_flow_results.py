"""What flows hand on is short and plain: paths, digests, numbers. Models, tables and pickles stay where they are."""

import importlib
import pkgutil
import typing

import pytest
from prefect import Flow, Task
from prefect.settings import get_current_settings
from prefect.states import State

import flows
import tasks

PLAIN = {str, int, float, bool, type(None), typing.Any, object}


def every(package, kind):
    """Of that kind, defined in the package's modules, by name."""
    names = [module.name for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")]
    return sorted(
        (name, item)
        for module in names
        for name, item in vars(importlib.import_module(module)).items()
        if isinstance(item, kind) and item.fn.__module__ == module
    )


def plain(hint):
    if hint in PLAIN:
        return True
    return typing.get_origin(hint) in (dict, list, tuple, typing.Union, type(int | str)) and all(
        map(plain, typing.get_args(hint))
    )


@pytest.mark.parametrize(("name", "flow"), every(flows, Flow))
def test_a_flow_returns_plain_words_and_numbers(name, flow):
    hint = typing.get_type_hints(flow.fn)["return"]
    kinds = [*typing.get_args(hint)] if typing.get_origin(hint) is type(int | str) else [hint]
    states = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, State)]
    alone = name in ("refresh", "gc", "backup")  # these end with their message alone
    waits = name in ("prepare", "drift")  # a deployment ends Cancelled where its text is being read
    assert len(states) == (alone or waits), hint
    assert alone == (states == kinds)
    assert all(map(plain, set(kinds) - set(states))), hint


def test_nothing_is_kept_as_a_pickle():
    for _, item in [*every(flows, Flow), *every(tasks, Task)]:
        assert not item.persist_result
        assert item.result_storage is None
    # What a flow failed of is written down all the same.
    assert {item.result_serializer for _, item in every(flows, Flow)} == {"json"}
    assert not get_current_settings().results.persist_by_default


def test_every_task_that_may_heal_says_so_with_the_same_patience():
    tried = {name: (item.retries, item.retry_delay_seconds) for name, item in every(tasks, Task) if item.retries}
    assert {"train_target", "run_proxies", "make_editions", "push_editions", "register", "judge"} <= set(tried)
    assert set(map(str, tried.values())) == {str((3, [10.0, 30.0, 90.0]))}
    assert all(item.retry_condition_fn for name, item in every(tasks, Task) if name in tried)
