"""What is tried again, exception by exception: what may heal by itself, and nothing else."""

import errno
import importlib
import inspect
import pkgutil
import socket
import sqlite3

import httpx
import mlflow.exceptions
import pytest
import requests
import torch
import urllib3
from prefect.exceptions import PrefectHTTPStatusError, TerminationSignal
from prefect.states import Failed

import ratoon
import tasks
from ratoon.config import ConfigError
from ratoon.training.faults import Ended, GaveUp
from ratoon.training.loop import Diverged
from ratoon.training.rollback import Spiked
from ratoon.training.sole import Occupied
from ratoon.training.supervise import Killed
from tasks.commits import NotRecorded
from tasks.retry import may_heal, weather
from tasks.services import ServiceFailed
from tasks.tracking import TrackingUnavailable
from tasks.versions import Busy, RemoteUnavailable

REQUEST = httpx.Request("GET", "http://127.0.0.1:4200/api")


def status(kind, code):
    """What a client raises for an answer of this status."""
    return kind("said no", request=REQUEST, response=httpx.Response(code, request=REQUEST))


def by_requests(code):
    response = requests.Response()
    response.status_code = code
    return requests.HTTPError("said no", response=response)


def of_botocore(name, base, **attributes):
    """As botocore has it: its errors are known by module and name, for it is not always there."""
    above = type(base, (Exception,), {"__module__": "botocore.exceptions"})
    error = type(name, (above,), {"__module__": "botocore.exceptions"})(name)
    for key, value in attributes.items():
        setattr(error, key, value)
    return error


def upload_failed(because):
    error = type("S3UploadFailedError", (Exception,), {"__module__": "boto3.exceptions"})("no upload")
    error.__cause__ = because
    return error


def answered(code):
    return of_botocore("ClientError", "Other", response={"ResponseMetadata": {"HTTPStatusCode": code}})


HEALS = [
    TrackingUnavailable("MLflow at http://127.0.0.1:5000 does not answer"),
    RemoteUnavailable("DVC remote store did not take the editions"),
    Busy("another DVC process works on this project"),
    Occupied("another training process has worked here for 45 s"),
    ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
    ConnectionResetError(errno.ECONNRESET, "reset"),
    BrokenPipeError(errno.EPIPE, "broken"),
    TimeoutError("timed out"),
    OSError(errno.ENETUNREACH, "network is unreachable"),
    OSError(errno.EHOSTUNREACH, "no route to host"),
    socket.gaierror(socket.EAI_AGAIN, "temporary failure in name resolution"),
    sqlite3.OperationalError("database is locked"),
    mlflow.exceptions.MlflowException("API request failed: Max retries exceeded with url"),
    requests.ConnectionError("connection aborted"),
    requests.ReadTimeout("read timed out"),
    by_requests(503),
    urllib3.exceptions.ProtocolError("connection broken"),
    httpx.ConnectError("all connection attempts failed"),
    httpx.ReadTimeout("read timed out"),
    httpx.RemoteProtocolError("server disconnected"),
    status(PrefectHTTPStatusError, 503),
    of_botocore("EndpointConnectionError", "ConnectionError"),
    of_botocore("ReadTimeoutError", "HTTPClientError"),
    answered(503),
    upload_failed(answered(500)),
]
NEVER = [
    ConfigError("params.yaml: train.tokns: no key"),
    Killed("training was ended by SIGKILL 3 times"),
    GaveUp("broke more often than it may go back"),
    Ended("was asked to end and did"),
    Diverged("gradient norm is nan"),
    Spiked("the loss of the step"),
    ServiceFailed("mlflow ended while starting"),
    NotRecorded("git commit-tree: no identity"),
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory"),
    OSError(errno.ENOSPC, "no space left on device"),
    FileNotFoundError(errno.ENOENT, "no such file"),
    PermissionError(errno.EACCES, "permission denied"),
    socket.gaierror(socket.EAI_NONAME, "name or service not known"),
    ValueError("shares sum to 1.2"),
    TypeError("not callable"),
    AssertionError(),
    RuntimeError("stage clean@web failed (exit code -9)"),
    sqlite3.OperationalError("no such table: runs"),
    mlflow.exceptions.MlflowException("Registered Model with name=nano not found"),
    requests.exceptions.InvalidURL("no host"),
    by_requests(403),
    httpx.UnsupportedProtocol("missing http://"),
    status(PrefectHTTPStatusError, 404),
    status(PrefectHTTPStatusError, 422),
    answered(403),
    upload_failed(answered(404)),
    KeyboardInterrupt(),
    SystemExit(1),
    TerminationSignal(15),
]


def told(error):
    text = str(error).splitlines()
    return f"{type(error).__name__}: {text[0][:40] if text else ''}"


@pytest.mark.parametrize("error", HEALS, ids=told)
def test_a_lost_connection_or_a_held_lock_is_tried_again(error):
    assert may_heal(error)


@pytest.mark.parametrize("error", NEVER, ids=told)
def test_a_mistake_a_refusal_or_want_of_memory_is_not(error):
    assert not may_heal(error)


def test_prefect_asks_with_the_state_the_task_ended_in():
    assert weather(None, None, Failed(data=Busy("a lock")))
    assert not weather(None, None, Failed(data=ConfigError("a key")))


def own_errors():
    for package in (ratoon, tasks):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if found.name.endswith("__main__"):
                continue
            module = importlib.import_module(found.name)
            for _, kind in inspect.getmembers(module, inspect.isclass):
                public = kind.__module__ == found.name and not kind.__name__.startswith("_")
                if public and issubclass(kind, Exception):
                    yield kind


def test_every_exception_of_ours_is_in_the_table():
    # One that is new has to say which it is. A subclass of one that never heals need not: it does not either.
    known = {type(error) for error in (*HEALS, *NEVER)}
    missing = {kind.__name__ for kind in own_errors() if kind not in known and not issubclass(kind, ConfigError)}
    assert missing == set()
