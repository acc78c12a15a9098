"""The routes of the control service: the engine, models, and what the web page asks for beside pictures."""
