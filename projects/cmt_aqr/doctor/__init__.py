"""Checks that a machine computes what it should, for ``tools/doctor.py``; imports with torch alone.

Each check is a function of a device that returns a :class:`.result.Result`; :mod:`.checks` lists
them all. A check that needs more than torch imports it when it is called, so that a missing package
is one failed line.
"""
