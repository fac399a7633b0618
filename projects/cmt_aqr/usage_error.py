"""The error of a wrong command line; imports without MMEngine."""


class UsageError(Exception):
    """The command cannot run as given; the message says why and how to fix it."""
