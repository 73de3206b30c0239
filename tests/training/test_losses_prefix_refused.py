"""What documents behind prefixes cannot have is refused with a letter; what decides the numbers is in the identity."""

import json
import shutil

import pytest

from ratoon.config import ConfigError
from ratoon.config.loss import Distill, Loss, Prefix
from ratoon.training.group import Group, run_group
from ratoon.training.loop import advance
from ratoon.training.probe import tried
from ratoon.training.run import Run

STEP = 8 * 16
UNTIL = Loss(prefix=Prefix(until_share=0.5))


def test_rows_without_prefixes_are_refused_with_what_to_do(request_for):
    with pytest.raises(ConfigError, match=r"no prefixes were packed.*declare prepare\.prefixes.*prefix\.sources"):
        Run(request_for(loss=UNTIL))


def test_a_source_that_is_not_read_and_a_format_of_another_day_are_refused(prefixed_for, behind):
    with pytest.raises(ConfigError, match=r"^train\.loss\.prefix\.sources: no source 'domian'; did you mean 'domain'"):
        Run(prefixed_for(loss=Loss(prefix=Prefix(sources=("domian",)))))
    with pytest.raises(ConfigError, match=r"prefixes of format 9, this version reads 1; pack the source anew"):
        Run(prefixed_for(rows=behind(format=9)))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_named_source_without_a_share_in_a_run_is_no_mistake(prefixed_for, request_for, share):
    both, one = (Loss(prefix=Prefix(until_share=1, sources=names)) for names in (("domain", "general"), ("domain",)))
    found = [Run(prefixed_for(f"{n}", share=share, loss=loss)) for n, loss in enumerate((both, one))]
    assert [run.batch_at(0).silent is not None for run in found] == [True, share == 1]
    if not share:
        plain = Run(request_for("plain", share=share)).batch_at(0)
        assert (found[1].batch_at(0).tokens == plain.tokens).all()


@pytest.mark.parametrize(("attention", "longest"), [("row", 16 + 12), ("document", 16 + 10)])
def test_rows_longer_than_the_model_reads_are_refused(prefixed_for, behind, tiny, tmp_path, attention, longest):
    rows = behind(lambda document: [7] * (10 if document % 2 else 2))
    model = shutil.copytree(tiny / "model", tmp_path / "short")
    config = json.loads((model / "config.json").read_text())
    for context in (longest - 1, longest):
        (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": context}))
        request = prefixed_for(f"{context}", rows=rows, attention=attention).model_copy(update={"model": str(model)})
        if context == longest:
            assert Run(request).reading.prefixed.context == longest
        else:
            letter = rf"rows have up to {longest} tokens, the model in .* reads {context}; declare .* row_tokens 15"
            with pytest.raises(ConfigError, match=letter):
                Run(request)


def test_prefixes_for_less_than_a_step_are_refused(prefixed_for):
    with pytest.raises(ConfigError, match=r"until_share: 0\.01 of 20 steps is none; raise it, or leave prefix out"):
        Run(prefixed_for(loss=Loss(prefix=Prefix(until_share=0.01))))


def test_a_cooldown_at_a_share_of_the_run_gives_a_sweep_no_trunk(prefixed_for):
    assert "prefix" in UNTIL.no_trunk
    assert [Loss(prefix=Prefix(until_share=share)).no_trunk for share in (0, 1)] == [None, None]
    with pytest.raises(ConfigError, match=r"no trunk for a sweep: prefix ends at a share .* give until_share 1"):
        run_group(Group(request=prefixed_for(), horizons=(10 * STEP,), target_tokens=20 * STEP))


def test_prefixes_are_part_of_a_runs_identity(prefixed_for, request_for):
    found = {prefixed_for(loss=Loss(prefix=p)).identity() for p in (None, Prefix(), Prefix(until_share=0.5))}
    assert len(found) == 3
    assert request_for(loss=Loss(prefix=None)).identity() == request_for().identity()


def test_a_teacher_that_cannot_read_rows_with_their_prefixes_is_refused(prefixed_for, tiny, tmp_path):
    teacher = shutil.copytree(tiny / "model", tmp_path / "teacher")
    config = json.loads((teacher / "config.json").read_text())
    (teacher / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 17}))
    distill = Distill(teacher=str(teacher))
    with pytest.raises(ConfigError, match=r"^train\.loss\.distill\.teacher: .* reads 17 tokens, rows have 2\d; give"):
        Run(prefixed_for(loss=Loss(prefix=Prefix(), distill=distill)))


def test_an_estimate_takes_its_steps_on_rows_with_their_prefixes(prefixed_for, monkeypatch):
    seen = []
    monkeypatch.setattr("ratoon.training.probe.SECONDS", 0.01)
    monkeypatch.setattr(
        "ratoon.training.probe.advance",
        lambda state, until, batch_at, **more: (
            seen.append(batch_at(state.step)),
            advance(state, until, batch_at=batch_at, **more),
        ),
    )
    tried(prefixed_for(loss=Loss(prefix=Prefix())))
    assert seen
    assert all(batch.silent is not None for batch in seen)
