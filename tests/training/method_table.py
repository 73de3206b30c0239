"""Every way to train otherwise than plainly, once each: what is promised of all is tested on these.

A method that params.yaml knows and this table does not fails a test (test_methods_universal.py).
"""

from typing import Any, NamedTuple, get_args

from ratoon.config.adapter import LowRank, Osf
from ratoon.config.forgetting import Forgetting
from ratoon.config.loss import Loss
from ratoon.config.optimizer import Optimizer


class Case(NamedTuple):
    asked: dict[str, Any]  # of the recipe
    neutral: dict[str, Any] | None = None  # asked for, and doing nothing; None: there is no such setting
    refused: str | None = None  # on ranks: the key that the letter names; None: ranks do it too


def forgetting(name, asked, neutral, refused=True):
    key = f"train.forgetting.{name}" if refused else None
    return Case({"forgetting": {name: asked}}, {"forgetting": {name: neutral}}, key)


def loss(name, asked, neutral=None):
    return Case({"loss": {name: asked}}, neutral and {"loss": neutral})


def optimizer(asked, key=None, neutral=None):
    return Case({"optimizer": asked}, neutral and {"optimizer": neutral}, key)


def adapter(name, **more):
    return Case({"adapter": {"name": name, **more}}, None, "train.adapter")


CASES = {
    "forgetting.anchor": forgetting("anchor", {"epsilon": 0.3, "every": 2}, {"epsilon": 1, "every": 2}),
    "forgetting.average": forgetting("average", {"decay": 0.8, "start": 1}, {"decay": 0, "start": 1}),
    "forgetting.parent": forgetting("parent", {"beta": 0.5, "top_k": 20}, {"beta": 0, "top_k": 20}, refused=False),
    "forgetting.elastic": forgetting("elastic", {"strength": 5000, "rows": 8}, {"strength": 0, "rows": 8}),
    "forgetting.soft_mask": forgetting("soft_mask", {"strength": 1, "rows": 8}, {"strength": 0, "rows": 8}),
    "forgetting.interpolation": forgetting("interpolation", 0.4, 1),
    "loss.label_smoothing": loss("label_smoothing", 0.1, {"label_smoothing": 0}),
    "loss.reweight": loss("reweight", {"burn_in_steps": 1}),
    "loss.select": loss("select", {"keep": 0.6, "reference": "parent"}, {"select": {"keep": 1, "reference": "parent"}}),
    "loss.distill": loss(
        "distill", {"teacher": "parent", "temperature": 2.0}, {"distill": {"teacher": "parent", "weight": 0}}
    ),
    "loss.prefix": loss("prefix", {"until_share": 0.5}, {"prefix": {"until_share": 0}}),
    "loss.noise_alpha": loss("noise_alpha", 5.0, {"noise_alpha": 0}),
    "optimizer.name: muon": optimizer({"name": "muon"}, "train.optimizer.name"),
    "optimizer.name: galore": optimizer({"name": "galore", "galore": {"rank": 4, "gap": 2}}, "train.optimizer.name"),
    "optimizer.moments: bf16": optimizer({"moments": "bf16"}, "train.optimizer.moments"),
    "optimizer.moments: 8bit": optimizer({"moments": "8bit"}, "train.optimizer.moments"),
    "optimizer.moments: fp32": optimizer({"moments": "fp32", "freeze": ["*layers.1*"]}, neutral={"moments": "fp32"}),
    "optimizer.freeze": optimizer({"freeze": ["*layers.0*"]}),
    "optimizer.rates": optimizer({"rates": {"*.mlp.*": 0.5}}, neutral={"rates": {"*.mlp.*": 1.0}}),
    "adapter: lora": adapter("lora", rank=2),
    "adapter: rslora": adapter("rslora", rank=2),
    "adapter: dora": adapter("dora", rank=2),
    "adapter: osf": adapter("osf"),
}
ELSEWHERE = {
    "adapter: qlora": "a GPU and bitsandbytes alone can do it",
    "optimizer.muon": "settings of optimizer.name: muon",
    "optimizer.galore": "settings of optimizer.name: galore",
}


def known():
    """Every method that params.yaml knows, by its name in this table."""
    found = {f"forgetting.{name}" for name in Forgetting.model_fields} | {f"loss.{name}" for name in Loss.model_fields}
    for name, field in Optimizer.model_fields.items():
        values = [value for part in (field.annotation, *get_args(field.annotation)) for value in get_args(part)]
        words = [value for value in values if isinstance(value, str) and value != field.default]
        plain = name in ("name", "moments")
        found |= {f"optimizer.{name}: {word}" for word in words} if plain else {f"optimizer.{name}"}
    for kind in (LowRank, Osf):
        found |= {f"adapter: {name}" for name in get_args(kind.model_fields["name"].annotation)}
    return found
