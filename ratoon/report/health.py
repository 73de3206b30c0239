"""The health of what two models write, as plain text: at most 80 columns, ASCII."""

from ratoon.evaluation.health import Health, Measured, Writing
from ratoon.records import Interval

SAID = {
    "rep_1": "repeated words",
    "rep_4": "repeated 4-grams",
    "diversity": "diversity",
    "loop": "ends in a loop",
    "ended": "ends by itself",
    "length": "tokens",
    "strayed": "other language",
    "mixing": "mixed languages",
    "copied": "copied 13-grams",
}
HEAD = f"  {'':<17}{'parent':>9}{'candidate':>11}{'text':>9}  change"


def text(health: Health) -> str:
    """What changed in the way the models write and in how sure they are. Empty where nothing was looked at."""
    lines: list[str] = []
    for writing in health.writing:
        lines += [f"written: {writing.source}, {writing.prompts} prompts"[:80], HEAD, *_rows(writing)]
    for valid in health.valid:
        lines.append(
            f"valid outputs: {valid.benchmark} on {valid.source} {valid.parent:.1%} -> {valid.candidate:.1%}"[:80]
        )
    for item in health.calibration:
        old, new = item.parent, item.candidate
        lines.append(f"calibration error: {item.benchmark} on {item.source}"[:80])
        lines.append(
            f"  {old.ece:.3f} -> {new.ece:.3f} (by chance {new.by_chance:.3f}), overconfident by "
            f"{100 * old.overconfidence:+.1f} -> {100 * new.overconfidence:+.1f} points"
        )
    return "\n".join(lines)


def _rows(writing: Writing) -> list[str]:
    # What neither model nor text has a value for was not measured.
    known = [m for m in writing.measures if m.name in SAID and (m.parent is not None or m.candidate is not None)]
    return [_row(measure, writing.prompts) for measure in known]


def _row(item: Measured, prompts: int) -> str:
    fewer = f" n={item.prompts}" if 0 < item.prompts < prompts else ""
    shown = [_value(item.name, value) for value in (item.parent, item.candidate, item.text)]
    return (
        f"  {SAID[item.name]:<17}{shown[0]:>9}{shown[1]:>11}{shown[2]:>9}  {_change(item.name, item.difference)}{fewer}"
    )


def _value(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if name == "length" else f"{value:.1%}"


def _change(name: str, change: Interval | None) -> str:
    if change is None:
        return "-"
    scale = 1 if name == "length" else 100
    clear = "" if change.low <= 0 <= change.high else " *"
    return f"{scale * change.value:+.1f} [{scale * change.low:+.1f}, {scale * change.high:+.1f}]{clear}"
