import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from ratoon.config import Ask, ConfigError
from ratoon.layout import Layout
from tasks.job import alone, resolve


def test_a_second_refresh_of_the_same_model_is_refused_until_the_first_ends(tmp_path):
    params = SimpleNamespace(refresh=SimpleNamespace(watch=()))
    job = SimpleNamespace(layout=Layout(Path(tmp_path)), line="mine", params=params, sources=(), editions={})
    (tmp_path / ".ratoon" / "refreshes" / "mine").mkdir(parents=True)
    with (
        alone(job),
        pytest.raises(ConfigError, match=rf"another refresh of this model is under way \(process {os.getpid()}\)"),
        alone(job),
    ):
        pass
    with alone(job):
        pass


def test_a_proxy_that_has_no_rows_of_its_own_is_no_base_to_refresh():
    with pytest.raises(ConfigError, match=r"refresh\.base: 'pico' reads the rows of 'nano', as its proxy; to refresh"):
        resolve(Path(__file__).parents[2], Ask(base="pico"))
