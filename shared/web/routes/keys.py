"""POST /api/add-api-key: keeps a key for a service of others, and says nothing of it."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, request

from shared.keys import KeyRing
from shared.web.body import read_fields


def key_routes(keys: KeyRing) -> Blueprint:
    """POST /api/add-api-key of `alias` and `api-key`."""
    routes = Blueprint("keys", __name__)

    @routes.post("/api/add-api-key")
    def add_key() -> Response:
        values = read_fields(request).values
        known = keys.add(values.get("alias"), values.get("api-key", values.get("api_key")))
        message = "the key is kept in place of the earlier one" if known else "the key is kept"
        return jsonify({"status": "success", "message": message, "alias": str(values["alias"]).strip()})

    return routes
