"""`dream_layer.py models`: what lies in the models folder, and files in and out of it.

    arguments.py  what can be typed; standard library only, for it is read before there is an environment
    commands.py   list, add, remove
    known.py      well-known open models, by short names
    sources.py    what was typed -> a file of the user's, or a download
    download.py   a download, that can be broken off and goes on
    shelf.py      the models folder
    tables.py     what the terminal shows of it all

Only a person at the command line names an address here; no HTTP route leads to this package.
"""
