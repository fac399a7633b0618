"""Numerical checks of a machine for ``tools/doctor.py``; imports with torch alone.

Each check is a function of a device that returns a :class:`.result.Result`; :mod:`.checks` lists
them. A check imports other packages than torch when it is called, so that a missing package makes
one line of the table fail.
"""
