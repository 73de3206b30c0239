"""What arms would cost. Nothing is run: what the refresh's own training took on this machine is the measure."""

from pathlib import Path

from ratoon import records
from ratoon.config.arms import FewShot, Retrieved, Trained
from ratoon.evaluation.arms import Expected
from ratoon.evaluation.contexts import Context, Filled, Nothing
from ratoon.evaluation.prompted import Planner, Room, room
from ratoon.training.request import Request, Result
from tasks.arms import Study, reader_of


def estimate(study: Study) -> list[Expected]:
    """Arithmetic runs as fast as it did while the candidate was trained; what is read to be shown comes on top."""
    job = study.job
    result = records.read(job.folder / "train" / "result.json", Result)
    request = records.read(job.folder / "train" / "request.json", Request)
    reader = reader_of(study, job.parent)
    per_token = float(reader.flops.training(request.row_tokens))
    per_second = per_token * result.tokens_per_second
    # Two whole checkpoints of weights and two moments, and a third while it is written.
    checkpoint = 3 * sum(file.stat().st_size for file in Path(result.model).glob("*.safetensors"))
    found = []
    for name in study.asked.asked:
        asked = getattr(study.asked, name)
        tokens = (result.tokens if asked.tokens == "same" else asked.tokens) if isinstance(asked, Trained) else 0
        place, context = in_front(study, name)
        plan = Planner(reader.tokenizer, context, place).plan(study.suite, study.library.tasks)
        flops = reader.cost(plan.every)
        found.append(
            Expected(
                name=name,
                measured=study.measured(name) is not None,
                training_tokens=tokens,
                training_flops=per_token * tokens,
                training_seconds=result.seconds * tokens / result.tokens,
                rows=len(plan.every),
                scoring_flops=flops,
                scoring_seconds=flops / per_second,
                disk_bytes=3 * checkpoint if tokens else 0,
                shown_bytes=text_to_show(study, asked),
            )
        )
    return found


def in_front(study: Study, name: str) -> tuple[Room, Context]:
    """As much as may be shown."""
    asked: FewShot | Retrieved | Trained = getattr(study.asked, name)
    row = study.job.base.row_tokens
    if isinstance(asked, Trained):
        return Room(row, row, 0), Nothing()
    place = room(study.job.parent, row, asked.tokens, name)
    return place, Filled(place.shown, asked.query_tokens if isinstance(asked, Retrieved) else 0)


def text_to_show(study: Study, asked: FewShot | Retrieved | Trained) -> int:
    if isinstance(asked, Trained):
        return 0
    library = study.library
    return sum(library.text_bytes(name, asked.max_bytes) for name in library.sources(asked))
