"""The views of the services, by resource, each with its OpenAPI operation."""
