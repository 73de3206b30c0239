"""What flow runs and artifacts are called on the page."""

from prefect.runtime import flow_run


def run_name() -> str:
    """The verb and what was asked: `refresh nano small`, `train ratio 0.3`."""
    ask = (flow_run.parameters or {}).get("ask") or {}
    given = ask if isinstance(ask, dict) else ask.model_dump()
    asked = {name: value for name, value in given.items() if value not in (None, False) and name != "because"}
    words = [str(asked.pop(name)) for name in ("base", "budget") if name in asked]
    words += [name if value is True else f"{name} {value}" for name, value in asked.items()]
    return " ".join([str(flow_run.flow_name), *words])


def artifact_key(line: str, what: str) -> str:
    """Prefect takes small letters, digits and dashes."""
    return "".join(c if c.isalnum() else "-" for c in line.lower()) + f"-{what}"
