"""GET /api/fetch-prompt: an idea for a prompt."""

from __future__ import annotations

import random

from flask import Blueprint, Response, jsonify, request

from shared.errors import InvalidValue
from shared.schema.words import find_word
from shared.web.control.prompts import KINDS, suggest


def suggestion_routes() -> Blueprint:
    """GET /api/fetch-prompt?type=positive|negative; with a `seed`, the same one each time."""
    routes = Blueprint("suggestions", __name__)

    @routes.get("/api/fetch-prompt")
    def fetch_prompt() -> Response:
        asked = request.args.get("type", "positive")
        kind = next((each for each in KINDS if each == find_word(asked, KINDS)), None)
        if kind is None:
            raise InvalidValue(f"type {asked!r} does not exist", field="type", hint=f"one of {', '.join(KINDS)}")
        answer = jsonify({"status": "success", "type": kind, "prompt": suggest(kind, _source())})
        # A browser that keeps answers would suggest the same one for ever.
        answer.headers["Cache-Control"] = "no-store"
        return answer

    return routes


def _source() -> random.Random:
    seed = request.args.get("seed")
    return random.Random(seed) if seed else random.Random()
