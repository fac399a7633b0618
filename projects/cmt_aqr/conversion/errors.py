"""What is raised when a file cannot be converted."""


class ConversionError(ValueError):
    """A file cannot be read, or does not fit the model; the message says what and the remedy."""
