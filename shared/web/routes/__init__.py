"""The views of the services: one module for each resource, with the OpenAPI operation of each view."""
