"""The measurements: the only writer of records."""
