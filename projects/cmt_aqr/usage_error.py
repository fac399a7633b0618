"""Error of a command that its user can correct; needs no other package."""


class UsageError(Exception):
    """The command cannot run as given; the message states the reason and the remedy."""
