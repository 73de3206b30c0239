"""What cannot be had is refused with a letter, and what decides the numbers is in a run's identity."""

import json
import shutil

import pytest
from pydantic import ValidationError

from ratoon.config import ConfigError
from ratoon.config.loss import Distill, Loss, Reweight, Select
from ratoon.training.group import Group, run_group
from ratoon.training.run import Run

STEP = 8 * 16


@pytest.fixture
def other(tiny, tmp_path):
    """Makes a copy of the model whose configuration says otherwise."""

    def make(**changes):
        folder = tmp_path / "other"
        shutil.copytree(tiny / "model", folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **changes}))
        return str(folder)

    return make


def asked(kind, model):
    return Loss(select=Select(reference=model)) if kind == "select" else Loss(distill=Distill(teacher=model))


@pytest.mark.parametrize(
    ("changes", "letter"),
    [
        (
            {"vocab_size": 300},
            r"has a vocabulary of 300, the model in training has 512.*give a model with the parent's",
        ),
        ({"architectures": ["BertForMaskedLM"]}, r"is BertForMaskedLM, which does not predict the next token.*allowed"),
        ({"is_encoder_decoder": True}, r"does not predict the next token from those before it"),
        ({"max_position_embeddings": 8}, r"reads 8 tokens, rows have 16; give a model with a context at least as long"),
    ],
)
@pytest.mark.parametrize("kind", ["select", "distill"])
def test_a_model_that_cannot_be_compared_is_refused_before_the_first_step(request_for, other, kind, changes, letter):
    key = {"select": "reference", "distill": "teacher"}[kind]
    with pytest.raises(ConfigError, match=rf"^train\.loss\.{kind}\.{key}: .*{letter}"):
        Run(request_for(loss=asked(kind, other(**changes))))


def test_a_model_that_is_not_there_is_refused_with_what_is_allowed(request_for, tmp_path):
    with pytest.raises(ConfigError, match=rf"{tmp_path}/none: no model here.*; give a directory of transformers, or p"):
        Run(request_for(loss=asked("select", str(tmp_path / "none"))))


def test_a_model_with_another_tokenizer_is_refused(request_for, other, tiny, tmp_path):
    folders = [tmp_path / "parent", tmp_path / "other"]
    shutil.copytree(tiny / "model", folders[0])
    other()
    for number, folder in enumerate(folders):
        words = {"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "<s>": 2 + number}}, "added_tokens": []}
        (folder / "tokenizer.json").write_text(json.dumps(words))
        (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<s>"}))
    request = request_for(loss=asked("distill", str(folders[1]))).model_copy(update={"model": str(folders[0])})
    with pytest.raises(ConfigError, match=r"has tokenizer \w{12}, the parent in .* has \w{12}; the same ids would be"):
        Run(request)


def test_a_cache_that_cannot_be_written_is_refused(request_for, tmp_path):
    (tmp_path / "file").write_text("")
    select = Select(reference="parent", cache=str(tmp_path / "file"))
    with pytest.raises(ConfigError, match=r"^train\.loss\.select\.cache: .*give a directory that can be written"):
        Run(request_for(loss=Loss(select=select)))


def test_two_ways_to_count_a_token_are_not_mixed():
    with pytest.raises(ValidationError, match="both decide how much a token counts: give one of them"):
        Loss(reweight=Reweight(), select=Select(reference="parent"))


def test_rows_that_would_be_weighed_after_the_run_are_refused(request_for):
    with pytest.raises(ConfigError, match=r"burn_in_steps: 1,000 plain steps first, in a run of 20; lower it"):
        Run(request_for(loss=Loss(reweight=Reweight())))
    assert Run(request_for(loss=Loss(reweight=Reweight(burn_in_steps=19)))).state.methods


def test_a_teacher_is_not_asked_for_longer_than_the_run():
    with pytest.raises(ValidationError, match="more than the run together; lower one of them"):
        Distill(teacher="parent", until_share=0.8, fade_share=0.3)


def test_a_sweep_has_no_trunk_where_the_teacher_leaves_at_a_share_of_the_run(request_for):
    loss = Loss(distill=Distill(teacher="parent", until_share=0.5))
    group = Group(request=request_for(tokens=20 * STEP, loss=loss), horizons=(10 * STEP,), target_tokens=20 * STEP)
    with pytest.raises(ConfigError, match="no trunk for a sweep: distill ends at a share of the run's length; for a"):
        run_group(group)
    assert Loss(distill=Distill(teacher="parent")).no_trunk is None


def test_a_branch_with_a_teacher_is_to_the_bit_the_whole_run_of_its_length(request_for):
    settings = {"loss": Loss(distill=Distill(teacher="parent"), noise_alpha=5.0), "evaluations": 1}
    horizons = (6 * STEP, 12 * STEP)
    request = request_for("trunk", tokens=12 * STEP, **settings)
    found = run_group(Group(request=request, horizons=horizons, target_tokens=12 * STEP))
    for horizon in horizons:
        (alone,) = run_group(
            Group(
                request=request_for(f"alone-{horizon}", tokens=horizon, **settings),
                horizons=(horizon,),
                target_tokens=horizon,
            )
        )[-1:]
        assert [o.loss_nats for o in found if o.tokens == horizon and o.evaluated == alone.evaluated] == [
            alone.loss_nats
        ]


def test_a_run_is_another_by_what_its_loss_does_and_not_by_where_things_lie(request_for, tmp_path):
    def identity(**loss):
        return request_for(loss=Loss(**loss)).identity()

    here = identity(select=Select(reference="/models/small", cache=None))
    assert here == identity(select=Select(reference="/elsewhere/small", cache=str(tmp_path)))
    assert here != identity(select=Select(reference="/models/large"))
    assert here != identity(select=Select(reference="/models/small", keep=0.7))
    assert identity() == request_for().identity()
    assert identity(noise_alpha=5.0) != identity()
