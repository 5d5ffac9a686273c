"""Measures servers side by side: `compare.py` is the program, these are its rooms.

`scenarios` says what is asked and what must be answered, `processes` reads /proc, `load` runs the clients, `peers`
writes configurations, `packages` has what is measured and its versions, `servers` starts and ends one server, `crowd`
holds connections beside, `rounds` and `collecting` measure, `report` makes tables, `document` keeps them in a file and
puts those of several runs together, `extract` is what the front page shows. Each imports only what is named before it.
"""
