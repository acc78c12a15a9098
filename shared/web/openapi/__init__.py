"""The OpenAPI document of a service, and the page that shows it.

`operation` says what a description holds; `drawing`, `jobs`, `workflows` and `house` describe the routes, one table for
each group; `document` makes the document from a service's routes and those tables; `routes` serves it.
"""
