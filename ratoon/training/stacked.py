"""Several small proxies as one stack of weights: one forward and backward pass for all of them.

The proxies of one size differ in what they read and how fast they learn, not in their shapes. Their weights are laid
on each other, torch.func.vmap carries a batch of each through the model, and every proxy's gradient is clipped and
its weights are moved by AdamW as if it were alone. Arithmetic is the same, its order inside a matrix product is not:
a proxy in a stack differs from the same one alone by rounding (1e-7 of a weight per step), never by more.

What it saves is the price of calls. Where a call has much to do already it costs memory and saves nothing: see `pays`.
A proxy that is stopped (hopeless.py) goes on in its stack unmeasured; the stack ends when all are stopped.
"""

import copy
import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from ratoon import records
from ratoon.config import ConfigError, TrainConfig
from ratoon.lm.lean_layers import make_plain
from ratoon.lm.load import pick_device
from ratoon.records import Observation
from ratoon.training.group import Walk, branch, run_group, trunk_request
from ratoon.training.journal import Report
from ratoon.training.loop import IGNORE, labels, new_step, parts, precision
from ratoon.training.model import drops_out
from ratoon.training.proxies import Group, branches, table_of
from ratoon.training.rollback import Spiked
from ratoon.training.run import Run
from ratoon.training.schedules import learning_rate

MEMBERS = 64  # of one stack at most: activations of all are held at once
PLAIN = ("attention", "loss", "forgetting", "optimizer", "adapter")
CPU_WORK = 2.5e7  # see `pays`
GPU_WIDTH = 512  # see `pays`
Bundle = list[Group]


