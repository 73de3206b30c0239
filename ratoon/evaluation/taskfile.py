"""A task as lm-eval reads it: `<name>.yaml` beside `<name>.jsonl`.

Fields are named by column: a template would read "[1]" in a text as a Python list.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import yaml

from ratoon.config import Asked, Benchmark

FIELDS: dict[Asked, dict[str, Any]] = {
    "rolling": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "text",
    },
    "choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "context",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "target_delimiter": "",  # a continuation begins with its own white space
    },
    "generation": {
        "output_type": "generate_until",
        "doc_to_text": "prompt",
        "doc_to_target": "answers",
    },
}
# acc, fixed in advance: the choices are equally long, and dividing by length would only add noise.
METRICS: dict[Asked, dict[str, Any]] = {
    "rolling": {"metric": "bits_per_byte"},
    "choice": {"metric": "acc"},
    "generation": {
        "metric": "exact_match",
        "aggregation": "mean",
        "higher_is_better": True,
        "ignore_case": True,
        "ignore_punctuation": True,
    },
}


def write_files(folder: Path, name: str, kind: Asked, lines: list[dict[str, Any]], benchmark: Benchmark) -> None:
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / f"{name}.jsonl").write_bytes(text.encode())
    declaration = yaml.safe_dump(task_file(name, kind, lines, benchmark), sort_keys=False)
    (folder / f"{name}.yaml").write_bytes(declaration.encode())


def lines_of(file: Path) -> list[dict[str, Any]]:
    """Not by splitlines: it also parts a text at U+0085 and U+2028, which JSON leaves as they are."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]


def task_file(name: str, kind: Asked, lines: list[dict[str, Any]], benchmark: Benchmark) -> dict[str, Any]:
    fields = dict(FIELDS[kind])
    if kind == "generation":
        until, tokens = lines[0]["until"], lines[0]["max_tokens"]
        fields["generation_kwargs"] = {"until": until, "max_gen_toks": tokens, "do_sample": False}
        fields["filter_list"] = [
            {"name": "stripped", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}
        ]
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": f"{name}.jsonl"}},
        "test_split": "test",
        **fields,
        "num_fewshot": 0,
        "metric_list": [METRICS[kind]],
        "metadata": {"version": benchmark.version},
    }


def requests(lines: list[dict[str, Any]]) -> int:
    return sum(len(line.get("choices", "1")) for line in lines)


def digest_of(folder: Path, name: str) -> str:
    content = (folder / f"{name}.yaml").read_bytes() + (folder / f"{name}.jsonl").read_bytes()
    return hashlib.sha256(content).hexdigest()
