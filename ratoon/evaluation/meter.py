"""lm-eval's scoring of a transformers model, counted as it goes. Importing this imports lm-eval: do it late."""

import math
from collections.abc import Callable
from typing import Any

from lm_eval.models.huggingface import HFLM

from ratoon.config import ConfigError

Report = Callable[[int, int], None]  # rows of tokens read, rows in all


class Meter(HFLM):
    """HFLM unchanged in what it computes; its progress goes to `report` instead of the terminal.

    choices     multiple-choice requests to come: a row each, beside the windows of the held-out texts
    truncated   requests whose context lost its beginning because the model reads no more tokens at once
    """

    def __init__(self, model: Any, tokenizer: Any, *, choices: int, report: Report | None, **settings: Any) -> None:
        self.report = report
        self.rows_read = 0
        self.rows_in_all = choices
        self.truncated = 0
        self.rolling = False
        super().__init__(pretrained=model, tokenizer=tokenizer, **settings)

    def tok_encode(self, string: str, *args: Any, **kwargs: Any) -> list[int]:
        tokens = super().tok_encode(string, *args, **kwargs)
        if self.rolling:
            self.rows_in_all += math.ceil(len(tokens) / self.max_length)
        return tokens

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = True) -> list[float]:
        self.rolling = True
        try:
            return super().loglikelihood_rolling(requests, disable_tqdm=True)
        finally:
            self.rolling = False

    def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        return super().loglikelihood(requests, disable_tqdm=True)

    def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = True, override_bs: int | None = None) -> Any:
        for _, context, continuation in requests:
            if not 0 < len(continuation) <= self.max_length:
                raise ConfigError(
                    f"a passage to score has {len(continuation)} tokens; the model reads 1 to {self.max_length} at "
                    f"once\n  change continuation_bytes in data/benchmarks, or row_tokens of the base"
                )
            self.truncated += len(context) + len(continuation) > self.max_length + 1
        return super()._loglikelihood_tokens(requests, disable_tqdm=True, override_bs=override_bs)

    def _model_call(self, inps: Any, *args: Any, **kwargs: Any) -> Any:
        logits = super()._model_call(inps, *args, **kwargs)
        self.rows_read = min(self.rows_read + inps.shape[0], self.rows_in_all)
        if self.report:
            self.report(self.rows_read, self.rows_in_all)
        return logits
