"""Which store is written to, and how it is asked: once known it is waited for, unknown it is reported at once."""

import os
from functools import lru_cache
from typing import Any

from ratoon.config import ConfigError
from tasks import reach
from tasks.reach import patiently

LONGEST_PARAM, LONGEST_TAG = 6000, 5000


def store() -> str:
    """Where MLflow writes, as tasks.environment or a person has set it."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        raise ConfigError("MLFLOW_TRACKING_URI is not set; call tasks.environment.apply(root) before tracking anything")
    return uri


def client() -> Any:
    """MLflow's client of the store, looked for once. Raises TrackingUnavailable within seconds if none answers."""
    return client_of(store())


@lru_cache(maxsize=8)
def client_of(uri: str) -> Any:
    with reach.opened(uri):
        import logging

        from mlflow import MlflowClient

        # Making the tables of a new store is no news to anyone.
        for name in ("mlflow.store.db.utils", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        try:
            found = MlflowClient(tracking_uri=uri, registry_uri=uri)
            patiently(uri, found.search_experiments, max_results=1)
        except Exception as error:
            if "out-of-date database schema" in str(error):
                raise ConfigError(
                    f"{reach.shown(uri)}: made by another version of MLflow; `ratoon down`, then `ratoon upgrade`"
                ) from error
            raise
    return found


def ask(method: str, *args: Any, **kwargs: Any) -> Any:
    """One call of the client. The store has answered before, so an outage is waited out for minutes."""
    found = getattr(client(), method)
    return patiently(store(), found, *args, waits=reach.long_waits(), **kwargs)


def or_none(method: str, *args: Any) -> Any:
    """The same where not being there is an answer."""
    from mlflow.exceptions import MlflowException

    try:
        return ask(method, *args)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST" or "not found" in str(error):
            return None
        raise
