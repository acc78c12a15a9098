"""What a client sent becomes a request with everything resolved; what was unusual about it becomes warnings.

`requests` is the way through; the other modules each know one part of it.
"""
