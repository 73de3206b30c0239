"""Observations of runs that were never made: their loss is a planted law's."""

from ratoon.records import Observation


def observation(role, params, tokens, share, loss, **changes):
    fields = {
        "run": f"{params:g}-{share}-{tokens:g}",
        "group": f"{params:g}-{share}",
        "commit": None,
        "config": "",
        "model": "planted",
        "params_non_embedding": int(params),
        "tokens": int(tokens),
        "share": share,
        "learning_rate": 1e-4,
        "step": 1,
        "finished": True,
        "evaluated": role,
        "role": role,
        "loss_nats": float(loss),
        "bits_per_byte": None,
    }
    return Observation(**{**fields, **changes})
