"""Questions put to a model in llama.cpp: the rewinding evaluation that choices asks for."""

from __future__ import annotations

from typing import Any

import llama_cpp as llama
import numpy as np

from . import choices, evaluation
from .evaluation import Logits, Tokens
from .llama_session import SCORE_BATCH, Session, open_session
from .protocol import Request


def choose(request: Request) -> dict[str, Any]:
    """Put `items` [{"prompt", "options"}] to `model`: `{"log_likelihoods": [[one per option], ...]}`; see choices."""
    session = open_session(request, batch_tokens=SCORE_BATCH)
    return choices.answer(
        request["items"],
        lambda text: session.tokenize(text, special=False),
        _Rewinding(session).evaluate,
        first_token=session.first_token,
        room=session.n_ctx,
    )


class _Rewinding:
    """A session that goes back to any position: by cutting its cache, or, where a recurrent model cannot, by
    evaluating again what stood before."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.past = np.empty(0, np.int32)

    def evaluate(self, tokens: Tokens, position: int, every: bool) -> Logits:
        """See choices.Evaluate."""
        memory = llama.llama_get_memory(self.session.context)
        if position == 0 or not llama.llama_memory_seq_rm(memory, 0, position, -1):
            self.session.clear()
            evaluation.prefill(self.session, self.past[:position])
        self.past = np.concatenate([self.past[:position], tokens])
        return evaluation.feed_all(self.session, tokens, position, every=every)
