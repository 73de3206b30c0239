"""Datasets of the Hugging Face hub, streamed; their code is never run."""

from collections.abc import Iterator
from typing import Any

from ratoon.config import ConfigError, Dataset
from ratoon.corpus.formats import Bad, Record, sound, take


def revision(origin: Dataset) -> str:
    """The commit the declared revision stands for now, so that an edition names what it read.

    Raises ConfigError when the hub cannot be reached or does not know the dataset.
    """
    from huggingface_hub import HfApi

    try:
        found = HfApi().dataset_info(origin.dataset, revision=origin.revision, timeout=30).sha
    except Exception as error:  # the client's errors share no base: HTTP, offline mode, validation
        raise ConfigError(_unreachable(origin, error)) from error
    if found is None:
        raise ConfigError(f"dataset {origin.dataset!r}: the hub names no commit for it; declare a revision")
    return found


def read(origin: Dataset) -> Iterator[Record | Bad]:
    """Its records in order. `place` is "dataset@revision:number".

    Raises ConfigError when it cannot be fetched or lacks the declared column.
    """
    import datasets

    place = f"{origin.dataset}@{(origin.revision or 'main')[:12]}"
    try:
        stream = datasets.load_dataset(
            origin.dataset, origin.config, split=origin.split, revision=origin.revision, streaming=True
        )
        for number, fields in enumerate(stream, start=1):
            if number == 1 and origin.columns.text not in fields:
                raise ConfigError(_no_column(origin, list(fields)))
            yield sound(take(dict(fields), f"{place}:{number}", origin.columns.text, _size(fields)))
    except (ConfigError, GeneratorExit):
        raise
    except Exception as error:
        raise ConfigError(_unreachable(origin, error)) from error


def _size(fields: dict[str, Any]) -> int:
    return sum(len(value.encode("utf-8", "replace")) for value in fields.values() if isinstance(value, str))


def _unreachable(origin: Dataset, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [""])[0]
    return (
        f"dataset {origin.dataset!r}: could not be read from the hub ({type(error).__name__}: {reason})\n"
        f"  check name, config, split and network; to work offline, put its files into data/raw and declare their path"
    )


def _no_column(origin: Dataset, found: list[str]) -> str:
    return (
        f"dataset {origin.dataset!r}: no column {origin.columns.text!r}; it has {', '.join(map(repr, found))}\n"
        f"  to read another one, name it as columns.text in the source's declaration"
    )
