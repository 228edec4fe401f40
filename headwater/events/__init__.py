"""Events on their way from bytes to columns: decoding, admission, `where` and `derive`."""
