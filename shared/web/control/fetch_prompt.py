"""GET /api/fetch-prompt: an idea for a prompt."""

from __future__ import annotations

import random

from flask import Blueprint, Response, jsonify, request

from shared.errors import EngineUnavailable, InvalidValue
from shared.schema.words import find_word
from shared.web.backend import Backend
from shared.web.control.prompts import KINDS, suggest
from shared.web.control.starter_prompts import suggest_known
from shared.web.paging import check_arguments
from shared.web.reading.default_checkpoint import is_starter_default


def suggestion_routes(backend: Backend) -> Blueprint:
    """GET /api/fetch-prompt?type=positive|negative; with a `seed`, the same one each time.

    While the starter is what draws, it has only words that the starter knows.
    """
    routes = Blueprint("suggestions", __name__)

    @routes.get("/api/fetch-prompt")
    def fetch_prompt() -> Response:
        check_arguments("type", "seed")
        asked = request.args.get("type", "positive")
        kind = next((each for each in KINDS if each == find_word(asked, KINDS)), None)
        if kind is None:
            raise InvalidValue(f"type {asked!r} does not exist", field="type", hint=f"one of {', '.join(KINDS)}")
        prompt = (suggest_known if _starter_draws(backend) else suggest)(kind, _source())
        answer = jsonify({"status": "success", "type": kind, "prompt": prompt})
        # A browser that keeps answers would suggest the same one for ever.
        answer.headers["Cache-Control"] = "no-store"
        return answer

    return routes


def _starter_draws(backend: Backend) -> bool:
    try:
        return is_starter_default(backend.settings.checkpoint, backend.catalog)
    except EngineUnavailable:
        # Nobody knows what will draw; an idea can do without.
        return False


def _source() -> random.Random:
    seed = request.args.get("seed")
    return random.Random(seed) if seed else random.Random()