def bundles(groups: Sequence[Group], mode: Literal["auto", "never", "always"], workers: int) -> list[Bundle]:
    """The groups, those together that are trained as one stack, in the order of their first."""
    alike: dict[str, Bundle] = {}
    for group in groups:
        if mode == "always" and (why := refusal(group)):
            raise ConfigError(f"sweep.stacked: always: {group.request.name} cannot be stacked: {why}; give auto")
        together = mode == "always" or (mode == "auto" and refusal(group) is None and pays(group))
        alike.setdefault(likeness(group) if together else group.request.name, []).append(group)
    found: list[Bundle] = []
    for members in alike.values():
        count = max(min(workers, len(members)), -(-len(members) // MEMBERS))
        found += [members[n::count] for n in range(count)]
    return sorted(found, key=lambda bundle: groups.index(bundle[0]))


def likeness(group: Group) -> str:
    """Groups of equal likeness share their shapes and their steps."""
    request = group.request
    recipe = request.recipe.model_dump(mode="json", exclude={"learning_rate"})
    return json.dumps([request.model, request.row_tokens, group.horizons, recipe, request.trunk and request.trunk.hash])


def refusal(group: Group) -> str | None:
    """Why a group has to be trained alone; None: it need not."""
    recipe = group.request.recipe
    for name in PLAIN:
        if getattr(recipe, name) != TrainConfig.model_fields[name].default:
            return f"train.{name} is not plain"
    if recipe.activation_checkpointing not in (False, "auto"):
        return "train.activation_checkpointing: a stack keeps what layers put out"
    if recipe.precision == "bf16_pure":
        return "train.precision: bf16_pure rounds by chance, each run by its own"
    if not branches(group):
        return "each of its horizons is a run of its own"
    return drops_out(shape_of(group))  # by one draw for the whole stack, where each run should have its own


def shape_of(group: Group) -> dict[str, Any]:
    """The model's configuration, as transformers writes it."""
    found: dict[str, Any] = json.loads((Path(group.request.model) / "config.json").read_text(encoding="utf-8"))
    return found


def pays(group: Group) -> bool:
    """Whether a stack is the faster way (benchmarks/training_stacked.py).

    On a CPU only where calls are most of a step, measured by tokens x weights: 1.6 to 2.9 times as fast up to 2.4e7, no
    faster at 3e7, slower from 2e8 on. On a GPU, for models too narrow to fill it: an assumption, not measured.
    """
    if pick_device(group.request.recipe.device).type != "cpu":
        config = shape_of(group)
        return bool((config.get("hidden_size") or config.get("n_embd") or GPU_WIDTH + 1) <= GPU_WIDTH)
    weights = sum(file.stat().st_size for file in Path(group.request.model).glob("*.safetensors")) / 4
    tokens = (group.request.recipe.micro_rows or group.request.recipe.rows_per_step) * group.request.row_tokens
    return bool(tokens * weights <= CPU_WORK)


def run_bundle(bundle: Bundle) -> list[list[Observation]]:
    """Observations of each group; finished ones are read back."""
    return run_stack(bundle) if len(bundle) > 1 else [run_group(bundle[0])]


def run_stack(bundle: Bundle) -> list[list[Observation]]:
    todo = [group for group in bundle if not table_of(group).exists()]
    if todo:
        walks = [Walk(group) for group in todo]
        branch(walks, Stack([Run(trunk_request(group)) for group in todo]))
        for walk in walks:
            walk.finish()
    return [records.read_observations(table_of(group)) for group in bundle]


@dataclass(frozen=True)
class Kept:
    step: int
    weights: dict[str, Tensor]
    optimizer: list[dict[str, Tensor]]


class Stack:
    """Runs of one shape whose trained weights lie in one tensor each, (M, ...) for M runs.

    One that breaks goes on in it, in its own part of every tensor, unheard; the stack ends when all are broken.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = runs
        self.broken: dict[int, str] = {}
        self.recipe = runs[0].request.recipe
        refuse(runs)
        members = [dict(run.model.named_parameters()) for run in runs]
        trained = [name for name, parameter in members[0].items() if parameter.requires_grad]
        self.weights = {name: torch.stack([member[name].detach() for member in members]) for name in trained}
        for m, member in enumerate(members):
            for name in trained:
                # What a run evaluates and saves are its own parameters: they now are parts of the stack.
                member[name].data = self.weights[name][m]
        self.optimizer = new_optimizer(self.weights, runs)
        for run in runs:
            run.state.optimizer.state.clear()  # made with the run, and held here from now on

    def advance(self, until: int, steps: int, reports: Sequence[Report]) -> None:
        schedule, step_tokens = self.recipe.schedule, self.runs[0].request.step_tokens
        rates = [learning_rate(schedule, run.request.recipe.learning_rate, steps, step_tokens) for run in self.runs]
        for run in self.runs:
            run.model.train()
        # What `auto` may have chosen for it alone: nothing in a stack is reckoned again.
        self.runs[0].model.activation_checkpointing_disable()
        make_plain(self.runs[0].model)
        while (step := self.runs[0].state.step) < until:
            losses_M = self.gradients(step)
            norms_M = self.clip()
            for number, norm in enumerate(norms_M.tolist()):
                if not norm < float("inf"):
                    self.broken.setdefault(number, f"gradient norm is {norm} at step {step}, in a stack")
            if len(self.broken) == len(self.runs):
                return
            now = [rate(step) for rate in rates]
            self.update(now)
            for run in self.runs:
                run.state.step += 1
            for number, (loss, norm, rate) in enumerate(zip(losses_M, norms_M, now, strict=True)):
                if number not in self.broken:
                    try:
                        reports[number](step + 1, {"loss_nats": loss, "grad_norm": norm, "learning_rate": rate})
                    except Spiked as error:
                        self.broken[number] = str(error)

    def gradients(self, number: int) -> Tensor:
        """Each weight's gradient of its own run's mean loss, in `.grad`; the losses (M,)."""
        steps = [new_step(run.batch_at(number), None, number) for run in self.runs]
        if any(step.predicted < 1 for step in steps):
            raise ConfigError("a step without a token to predict: its rows hold one token each")
        device = self.runs[0].model.device
        tokens_MBT = torch.stack([torch.from_numpy(step.batch.tokens) for step in steps])
        labels_MBT = torch.stack([labels(t, s.batch.valid) for t, s in zip(tokens_MBT, steps, strict=True)]).to(device)
        predicted_M = torch.tensor([step.predicted for step in steps], device=device)
        tokens_MBT, losses_M = tokens_MBT.to(device), torch.zeros(len(steps), device=device)
        count = tokens_MBT.shape[1]
        for rows in parts(count, self.recipe.micro_rows or count):
            # Of all kernels of attention on a CPU only the plain one takes a stack; the others go run by run.
            plain = sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()
            with precision(self.recipe, device), plain:
                found, losses = vmap(grad_and_value(self.loss), randomness="error")(
                    self.weights, tokens_MBT[:, rows], labels_MBT[:, rows], predicted_M
                )
            losses_M += losses
            for name, weight in self.weights.items():
                weight.grad = found[name] if weight.grad is None else weight.grad.add_(found[name])
        return losses_M

    def loss(self, weights: dict[str, Tensor], tokens_BT: Tensor, labels_BT: Tensor, predicted: Tensor) -> Tensor:
        """One run's part of its mean loss. What is not trained is the same in all runs, and the first run's serves."""
        asked = {"input_ids": tokens_BT, "use_cache": False}
        logits_BTV = functional_call(self.runs[0].model, weights, (), asked).logits[:, :-1]
        summed = cross_entropy(
            logits_BTV.reshape(-1, logits_BTV.shape[-1]).float(),
            labels_BT.reshape(-1),
            ignore_index=IGNORE,
            reduction="sum",
        )
        return summed / predicted

    def clip(self) -> Tensor:
        """Scale each run's gradient to train.max_norm at most; its norm before (M,)."""
        grads = [weight.grad for weight in self.weights.values() if weight.grad is not None]
        norms_M = torch.linalg.vector_norm(torch.stack([g.flatten(1).norm(dim=1) for g in grads]), dim=0)
        factors_M = (self.recipe.max_norm / (norms_M + 1e-6)).clamp(max=1.0)  # as clip_grad_norm_ has it
        for g in grads:
            g.mul_(factors_M.reshape(-1, *[1] * (g.ndim - 1)))
        return norms_M

    def update(self, rates: Sequence[float]) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rates[group["member"]] * group.get("rate_factor", 1.0)
            for weight, whole in zip(group["params"], group["of"], strict=True):
                weight.grad = whole.grad if weight is whole else whole.grad[group["member"]]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        for weight in self.weights.values():
            weight.grad = None

    def snapshot(self) -> Kept:
        weights = {name: weight.clone() for name, weight in self.weights.items()}
        # The state alone: the groups hold the weights themselves, which must stay the ones that are trained.
        state = copy.deepcopy(list(self.optimizer.state.values()))
        return Kept(self.runs[0].state.step, weights, state)

    def put_back(self, kept: Kept) -> None:
        for name, weight in self.weights.items():
            weight.copy_(kept.weights[name])
        if not kept.optimizer:  # nothing had been remembered yet
            self.optimizer.state.clear()
        for own, was in zip(self.optimizer.state.values(), kept.optimizer, strict=True):
            for key, value in was.items():
                own[key].copy_(value)
        for run in self.runs:
            run.state.step = kept.step


def refuse(runs: Sequence[Run]) -> None:
    """What only an open run shows."""
    for run in runs:
        if run.state.methods or type(run.state.optimizer) is not torch.optim.AdamW:
            raise ConfigError(
                f"{run.request.name}: only plain AdamW without methods is stacked; set sweep.stacked: never"
            )
    if dropout := drops_out(runs[0].model.config.to_dict()):
        raise ConfigError(f"{runs[0].request.model}: {dropout}; set sweep.stacked: never")


def new_optimizer(weights: dict[str, Tensor], runs: Sequence[Run]) -> torch.optim.AdamW:
    """The first run's optimizer over the stack, with what each run's own remembers already.

    Runs of one rate are moved by one call over the whole stack; of several, each over its part of it.
    """
    first = runs[0].state.optimizer
    names = {id(parameter): name for name, parameter in runs[0].model.named_parameters()}
    alike = len({run.request.recipe.learning_rate for run in runs}) == 1
    groups: list[dict[str, Any]] = []
    for member in range(1 if alike else len(runs)):
        for group in first.param_groups:
            of = [weights[names[id(parameter)]] for parameter in group["params"]]
            groups.append({**group, "params": of if alike else [w[member] for w in of], "member": member, "of": of})
    made = torch.optim.AdamW(groups, lr=0.0, betas=first.defaults["betas"], fused=True)
    remember(made, runs, names, alike)
    return made


def remember(made: torch.optim.AdamW, runs: Sequence[Run], names: dict[int, str], alike: bool) -> None:
    """Moments that runs begin with, where they go on from a trunk."""
    states = [
        {name: run.state.optimizer.state.get(parameter) for name, parameter in run.model.named_parameters()}
        for run in runs
    ]
    first = runs[0].state.optimizer.param_groups
    for number, group in enumerate(made.param_groups):
        like = first[number % len(first)]
        for weight, parameter in zip(group["params"], like["params"], strict=True):
            own = [state[names[id(parameter)]] for state in states]
            found = [kept for kept in (own if alike else [own[group["member"]]]) if kept]
            if found:
                made.state[weight] = {
                    key: value.clone() if key == "step" or not alike else torch.stack([one[key] for one in found])
                    for key, value in found[0].items()
                }
