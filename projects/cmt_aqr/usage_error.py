"""The error of a command that its user can mend; imports without MMEngine."""


class UsageError(Exception):
    """The command cannot run as given; the message says why and what to do."""
