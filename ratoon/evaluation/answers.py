"""Is what a model wrote right, and has it the form that was asked for?

Right is what equals an accepted answer in small letters and without punctuation, as lm-eval's exact_match asked to
ignore both; where an answer is punctuation alone, such as an operator, it must be that one (lm-eval takes any).

Form comes before truth: an output of the wrong form is a failure to follow, not to know (valid-output recall, VOR). The
form is the item's to say: `pattern`, a regular expression the whole output must match but for blanks around it, or
`labels`, of which it must be one. Without either anything that is not empty is valid.
"""

import re
import string
from collections.abc import Sequence
from typing import Any

PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    return text.lower().translate(PUNCTUATION)


def is_correct(output: str, answers: Sequence[str]) -> bool:
    said = output.strip()
    return any(
        normalised(said) == normalised(answer) if normalised(answer) else said == answer.strip() for answer in answers
    )


def is_valid(output: str, item: dict[str, Any]) -> bool:
    pattern, labels = item.get("pattern"), item.get("labels")
    if pattern is not None:
        return re.fullmatch(pattern, output.strip()) is not None
    if labels is not None:
        return is_correct(output, labels)
    return bool(output.strip())
