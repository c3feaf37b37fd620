"""trmlib: small models applied again and again to their own answer, and fair ways to measure them."""

__version__ = "0.1.0"
