"""Is what a model wrote right, and has it the form that was asked for?

Both look at the text alike: small letters, no punctuation, blanks as one. Form comes before truth: an output of the
wrong form is a failure to follow, not to know (valid-output recall, VOR). What is a form is the item's to say:
`pattern`, a regular expression the whole output must match but for blanks around it, or `labels`, of which it must be
one. Without either anything that is not empty is valid.
"""

import re
import string
from collections.abc import Sequence
from typing import Any

PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    return " ".join(text.lower().translate(PUNCTUATION).split())


def is_correct(output: str, answers: Sequence[str]) -> bool:
    # Punctuation alone may be an answer, such as an operator: then it is compared as it stands.
    said = normalised(output)
    return any(said == normalised(it) if normalised(it) else output.strip() == it.strip() for it in answers)


def is_valid(output: str, item: dict[str, Any]) -> bool:
    pattern, labels = item.get("pattern"), item.get("labels")
    if pattern is not None:
        return re.fullmatch(pattern, output.strip()) is not None
    if labels is not None:
        return is_correct(output, labels)
    return bool(output.strip())
