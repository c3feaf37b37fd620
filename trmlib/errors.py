"""The one error a user is meant to read: a single line that says what, where and what to do."""


class TrmError(Exception):
    """Bad input or a broken file; the command line prints it as one line and exits with `code`."""

    def __init__(self, message, code=2):
        super().__init__(message)
        self.code = code
