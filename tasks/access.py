"""Who may reach the servers: this machine alone, or others by name and password.

Secrets come from the environment and go on only there: never on a command line, into a file or a log. (MLflow keeps
its own table of users, with hashes.)
"""

import base64
import ipaddress
import os
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ratoon import records
from ratoon.config import ConfigError

HOST = "127.0.0.1"
LOGIN = "PREFECT_SERVER_API_AUTH_STRING"
CLIENT_LOGIN = "PREFECT_API_AUTH_STRING"
USER, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
SECRETS = (LOGIN, CLIENT_LOGIN, PASSWORD)
MIN_PASSWORD = 12  # characters; NIST SP 800-63B asks 8 at least, and these pages take any number of guesses
ANY = ("0.0.0.0", "::")
ASKED = (
    f"export {LOGIN}=NAME:PASSWORD, {USER}=NAME and {PASSWORD}=PASSWORD ({MIN_PASSWORD} characters or more; "
    f"`openssl rand -hex 24` makes one)"
)


class Bind(NamedTuple):
    """Where servers listen, and whether they ask who is there."""

    host: str = HOST
    login: bool = False

    @property
    def client_host(self) -> str:
        """What a program on this machine calls."""
        host = {"0.0.0.0": HOST, "::": "::1"}.get(self.host, self.host)
        return f"[{host}]" if ":" in host else host


LOCAL = Bind()


def bind(host: str, login: bool, environ: Mapping[str, str]) -> Bind:
    """Raises ConfigError for a host that others can reach without secrets, and for secrets that are none."""
    asked = login or not loopback(host)
    if asked:
        _check(environ, f"--host {host}" if not loopback(host) else "--login")
    return Bind(host, asked)


def loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None)
    except OSError:
        raise ConfigError(
            f"--host {host}: no address of that name here; give an address of this machine, or 0.0.0.0 for all"
        ) from None
    return all(ipaddress.ip_address(str(item[4][0]).split("%")[0]).is_loopback for item in found)


def _check(environ: Mapping[str, str], option: str) -> None:
    name, colon, password = environ.get(LOGIN, "").partition(":")
    missing = [variable for variable in (LOGIN, USER, PASSWORD) if not environ.get(variable)]
    if missing:
        raise ConfigError(
            f"ratoon up {option}: {', '.join(missing)} not set; pages that others can reach need a login\n  {ASKED}"
        )
    if not name or not colon:
        raise ConfigError(f"{LOGIN}: not of the form NAME:PASSWORD\n  {ASKED}")
    for variable, value in ((LOGIN, password), (PASSWORD, environ[PASSWORD])):
        if len(value) < MIN_PASSWORD:
            raise ConfigError(f"{variable}: the password has {len(value)} characters\n  {ASKED}")


def for_clients(environ: Mapping[str, str]) -> dict[str, str]:
    """What lets a Prefect client in where the server's own login is known and the client's is not."""
    login = environ.get(LOGIN)
    return {CLIENT_LOGIN: login} if login and CLIENT_LOGIN not in environ else {}


def headers(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """For our own questions to Prefect's API."""
    given = os.environ if environ is None else environ
    login = given.get(CLIENT_LOGIN) or given.get(LOGIN)
    return {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"} if login else {}


def for_prefect(bound: Bind, port: int, environ: Mapping[str, str]) -> dict[str, str]:
    """Prefect answers pages of any origin unless told not to: a stranger's page, open in a browser on this machine,
    could start runs here. Its own page alone is let in; and a request that changes something needs a token, unless
    it needs the login."""
    wanted = {
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(f"http://{name}:{port}" for name in _names(bound)),
        # Left to itself the page asks port 4200 of this machine, wherever it was served from.
        "PREFECT_SERVER_UI_API_URL": "/api",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    }
    if not bound.login:
        wanted["PREFECT_SERVER_CSRF_PROTECTION_ENABLED"] = "true"
    return {name: value for name, value in wanted.items() if name not in environ}


def _names(bound: Bind) -> list[str]:
    names = ["localhost", HOST]
    if not loopback(bound.host):
        names += [socket.gethostname(), socket.getfqdn()]
        names += [] if bound.host in ANY else [bound.client_host]
    return list(dict.fromkeys(names))


def for_mlflow(root: Path, bound: Bind, environ: Mapping[str, str]) -> dict[str, str]:
    """Which names it answers to, which stops DNS rebinding; and, with a login, who its first user is."""
    wanted: dict[str, str] = {}
    if not loopback(bound.host):
        hosts = [name for pair in ((name, f"{name}:*") for name in _names(bound)) for name in pair]
        # 0.0.0.0 is called by any of this machine's addresses; MLflow itself lets in private ones by default.
        private = ["10.*", "192.168.*", *(f"172.{n}.*" for n in range(16, 32))] if bound.host in ANY else []
        wanted["MLFLOW_SERVER_ALLOWED_HOSTS"] = ",".join([*hosts, *private])
    if bound.login:
        wanted |= {
            "MLFLOW_AUTH_CONFIG_PATH": str(_users(root)),
            "MLFLOW_AUTH_ADMIN_USERNAME": environ[USER],
            "MLFLOW_AUTH_ADMIN_PASSWORD": environ[PASSWORD],
            # Signs the forms of the page where users are made; a new one at each start costs a reload of it.
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(32),
        }
    return {name: value for name, value in wanted.items() if name not in environ}


def _users(root: Path) -> Path:
    """MLflow's settings of its login: nobody sees anything before the first user grants it. Holds no secret."""
    path = root / ".ratoon" / "mlflow-auth.ini"
    database = str(root / ".ratoon" / "mlflow-auth.db").replace("%", "%%")  # else the ini's parser looks for a name
    records.write_text(
        path,
        f"[mlflow]\ndefault_permission = NO_PERMISSIONS\ndatabase_uri = sqlite:///{database}\n",
    )
    return path
