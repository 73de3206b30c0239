"""The other side of corpus_rules.py, run by the interpreter that has datatrove: decisions and seconds, as JSON lines.

Reads from standard input one request per line: {"texts": [...], "filters": [...], "pipeline": true or false,
"options": {...}}. Answers {"seconds": ..., "decisions": [[reason or null per filter asked] per text]}. In a pipeline a
text that is dropped is not shown to later filters.
"""

import json
import sys
import time

from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4ParagraphFilter,
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)

MAKE = {
    "gopher_repetition": GopherRepetitionFilter,
    "gopher_quality": GopherQualityFilter,
    "fineweb": FineWebQualityFilter,
    "c4": lambda: C4QualityFilter(filter_no_terminal_punct=False),
    "c4_ended": C4QualityFilter,
    "c4_paragraphs": C4ParagraphFilter,
}


def decide(text, filters, pipeline):
    decisions = []
    for each in filters:
        try:
            answer = each.filter(Document(text=text, id="0"))
        except Exception as error:  # a text that breaks the peer is a finding, not the end of the comparison
            answer = (False, f"{type(error).__name__}: {error}")
        decisions.append(None if answer is True else answer[1])
        if pipeline and answer is not True:
            break
    return decisions


def main():
    for line in sys.stdin:
        asked = json.loads(line)
        filters = [MAKE[name](**asked.get("options", {}).get(name, {})) for name in asked["filters"]]
        decide("Loads the word splitter.", filters, pipeline=False)
        begun = time.process_time()
        decisions = [decide(text, filters, asked["pipeline"]) for text in asked["texts"]]
        print(json.dumps({"seconds": time.process_time() - begun, "decisions": decisions}), flush=True)


if __name__ == "__main__":
    main()
