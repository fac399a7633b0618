"""The error of a failed conversion."""


class ConversionError(ValueError):
    """A file cannot be read or does not fit the model; the message names the remedy."""
